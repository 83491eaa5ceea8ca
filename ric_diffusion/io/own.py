"""Files that only what wrote them may replace: a note says what was written."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import digests, read_file, write_bytes, write_json


class OwnFiles:
    """Files of ``folder`` that are written again and again; ``note``: where their digests are kept,
    below it. A file of another program, or one that somebody changed, is none of them."""

    def __init__(self, folder: Path, note: str) -> None:
        self.folder, self.note = folder, folder / note

    def check(self, names: Iterable[str]) -> None:
        """InputError for one of these that is there, and was not written here."""
        noted = self._noted()
        for name in names:
            path = self.folder / name
            if os.path.lexists(path) and not self._is_own(path, noted.get(name, ())):
                raise InputError(
                    f"{path}: is there already, and is not what this wrote; move it, or choose "
                    "another --out"
                )

    def write(self, files: Mapping[str, bytes]) -> None:
        """Write these by name, in their order, each in one move. InputError, and nothing written,
        where ``check`` raises one."""
        self.check(files)
        noted, new = self._noted(), {}
        for name, data in files.items():
            # An interruption leaves some as they were and some as they will be: both are own.
            old = [one for one in noted.get(name, ()) if [one] == self._digest(self.folder / name)]
            new[name] = sorted({*old, hashlib.sha256(data).hexdigest()})
        write_json(self.note, {"sha256": noted | new})
        for name, data in files.items():
            write_bytes(self.folder / name, data)

    def remove(self, names: Iterable[str]) -> None:
        """Remove those of these that are there. InputError, and nothing removed, where ``check``
        raises one."""
        names = list(names)
        self.check(names)
        for name in names:
            (self.folder / name).unlink(missing_ok=True)

    def _is_own(self, path: Path, noted: Iterable[str]) -> bool:
        return any(digest in noted for digest in self._digest(path))

    def _digest(self, path: Path) -> list[str]:
        """Of what the file holds, in a list; an empty one for what is no file."""
        return digests([path]) if path.is_file() else []

    def _noted(self) -> dict[str, list[str]]:
        """Digests by name; none where the note is missing, or is none."""
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            stored = json.loads(read_file(self.note))["sha256"]
            return {str(name): [str(one) for one in found] for name, found in stored.items()}
        return {}
