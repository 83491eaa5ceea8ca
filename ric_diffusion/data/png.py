"""Chunks of PNG files beside the picture itself: what to read of them, and how to do without.

PNG (Portable Network Graphics) Specification, third edition, W3C 2025: section 5 (chunks), 11.3.2
and 11.3.3 (profile and text).
"""

from __future__ import annotations

import io
import struct
import zlib
from bisect import bisect
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, BinaryIO

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_TEXT = 64 * 2**20  # bytes of all texts unpacked: a graph of nodes has some millions
_MOST_CHUNKS = 2**20  # of a file of the largest size that is decoded there are a tenth
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_BESIDE = (*_TEXTS, b"iCCP")


def is_too_long(error: ValueError) -> bool:
    """Whether Pillow refused a PNG for the length of its texts or its colour profile."""
    return "MAX_TEXT_" in str(error)


def without_text(file: BinaryIO) -> BinaryIO:
    """The same PNG without texts and colour profile, which are not unpacked for that, and what
    comes behind its end; nothing is copied."""
    kept = [(0, len(SIGNATURE))]
    kept += [(start, end) for name, start, end in _chunks(file) if name not in _BESIDE]
    return io.BufferedReader(_Parts(file, kept))


def texts(file: BinaryIO) -> dict[str, str]:
    """The texts of a PNG by their keyword, the first of each; none of what is no PNG.

    One that is damaged is left out, and what would make all of them longer than MAX_TEXT.
    """
    found: dict[str, str] = {}
    left = MAX_TEXT
    for name, start, end in _chunks(file):
        if name in _TEXTS and end - start <= left:
            keyword, _, rest = _between(file, start + 8, end - 4).partition(b"\0")
            text = _text(name, rest, left)
            if text is not None and keyword.decode("latin-1") not in found:
                found[keyword.decode("latin-1")] = text
                left -= len(text)
    return found


def text(file: BinaryIO, keyword: str, most: int) -> str | None:
    """The first text of this keyword; None if there is none, or if it is damaged or longer than
    ``most`` bytes. Others are not unpacked."""
    named = keyword.encode("latin-1") + b"\0"
    for name, start, end in _chunks(file):
        if name in _TEXTS and end - start <= most:
            data = _between(file, start + 8, end - 4)
            if data.startswith(named):
                return _text(name, data[len(named) :], most)
    return None


def _between(file: BinaryIO, start: int, end: int) -> bytes:
    file.seek(start)
    return file.read(max(0, end - start))


def _text(name: bytes, rest: bytes, most: int) -> str | None:
    """What stands behind a chunk's keyword, unpacked, None where that has more than ``most``
    bytes."""
    packed, encoding = name == b"zTXt", "latin-1"
    if packed:
        rest = rest[1:]  # the method, of which there is one
    if name == b"iTXt":
        packed, encoding = rest[:1] == b"\1", "utf-8"
        rest = rest[2:].partition(b"\0")[2].partition(b"\0")[2]  # language, translated keyword
    if packed:
        unpacker = zlib.decompressobj()
        try:
            rest = unpacker.decompress(rest, most)
        except zlib.error:
            return None
        if unpacker.unconsumed_tail:
            return None
    return rest.decode(encoding, "replace")


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """The name of each chunk, and where it starts and ends, length and checksum included, up to
    the last one. Ends where the file is damaged."""
    size, start = file.seek(0, io.SEEK_END), len(SIGNATURE)
    if _between(file, 0, start) != SIGNATURE:
        return
    for _ in range(_MOST_CHUNKS):
        if start + 8 > size:
            return
        length, name = struct.unpack(">I4s", _between(file, start, start + 8))
        end = start + length + 12
        yield name, start, min(end, size)
        if name == b"IEND":
            return
        start = end


class _Parts(io.RawIOBase):
    """Parts of a file, one behind the other, as a file."""

    def __init__(self, file: BinaryIO, parts: list[tuple[int, int]]) -> None:
        self._file, self._parts = file, parts
        self._begins = [0, *accumulate(end - start for start, end in parts)]
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + (0, self._at, self._begins[-1])[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        if self._at >= self._begins[-1]:
            return 0
        number = bisect(self._begins, self._at) - 1
        start, end = self._parts[number]
        position = start + self._at - self._begins[number]
        data = _between(self._file, position, min(end, position + len(buffer)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
