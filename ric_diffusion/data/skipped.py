"""The samples that were left out, listed with reasons in JSON files, of which there may be many."""

from __future__ import annotations

import json
from collections.abc import ItemsView, Iterable, Iterator, Mapping, ValuesView
from pathlib import Path

SKIPPED = "skipped.json"
FILE, REASON = "file", "reason"


def write_skipped(path: Path, entries: Iterable[tuple[str, str]]) -> None:
    """Write pairs of file and reason, one to a line of a JSON list."""
    with path.open("w", encoding="ascii") as file:
        separator = "[\n  "
        for name, reason in entries:
            file.write(separator + json.dumps({FILE: name, REASON: reason}))
            separator = ",\n  "
        file.write("[]\n" if separator.startswith("[") else "\n]\n")


def read_skipped(path: Path) -> Iterator[tuple[str, str]]:
    """What `write_skipped` wrote, a line in memory at a time."""
    with path.open(encoding="ascii") as file:
        for line in file:
            if line.startswith("  {"):
                entry = json.loads(line.rstrip().removesuffix(","))
                yield entry[FILE], entry[REASON]


class Skipped(Mapping[str, str]):
    """Reasons by file, as `write_skipped` wrote them into some files: nothing is in memory before
    it is asked for, and asking for all reads the files once."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = list(paths)
        self._count = sum(1 for _ in self._entries())

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        return (file for file, _ in self._entries())

    def __getitem__(self, file: str) -> str:
        for found, reason in self._entries():
            if found == file:
                return reason
        raise KeyError(file)

    def items(self) -> ItemsView[str, str]:
        return _Items(self)

    def values(self) -> ValuesView[str]:
        return _Values(self)

    def _entries(self) -> Iterator[tuple[str, str]]:
        return (entry for path in self._paths for entry in read_skipped(path))


class _Items(ItemsView[str, str]):
    """In one pass: that of `Mapping` looks each file up."""

    _mapping: Skipped

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return self._mapping._entries()


class _Values(ValuesView[str]):
    """In one pass, likewise."""

    _mapping: Skipped

    def __iter__(self) -> Iterator[str]:
        return (reason for _, reason in self._mapping._entries())
