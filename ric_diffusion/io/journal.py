"""An append-only journal of JSON lines: a file for each process, merged when it is read.

A line is a JSON list of a checksum and the entry, ``["0123456789abcdef", {…}]``. One that a crash
cut short, or that was damaged since, is passed over, so that what it told of is done again. Every
process writes to a file of its own, so nothing is locked, any number of processes work on one
folder, and none has to mend what another left.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from ric_diffusion.io.counting import counted
from ric_diffusion.io.files import read_file, sync

_LINE = re.compile(rb'\["([0-9a-f]{16})", (.*)\]\n', re.DOTALL)
_log = logging.getLogger(__name__)


class Journal:
    """The entries of all processes under one name in a folder: ``<name>-<pid>-<hex>.jsonl``.

    Entries of different processes come in no order, so each has to say what it is about. Where two
    are about the same thing, a reader may use either.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self._file: IO[bytes] | None = None
        self._damaged: set[Path] = set()  # files of which that was said

    def append(self, entry: Any) -> None:
        """Add one entry of plain JSON data without NaN; when this returns, it is on the disk.

        The first one makes the file, and the folder where there is none.
        """
        self.extend([entry])

    def extend(self, entries: Iterable[Any]) -> None:
        """Add several; when this returns, all of them are on the disk."""
        data = memoryview(b"".join(map(_line, entries)))
        if self._file is None:
            self._file = self._create()
        try:
            while data:
                data = data[self._file.write(data) :]
            os.fsync(self._file.fileno())
        except BaseException:
            # A line without its end may stand there now. The next one begins a new file.
            self.close()
            raise

    def entries(self) -> list[Any]:
        """All whole entries of all processes, those of one file in the order of writing. A warning
        names a file that has damaged ones."""
        return [entry for file in self._files() for entry in self._whole(file)]

    def remove(self) -> None:
        """Remove the files of all processes."""
        self.close()
        for file in self._files():
            file.unlink(missing_ok=True)  # another process may be faster

    def close(self) -> None:
        """Let go of the file; a later ``append`` begins a new one."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _whole(self, path: Path) -> Iterator[Any]:
        damaged = 0
        for line in _complete_lines(path):
            found = _LINE.fullmatch(line)
            if found is not None and _checksum(found[2]) == found[1]:
                yield json.loads(found[2])
            else:
                damaged += 1
        if damaged and path not in self._damaged:
            self._damaged.add(path)
            lines = counted(damaged, "damaged lines")
            _log.warning("%s: %s; what was told there is done again", path, lines)

    def _files(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        own = re.compile(rf"{re.escape(self.name)}-\d+-[0-9a-f]{{8}}\.jsonl")
        return sorted(path for path in self.folder.iterdir() if own.fullmatch(path.name))

    def _create(self) -> IO[bytes]:
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"{self.name}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
        file = (self.folder / name).open("xb", buffering=0)  # nothing held back for a later write
        sync(self.folder)
        return file


def _line(entry: Any) -> bytes:
    text = json.dumps(entry, ensure_ascii=False, allow_nan=False).encode("utf-8")
    return b'["%b", %b]\n' % (_checksum(text), text)


def _checksum(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=8).hexdigest().encode("ascii")


def read_lines(path: Path) -> list[Any]:
    """The whole lines of a file of JSON lines; [] if there is no file. Lines that are not JSON, as
    a crash of the machine can leave them, are skipped."""
    found = []
    for line in _complete_lines(path):
        try:
            found.append(json.loads(line))
        except (ValueError, RecursionError):
            continue
    return found


def _complete_lines(path: Path) -> list[bytes]:
    """The lines of a file that have an end; none if there is no file."""
    try:
        lines = read_file(path).split(b"\n")
    except FileNotFoundError:
        return []
    return [line + b"\n" for line in lines[:-1]]
