"""Reading a WebDataset tar shard: one sample after the other, and none of it on the disk."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import IO, Any

from ric_diffusion.data import metadata
from ric_diffusion.data.images import SUFFIXES
from ric_diffusion.data.prompts import NO_TEXT, is_utf16
from ric_diffusion.data.records import Record, clean, from_cells
from ric_diffusion.data.samples import Unread
from ric_diffusion.data.sidecars import CaptionRule, UnreadableCaption, captions_in
from ric_diffusion.data.tar_header import read_plain
from ric_diffusion.io.errors import InputError

CAPTIONS = ("txt", "caption")  # in the order in which they are asked
JSON = "json"
LARGEST = 256 * 2**20  # bytes of a member; above what a picture of MAX_PIXELS takes
_ZEROS = 2**20  # bytes that are read at a time behind an end mark
_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)


class BrokenShard(ValueError):
    """An input shard cannot be read to its end; the message says why, in words for the user."""


def split_name(name: str) -> tuple[str, str] | None:
    """The key and the extension of a member, "a/b" and "seg.png" of "a/b.seg.PNG", as WebDataset
    has it: the key ends at the first dot behind the last slash. None for what belongs to no sample,
    as hidden names."""
    match = _NAME.fullmatch(name.removeprefix("./"))
    return (match[1], match[2].lower()) if match else None


def stored_name(key: str, extension: str) -> str:
    """What the picture of a sample is called in a shard of ours."""
    return f"{key}.{extension.rpartition('.')[2]}"


def read_tar(
    file: IO[bytes], shard: str, captions: CaptionRule, table: Mapping[str, Mapping[str, Any]]
) -> Iterator[Unread]:
    """The samples of a tar, in order: members that follow each other and have one key.

    Their captions are what .txt or .caption hold, or else those of .json, or of the key's row in
    ``table``; the other cells of these become columns. Other members are passed over. ``shard``:
    the name of the tar, which begins that of its samples.

    BrokenShard if it is no tar, or ends too early.
    """
    done: set[str] = set()
    current: str | None = None
    parts: dict[str, bytes | str] = {}
    for key, extension, content in _members(file):
        if key != current:
            if current is not None:
                yield _sample(shard, current, parts, captions, table.get(current, {}), done)
            current, parts = key, {}
        parts[extension] = f"two members are its .{extension}" if extension in parts else content
    if current is not None:
        yield _sample(shard, current, parts, captions, table.get(current, {}), done)


class _Placed:
    """A file whose place is known without asking the system, as tarfile does before each member:
    whoever asks has to wait until the threads that decode pictures give way."""

    name, mode = "", "rb"

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._place = file.tell()

    def tell(self) -> int:
        return self._place

    def seek(self, place: int) -> int:
        self._place = self._file.seek(place)
        return self._place

    def read(self, count: int) -> bytes:
        data = self._file.read(count)
        self._place += len(data)
        return data


def _members(file: IO[bytes]) -> Iterator[tuple[str, str, bytes | str]]:
    """Key, extension, and bytes of each member that a sample may need, or why there are none."""
    length = file.seek(0, 2)
    start: int | None = 0
    while start is not None:
        file.seek(start)
        yield from _members_of_one(file, length)
        start = _another(file)


def _members_of_one(file: IO[bytes], length: int) -> Iterator[tuple[str, str, bytes | str]]:
    """The same of the tar that begins where the file, of ``length`` bytes, stands; it is left to
    stand behind the first block of that tar's end mark."""
    try:
        placed = _Placed(file)
        tar = tarfile.TarFile(fileobj=placed)  # type: ignore[arg-type]
        while (member := _next(tar, placed)) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # which it else keeps
            if member.size < 0 or member.offset_data + member.size > length:
                raise BrokenShard(f"it is cut short, or damaged, at {member.name!r}")
            named = split_name(member.name)
            if named is None or member.isdir() or not _is_wanted(named[1]):
                continue
            yield *named, _content(placed, member)
        file.seek(tar.offset)
        end = file.read(tarfile.BLOCKSIZE)
    except (tarfile.TarError, EOFError, OverflowError, RecursionError) as error:
        raise BrokenShard(f"not a whole tar file ({error})") from error
    if len(end) < tarfile.BLOCKSIZE or any(end):  # where tarfile ends without a word
        raise BrokenShard("it is cut short or damaged: its end mark is missing")


def _another(file: IO[bytes]) -> int | None:
    """Where another tar begins behind the end mark of one, as `cat` joins them; None where only
    zeros follow."""
    while True:
        start = file.tell()
        if not (some := file.read(_ZEROS)):
            return None
        if rest := some.lstrip(b"\0"):
            zeros = len(some) - len(rest)
            return start + zeros - zeros % tarfile.BLOCKSIZE


def _next(tar: tarfile.TarFile, file: _Placed) -> tarfile.TarInfo | None:
    """`tar.next()`, in less time where the member is plain and nothing before it speaks of it."""
    if tar.offset and tar.firstmember is None and not tar.pax_headers:  # type: ignore[attr-defined]
        start = file.seek(tar.offset)
        plain = read_plain(file.read(tarfile.BLOCKSIZE))
        if plain is not None:
            member = tarfile.TarInfo(plain[0])
            member.size = plain[1]
            member.offset_data = start + tarfile.BLOCKSIZE
            tar.offset = member.offset_data + member.size + -member.size % tarfile.BLOCKSIZE
            return member
    return tar.next()


def _is_wanted(extension: str) -> bool:
    return extension in CAPTIONS or extension == JSON or _is_picture(extension)


def _is_picture(extension: str) -> bool:
    return f".{extension.rpartition('.')[2]}" in SUFFIXES


def _content(file: _Placed, member: tarfile.TarInfo) -> bytes | str:
    if not member.isreg() or member.issparse():
        return "a link or a device, which is not followed"
    if member.size > LARGEST:
        return f"too large ({member.size} bytes, at most {LARGEST})"
    file.seek(member.offset_data)
    return file.read(member.size)


def _sample(
    shard: str,
    key: str,
    parts: Mapping[str, bytes | str],
    captions: CaptionRule,
    cells: Mapping[str, Any],
    done: set[str],
) -> Unread:
    """One sample of its parts by extension; ``done``: the keys before."""
    pictures = [extension for extension in parts if _is_picture(extension)]
    # "jpg" before "depth.png", which goes with it
    pictures = [extension for extension in pictures if "." not in extension] or pictures
    file = f"{shard}/{key}.{pictures[0]}" if pictures else f"{shard}/{key}"
    try:
        if len(pictures) != 1:
            raise ValueError(
                f"{len(pictures)} pictures, {' and '.join(pictures)}" if pictures else "no picture"
            )
        if leads_out(key):
            raise ValueError("its name leads out of the tar")
        if key in done:
            raise ValueError("its name is that of an earlier sample")
        done.add(key)
        data = _bytes(parts[pictures[0]])
        record = _record(file, parts, captions, cells)
    except ValueError as error:
        return Unread(record=Record(file=file), reason=str(error))
    return Unread(record=record, source=data)


def leads_out(key: str) -> bool:
    """Whether a path would leave the folder that someone unpacks it in, on any system."""
    parts = re.split(r"[/\\]", key)
    return not parts[0] or ".." in parts or re.match("[A-Za-z]:", key) is not None


def _record(
    file: str, parts: Mapping[str, bytes | str], rule: CaptionRule, cells: Mapping[str, Any]
) -> Record:
    """ValueError, with the reason, for a caption or JSON that cannot be read."""
    told = _told(parts, rule)
    row = {name: value for name, value in cells.items() if value is not None}
    if JSON in parts:
        row |= _json_cells(_bytes(parts[JSON]))
    if not told:
        return _from_cells(file, row)
    # Alternatives to what is told; of another text, nobody knows which of them is right.
    if metadata.ALTERNATIVES in row:
        stated = _from_cells(file, row).captions
        told = tuple(dict.fromkeys(told + stated)) if told[0] in stated else told
    # What else is said of the picture is a column like any other, unless ours has that name.
    others = {name: row.pop(name) for name in metadata.CAPTIONS if name in row}
    for name in (metadata.CAPTIONS[0], metadata.ALTERNATIVES):
        others.pop(name, None)
        row.pop(name, None)
    record = _from_cells(file, row)
    others = {name: text for name, text in others.items() if str(text).strip() != told[0]}
    return replace(record, captions=told, extra={**others, **record.extra})


def _from_cells(file: str, row: Mapping[str, Any]) -> Record:
    try:
        record = from_cells(file, "its metadata", row)
    except InputError as error:
        raise ValueError(str(error)) from error
    if is_utf16("".join(record.captions)):
        raise ValueError(f"its caption is {NO_TEXT}")
    return record


def _told(parts: Mapping[str, bytes | str], rule: CaptionRule) -> tuple[str, ...]:
    """What the first text member holds that is not blank."""
    for extension in CAPTIONS:
        if extension in parts:
            try:
                found = clean("", captions_in(_bytes(parts[extension]), rule))
            except UnreadableCaption as error:
                raise ValueError(f"its .{extension} is {error}") from error
            if found:
                return found
    return ()


def _json_cells(data: bytes) -> dict[str, Any]:
    try:
        cells = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError("its .json is not JSON") from error
    if not isinstance(cells, dict):
        raise ValueError("its .json is not a JSON object")
    return {metadata.to_utf8(name): v for name, v in cells.items() if v is not None}


def _bytes(part: bytes | str) -> bytes:
    if isinstance(part, str):
        raise ValueError(part)
    return part
