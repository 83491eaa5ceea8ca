"""Files and folders that are either the old one or the new one, never half of one.

Everything is written under a hidden sibling name (`.tmp-…`) and renamed over its target. A killed
process can leave such a sibling behind, so whoever scans a folder skips hidden names. Such a name
tells the machine and the process that it belongs to, so that `clear_leftovers` removes nothing from
under another one that is at work.
"""

import ctypes
import errno
import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

_RENAME_EXCHANGE = 2  # linux/fs.h
_AT_FDCWD = -100  # fcntl.h
_FICLONE = 0x40049409  # linux/fs.h
_ABANDONED = 24 * 3600  # seconds without a change after which nobody is at work on a temporary


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path` in one move."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8, newlines as given, to `path` in one move."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | os.PathLike[str], obj: Any) -> None:
    """Write `obj` as readable JSON to `path` in one move; NaN and infinities are refused."""
    write_bytes(path, json_bytes(obj))


def json_bytes(obj: Any) -> bytes:
    """What `write_json` writes."""
    return (json.dumps(obj, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def create_json(path: str | os.PathLike[str], obj: Any) -> bool:
    """As `write_json`, unless `path` exists; see `create_bytes`."""
    return create_bytes(path, json_bytes(obj))


def create_bytes(path: str | os.PathLike[str], data: bytes) -> bool:
    """As `write_bytes`, unless `path` exists: of several processes that create it at once, one
    returns True, and the file is whole before any of them can see it."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = sibling(target)
    try:
        temporary.write_bytes(data)
        return create_from(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def create_from(source: Path, target: Path) -> bool:
    """The same of a file that is written already, beside ``target``; the caller removes it."""
    sync(source)
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    except OSError:  # a file system without links
        return _create(source, target)
    sync(target.parent)
    return True


def _create(source: Path, target: Path) -> bool:
    """The same without links, where another process may see the file before it is whole."""
    try:
        with source.open("rb") as data, target.open("xb") as file:
            shutil.copyfileobj(data, file)
    except FileExistsError:
        return False
    sync(target)
    return True


def copy(source: Path, target: Path) -> None:
    """Copy what a file holds, with its time of change, to a new file. Where the file system can
    (Btrfs, XFS), the two share their blocks until one of them is written to."""
    with source.open("rb") as original, target.open("wb") as clone:
        if not _clone(original.fileno(), clone.fileno()):
            shutil.copyfileobj(original, clone)
        status = os.fstat(original.fileno())
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def _clone(source: int, target: int) -> bool:
    if sys.platform != "linux":
        return False
    import fcntl

    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        return False
    return True


def check_regular(path: str | os.PathLike[str]) -> None:
    """OSError for what is no file: reading a pipe or a device could go on for ever."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))


def read_file(path: str | os.PathLike[str]) -> bytes:
    """What a file holds. OSError for what cannot be read, or is no file."""
    check_regular(path)
    return Path(path).read_bytes()


def stamp(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Size in bytes and time of change in ns, which a file that is written to does not keep."""
    return full_stamp(path)[:2]


def full_stamp(path: str | os.PathLike[str]) -> tuple[int, int, int]:
    """The same with the time of any change in ns, which nobody sets: one that was put in the
    place of another, with its size and time, has another."""
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def digests(paths: Iterable[Path]) -> list[str]:
    """SHA-256 of what each file holds."""
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path for any library to write a file to; it then replaces `path`.

    The temporary keeps the suffix of `path`, since libraries read the format from it. If the body
    raises, the temporary is removed and an old `path` stays as it was.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = sibling(target)
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(target.parent)


@contextmanager
def replacing_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a new empty folder to fill; it then takes the place of `path`, whole.

    An existing `path` is swapped out and deleted, not merged. If the body raises, the new folder is
    removed and the old one stays as it was. Files that a library leaves to their owner alone, as
    safetensors does, get the mode that new files have.
    """
    target = Path(path).resolve()  # a link to a roomier disk stays a link
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(f"{target} is a file, not a folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = sibling(target)
    temporary.mkdir()
    try:
        yield temporary
        mode = temporary.stat().st_mode & 0o666
        for folder, _, names in os.walk(temporary):
            for file in (Path(folder, name) for name in names):
                if not file.is_symlink() and stat.S_IMODE(file.stat().st_mode) == 0o600:
                    file.chmod(mode)
                sync(file)
            sync(Path(folder))
        _put_folder(temporary, target)
    finally:
        # Holds the half-built folder after a failure, the old one after a swap, else nothing.
        shutil.rmtree(temporary, ignore_errors=True)
    sync(target.parent)


def _put_folder(new: Path, target: Path) -> None:
    """Rename `new` to `target`; an old `target` ends up under the name `new`."""
    if not target.exists():
        os.rename(new, target)
    elif not _exchange(new, target):
        # Two renames: `target` is missing for a moment, but never half there.
        old = sibling(target)
        os.rename(target, old)
        try:
            os.rename(new, target)
        except BaseException:
            os.rename(old, target)
            raise
        os.rename(old, new)


def _exchange(a: Path, b: Path) -> bool:
    """Swap two names in one step; False where the system or file system cannot (not Linux)."""
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None) if os.name == "posix" else None
    if renameat2 is None:
        return False
    done = renameat2(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE)
    return bool(done == 0)


def sibling(path: Path) -> Path:
    """An unused hidden name beside `path`, unique over processes and machines."""
    end = path.name[-40:]  # a file name has room for 255 bytes; the suffix is what matters
    return path.with_name(f".tmp-{_host()}-{os.getpid()}-{secrets.token_hex(4)}-{end}")


def clear_leftovers(folder: Path) -> None:
    """Remove from `folder` the temporaries of killed processes: those of this machine that are
    gone, and whatever has not changed for a day."""
    for path in folder.glob(".tmp-*"):
        if _is_abandoned(path):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)  # another process may be at it, too
            else:
                path.unlink(missing_ok=True)


def clear_all_leftovers(folder: Path) -> None:
    """The same for a folder and all below it."""
    for place, folders, _ in os.walk(folder):
        clear_leftovers(Path(place))
        folders[:] = [name for name in folders if not name.startswith(".tmp-")]


def _is_abandoned(path: Path) -> bool:
    owner = re.match(r"\.tmp-([0-9a-f]{6})-(\d+)-", path.name)
    if owner is not None and owner[1] == _host() and not _runs(int(owner[2])):
        return True
    with suppress(FileNotFoundError):
        return time.time() - path.lstat().st_mtime > _ABANDONED
    return False


def _runs(pid: int) -> bool:
    """Whether a process of this machine runs; True if that cannot be told."""
    if os.name == "nt":  # where signal 0 is Ctrl+C
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True


@cache
def _host() -> str:
    """6 hex digits for this machine, or for this container."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:6]


def sync_all(paths: Iterable[Path]) -> None:
    """Have several files or folders reach the disk."""
    for path in paths:
        sync(path)


def sync(path: Path) -> None:
    """Have a file or a folder reach the disk."""
    if os.name == "nt" or path.is_symlink():  # Windows syncs no handle opened for reading
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
