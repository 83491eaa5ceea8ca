"""The journal of a labelling: scores as they come, so that a killed run loses one batch at most."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Self

from ric_diffusion.errors import InputError

try:
    import fcntl
except ImportError:  # Windows: two runs at once are not noticed there
    fcntl = None  # type: ignore[assignment]

HEADER = b'{"format": "ric scores", "version": 1}\n'


class Journal:
    """Scores by scorer and picture, in a file that only grows.

    After the header each line is one batch: {"scorer": …, "fingerprint": …, "scores": {key: score}}
    with null for a score that is not finite. A batch stands in it whole or not at all: lines that
    do not parse, such as one cut short by a crash, are passed over.
    """

    def __init__(self, file: IO[bytes]) -> None:
        """Read a journal open for reading and appending, and mend its end."""
        self._file = file
        self._scores: dict[tuple[str, str], dict[str, float]] = {}
        file.seek(0)
        end = 0
        for line in file:
            if line.endswith(b"\n"):
                end += len(line)
                self._take(line)
        if file.tell() > end:
            file.truncate(end)
        if end == 0:
            self._write(HEADER)

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[Self]:
        """The journal at `path`, new if there is none, held for this process alone."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            _lock(file, path)
            yield cls(file)

    def get(self, scorer: str, fingerprint: str) -> Mapping[str, float]:
        """The scores of one scorer by key; NaN where it gave no finite one."""
        return self._scores.get((scorer, fingerprint), {})

    def add(self, scorer: str, fingerprint: str, scores: Mapping[str, float]) -> None:
        """Append one batch; when this returns, it is on the disk."""
        finite = {key: s if math.isfinite(s) else None for key, s in scores.items()}
        entry = {"scorer": scorer, "fingerprint": fingerprint, "scores": finite}
        line = json.dumps(entry).encode() + b"\n"
        self._write(line)
        self._take(line)

    def _write(self, line: bytes) -> None:
        self._file.write(line)
        self._file.flush()
        os.fsync(self._file.fileno())

    def _take(self, line: bytes) -> None:
        with suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
            entry = json.loads(line)
            key = (str(entry["scorer"]), str(entry["fingerprint"]))
            scores = {
                name: math.nan if score is None else float(score)
                for name, score in entry["scores"].items()
            }
            self._scores.setdefault(key, {}).update(scores)


def is_journal(path: Path) -> bool:
    """True if the file `path` begins as ours do, or was cut short before it could."""
    try:
        with path.open("rb") as file:
            return HEADER.startswith(file.read(len(HEADER)))
    except OSError:
        return False


def _lock(file: IO[bytes], path: Path) -> None:
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(f"{path.parent}: another run is labelling into it; wait for it") from None
    except OSError:  # a file system without locks
        pass
