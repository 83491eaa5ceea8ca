"""The metadata file of a Hugging Face imagefolder: its rows.

`metadata.parquet`, `metadata.jsonl` and `metadata.csv`. What a row means is the business of
`records.py`.
"""

import csv
import json
import re
from collections.abc import Collection, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from ric_diffusion.io.counting import counted
from ric_diffusion.io.errors import InputError, reason_of
from ric_diffusion.io.extras import require
from ric_diffusion.io.files import check_regular

NAMES = ("metadata.parquet", "metadata.jsonl", "metadata.csv")
FILE = "file_name"
CAPTIONS = ("text", "caption", "prompt")  # the first one present holds the canonical caption
ALTERNATIVES = "captions"

MOST_CELL = 2**26  # characters of a CSV's cell: graphs of nodes are longer than csv expects
_ESCAPED = re.compile("[\ud800-\udfff]")  # bytes of a file that are no UTF-8


class Row(NamedTuple):
    """Where it stands ("data/metadata.csv, line 3"), its cells, and the ``problem``, in words for
    the user, for which they cannot be used."""

    where: str
    cells: dict[str, Any]
    problem: str = ""


def read_rows(path: Path) -> Iterator[Row]:
    """All rows of one metadata file, each with the place to name in an error about it; of parquet
    only a few are in memory at a time.

    A null cell counts as absent. Raises InputError if the file is malformed, empty, or lacks the
    columns for file names or captions.
    """
    rows = _read(path)
    first = next(rows, None)
    if first is None:
        raise InputError(f"{path}: holds no rows; give each picture one, with {FILE} and text")
    if path.suffix == ".parquet":
        _check_columns(path, _parquet_columns(path))
        yield first
        yield from rows
    else:
        every = [first, *rows]
        _check_columns(path, dict.fromkeys(name for row in every for name in row.cells))
        yield from every


def _read(path: Path) -> Iterator[Row]:
    reader = {".parquet": _parquet_rows, ".jsonl": _jsonl_rows, ".csv": _csv_rows}[path.suffix]
    try:
        check_regular(path)
        for row in reader(path):
            yield row._replace(cells=_without_nulls(row.cells))
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror or reason_of(error)})"
        ) from error


def _check_columns(path: Path, columns: Collection[str]) -> None:
    found = f"; its columns are {', '.join(map(repr, columns))}"
    if FILE not in columns:
        raise InputError(f"{path}: no column {FILE!r} with each picture's path{found}")
    if not {*columns} & {*CAPTIONS, ALTERNATIVES}:
        raise InputError(f"{path}: no captions; put them in a column 'text'{found}")


def _without_nulls(cells: dict[str, Any]) -> dict[str, Any]:
    return {_column(name): value for name, value in cells.items() if value is not None}


@lru_cache(maxsize=256)
def _column(name: str) -> str:
    """A column's name as UTF-8 can hold it: the same object in every row."""
    return to_utf8(name)


def to_utf8(text: str) -> str:
    """The text with a question mark for what UTF-8 cannot hold: the halves JSON may escape."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _parquet_rows(path: Path) -> Iterator[Row]:
    require("train", str(path))
    from ric_diffusion.data.parquet import from_parquet  # here: the other formats need no package

    try:
        for number, cells in enumerate(from_parquet(path), 1):
            yield Row(f"{path}, row {number}", cells)
    except ValueError as error:
        raise InputError(f"{path}: not a readable parquet file ({reason_of(error)})") from error


def _parquet_columns(path: Path) -> list[str]:
    from ric_diffusion.data.parquet import columns_of

    return columns_of(path)


def _jsonl_rows(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="\n", errors="surrogateescape") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                cells = json.loads(line)
            except (ValueError, RecursionError) as error:
                _check_utf8(where, line)
                raise InputError(f"{where}: not JSON ({reason_of(error)})") from error
            if not isinstance(cells, dict):
                raise InputError(f'{where}: not a JSON object like {{"{FILE}": …, "text": …}}')
            yield Row(where, cells, _problem(where, line))


def _csv_rows(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="", errors="surrogateescape") as file:
        csv.field_size_limit(MOST_CELL)
        reader = csv.reader(file, strict=True)
        header: list[str] | None = None
        try:
            for values in reader:
                where = f"{path}, line {reader.line_num}"
                if not values:
                    continue
                if header is None:
                    header = values
                    _check_utf8(where, "".join(values))
                    if len(set(header)) < len(header):
                        raise InputError(f"{where}: two columns have the same name; rename one")
                    continue
                if len(values) != len(header):
                    wrong = (
                        f"{counted(len(values), 'cells')} under {counted(len(header), 'columns')}"
                    )
                    raise InputError(f"{where}: {wrong}; quote cells that hold commas")
                cells = dict(zip(header, values, strict=True))
                yield Row(where, cells, _problem(where, "".join(values)))
        except csv.Error as error:
            raise InputError(f"{path}, line {reader.line_num}: not CSV ({error})") from error


def _problem(where: str, text: str) -> str:
    """Of a row with this text."""
    return f"{where}: not UTF-8 text; save it as UTF-8" if _ESCAPED.search(text) else ""


def _check_utf8(where: str, text: str) -> None:
    if problem := _problem(where, text):
        raise InputError(problem)
