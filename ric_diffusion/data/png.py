"""Chunks of PNG files beside the picture itself: what to read of them, and how to do without.

PNG (Portable Network Graphics) Specification, third edition, W3C 2025: section 5 (chunks), 11.3.2
and 11.3.3 (profile and text).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MAX_TEXT = 64 * 2**20  # bytes of one text unpacked: a graph of nodes has some millions
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_BESIDE = (*_TEXTS, b"iCCP")


def is_too_long(error: ValueError) -> bool:
    """Whether Pillow refused a PNG for the length of its texts or its colour profile."""
    return "MAX_TEXT_" in str(error)


def without_text(data: bytes) -> bytes:
    """The same PNG without texts and colour profile, which are not unpacked for that."""
    kept = [SIGNATURE]
    kept += [data[start:end] for name, start, end in _chunks(data) if name not in _BESIDE]
    return b"".join(kept)


def texts(data: bytes) -> dict[str, str]:
    """The texts of a PNG by their keyword, the first of each; none of what is no PNG.

    One that is damaged, or longer than MAX_TEXT once unpacked, is left out.
    """
    found: dict[str, str] = {}
    for name, start, end in _chunks(data):
        if name in _TEXTS:
            keyword, _, rest = data[start + 8 : end - 4].partition(b"\0")
            text = _text(name, rest, MAX_TEXT)
            if text is not None:
                found.setdefault(keyword.decode("latin-1"), text)
    return found


def text(data: bytes, keyword: str, most: int) -> str | None:
    """The first text of this keyword; None if there is none, or if it is damaged or longer than
    ``most`` bytes. Others are not unpacked."""
    start = keyword.encode("latin-1") + b"\0"
    for name, begin, end in _chunks(data):
        if name in _TEXTS and data.startswith(start, begin + 8) and end - begin <= most:
            return _text(name, data[begin + 8 + len(start) : end - 4], most)
    return None


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


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """The name of each chunk, and where it starts and ends, length and checksum included. Ends
    where the file is damaged."""
    start = len(SIGNATURE)
    if not data.startswith(SIGNATURE):
        return
    while start + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, start)
        end = start + length + 12
        yield name, start, min(end, len(data))
        start = end
