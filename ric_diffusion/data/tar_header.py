"""Headers of a tar's plain members, made and read without tarfile, which takes as long for one as a
decoder does for a small picture. What is not plain is left to tarfile."""

from __future__ import annotations

import tarfile
from functools import cache

NAME = 100  # bytes that a header has for the name
_SIZE = slice(124, 136)
_SUM = slice(148, 156)
_LARGEST = 8**11 - 1  # bytes of a member whose size stands there in octal digits
_REGULAR = ord("0")
_TYPE, _PREFIX = 156, 345


def plain_header(name: str, size: int) -> bytes | None:
    """The header that tarfile gives a regular file of nobody, and of 1970; None for a name or a
    size that takes more than that."""
    if not name.isascii() or len(name) > NAME or size > _LARGEST:
        return None
    header = bytearray(_nameless())
    header[: len(name)] = name.encode()
    header[_SIZE] = b"%011o\0" % size
    header[_SUM] = b"%06o\0 " % _checksum(header)
    return bytes(header)


def read_plain(header: bytes) -> tuple[str, int] | None:
    """Name and size of the regular file that this is the header of; None for any other member, for
    names that stand elsewhere, and for what is damaged."""
    if len(header) < tarfile.BLOCKSIZE or header[_TYPE] != _REGULAR or header[_PREFIX]:
        return None
    name = header[:NAME].partition(b"\0")[0]
    size, checksum = header[_SIZE].rstrip(b" \0"), header[_SUM].rstrip(b" \0")
    if not (name.isascii() and size.isdigit() and checksum.isdigit()):
        return None
    try:
        if int(checksum, 8) != _checksum(header):
            return None
        return name.decode(), int(size, 8)
    except ValueError:  # an 8 or a 9
        return None


def _checksum(header: bytes | bytearray) -> int:
    """Of a header, whatever checksum stands in it: it counts as spaces."""
    return sum(header) - sum(header[_SUM]) + 8 * ord(" ")


@cache
def _nameless() -> bytes:
    return tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT)
