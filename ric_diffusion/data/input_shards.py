"""Where sharded input lies: tar or parquet files in a folder, by a pattern, or by any address that
fsspec knows."""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ric_diffusion.data import metadata
from ric_diffusion.data.images import SUFFIXES
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import check_regular, stamp

TAR, PARQUET = ".tar", ".parquet"
PLACES = ("", "data")  # in a folder; the second is where the hub has parquet
BUFFER = 2**20  # bytes
LABELLED = "shards"  # where a labelled folder has its shards
_MARK = "://"
_OTHERS = re.compile(r"[\[?]")  # what glob reads as more than itself, beside stars


@dataclass(frozen=True, kw_only=True)
class InputShard:
    """A tar or parquet file of the input.

    Args:
        name: what its output is called, without a suffix.
        address: a path, or an address with a protocol.
    """

    name: str
    address: str

    @property
    def file(self) -> str:
        """The name of the file."""
        return PurePosixPath(self.address).name

    @property
    def is_tar(self) -> bool:
        return self.address.endswith(TAR)

    @property
    def local(self) -> bool:
        return _MARK not in self.address

    def beside(self, suffix: str) -> InputShard:
        """The file of the same name with another suffix, whether there is one or not."""
        return InputShard(name=self.name, address=self.address.removesuffix(TAR) + suffix)

    def stamp(self) -> list[Any] | None:
        """What changes when the file does; None if there is none. InputError if nobody can say."""
        with _told(self.address):
            try:
                if self.local:
                    check_regular(self.address)
                    return [*stamp(self.address)]
                system, path = _system(self.address)
                return [str(system.ukey(path))]
            except FileNotFoundError:
                return None

    @property
    def changed_ns(self) -> int:
        """The time of change in ns; 0 where only a server knows it."""
        return os.stat(self.address).st_mtime_ns if self.local else 0

    def open(self) -> IO[bytes]:
        """InputError if it cannot be opened."""
        with _told(self.address):
            if self.local:
                check_regular(self.address)
                return open(self.address, "rb", buffering=BUFFER)
            system, path = _system(self.address)
            file: IO[bytes] = system.open(path, "rb")
            return file


def find_shards(source: str | os.PathLike[str]) -> list[InputShard]:
    """The shards of the input, in order; none if it is a folder of files.

    ``source`` is a tar or parquet file, a pattern of them with braces ({00000..00099}, {a,b}) or
    stars, or a folder that holds some, itself or in data/, and neither pictures nor metadata, by
    path or by an address (s3://…, hf://…). Of a folder with both, the parquet files describe the
    tars. Names in braces are taken as they come; others are sorted.

    InputError if there is nothing at an address.
    """
    address = os.fspath(source).removeprefix(f"file{_MARK}")
    if _MARK not in address:
        address = Path(os.path.abspath(address)).as_posix()
    with _told(address):
        if _is_folder(address):
            found = _in_folder(address)
        elif PurePosixPath(address).suffix not in (TAR, PARQUET):
            if _MARK in address:
                raise InputError(
                    f"{address}: neither a folder with .tar or .parquet files in it nor such a file"
                )
            return []
        else:
            found = [file for pattern in _expanded(address) for file in _matching(pattern)]
            if not found:
                raise InputError(f"{address}: no such files")
    return _named(found) if found else []


def _is_folder(address: str) -> bool:
    if _MARK not in address:
        return os.path.isdir(address)
    system, path = _system(address)
    return bool(system.isdir(path))


def _in_folder(folder: str) -> list[str]:
    names = _list(folder)
    if _MARK not in folder and _is_labelled(folder, names):
        return _of_suffix(f"{folder}/{LABELLED}", TAR)
    if any(n in metadata.NAMES or PurePosixPath(n).suffix.lower() in SUFFIXES for n in names):
        return []
    for suffix in (TAR, PARQUET):
        for place in PLACES:
            if place and place not in names:
                continue
            if found := _of_suffix(f"{folder.rstrip('/')}/{place}".rstrip("/"), suffix):
                return found
    if _MARK in folder:
        raise InputError(f"{folder}: no .tar or .parquet files in it")
    return []


def _is_labelled(folder: str, names: Sequence[str]) -> bool:
    return LABELLED in names and "reward_space.json" in names


def _of_suffix(folder: str, suffix: str) -> list[str]:
    hidden = (".", "_")
    return [
        f"{folder}/{name}"
        for name in sorted(_list(folder))
        if name.endswith(suffix) and not name.startswith(hidden) and name not in metadata.NAMES
    ]


def _list(folder: str) -> list[str]:
    if _MARK not in folder:
        return os.listdir(folder)
    system, path = _system(folder)
    return [PurePosixPath(name).name for name in system.ls(path, detail=False)]


def _expanded(pattern: str) -> Iterator[str]:
    """What a shell makes of braces: {a,b} and {00..12}, with as many digits."""
    parts = re.split(r"\{([^{}]*)\}", pattern)
    choices = []
    for part in parts[1::2]:
        if span := re.fullmatch(r"(\d+)\.\.(\d+)", part):
            first, last = int(span[1]), int(span[2])
            if last < first:
                raise InputError(f"{pattern}: {{{part}}} counts down; write the lower number first")
            choices.append([f"{i:0{len(span[1])}}" for i in range(first, last + 1)])
        else:
            choices.append(part.split(","))
    for chosen in itertools.product(*choices):
        pairs = itertools.zip_longest(parts[::2], chosen, fillvalue="")
        yield "".join(itertools.chain.from_iterable(pairs))


def _matching(pattern: str) -> list[str]:
    """The files of a pattern with stars, sorted; one without names a file."""
    if "*" not in pattern:
        if _MARK not in pattern and not os.path.isfile(pattern):
            raise FileNotFoundError(pattern)
        return [pattern]
    if _MARK not in pattern:
        return sorted(glob.glob(_OTHERS.sub(r"[\g<0>]", pattern)))
    system, path = _system(pattern)
    return [system.unstrip_protocol(found) for found in sorted(system.glob(path))]


def _named(addresses: Sequence[str]) -> list[InputShard]:
    """Each is called by its file's name, or, where two are the same, by its path below the folder
    that all are in."""
    names = [PurePosixPath(address).stem for address in addresses]
    if len(set(names)) < len(names):
        folder = os.path.commonpath([os.path.dirname(address) for address in addresses])
        below = [PurePosixPath(os.path.relpath(address, folder)) for address in addresses]
        names = [path.with_suffix("").as_posix().replace("/", "-") for path in below]
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise InputError(f"{addresses[names.index(name)]}: named twice; name each shard once")
    return [
        InputShard(name=name, address=address)
        for name, address in zip(names, addresses, strict=True)
    ]


def _system(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it."""
    from fsspec.core import url_to_fs  # here: local files need none of it

    system, path = url_to_fs(address)
    return system, path


@contextmanager
def _told(address: str) -> Iterator[None]:
    """What goes wrong with a file system as one line; a missing package by what to install."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        missing = error.args[0] if error.args and isinstance(error.args[0], str) else address
        raise InputError(f"{missing}: no such file") from error
    except OSError as error:
        where = error.filename or address
        reason = error.strerror or " ".join(str(error).split())
        raise InputError(f"{where}: cannot be read ({reason})") from error
    except Exception as error:  # each file system has errors of its own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{address}: cannot be read ({reason})") from error
