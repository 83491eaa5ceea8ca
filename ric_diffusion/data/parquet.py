"""Rows to and from parquet, the one format here that needs a package of the extra ``train``."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

Kind = Literal["text", "texts", "number"]

ROWS_AT_ONCE = 1024
TYPES: Mapping[Kind, pa.DataType] = {
    "text": pa.string(),
    "texts": pa.list_(pa.string()),
    "number": pa.float64(),
}


def columns_of(path: Path) -> list[str]:
    """The names of a parquet file's columns."""
    names: list[str] = pq.read_schema(path).names
    return names


def from_parquet(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a parquet file, a few in memory at a time. ValueError if it is none."""
    try:
        # Arrow's threads: see _table.
        for batch in pq.ParquetFile(path, pre_buffer=False).iter_batches(
            ROWS_AT_ONCE, use_threads=False
        ):
            yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise ValueError(error) from error
    finally:
        pa.default_memory_pool().release_unused()  # which it else keeps, half a kilobyte a row


def to_parquet(rows: Sequence[dict[str, Any]], kinds: Mapping[str, Kind]) -> bytes:
    """Rows -> the bytes of a parquet file, the same for the same rows.

    Columns stand in the order in which `rows` first name them; those in `kinds` come first, exist
    always and hold that. A column whose values no single Arrow type can hold unchanged is stored as
    JSON text.
    """
    names = dict.fromkeys([*kinds, *(name for row in rows for name in row)])
    columns = []
    for name in names:
        kind = TYPES[kinds[name]] if name in kinds else None
        columns.append(_column([row.get(name) for row in rows], kind))
    return _written(pa.Table.from_arrays(columns, names=list(names)))


def _table(source: Path | pa.NativeFile) -> pa.Table:
    # Arrow's threads can abort or hang the process as it ends (apache/arrow#33975, #50482).
    return pq.ParquetFile(source, pre_buffer=False).read(use_threads=False)


def _written(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())


def _column(values: list[Any], kind: pa.DataType | None) -> pa.Array:
    if kind is not None:
        return pa.array(values, kind)
    numbers = [value for value in values if value is not None]
    if all(type(value) in (int, float) for value in numbers) and float in map(type, numbers):
        kind = pa.float64()
    try:
        column = pa.array(values, kind)
        back = _table(pa.BufferReader(_written(pa.table({"": column})))).column(0)
        if _same(back.to_pylist(), values):
            return column
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        pass
    return pa.array(
        [None if v is None else json.dumps(v, default=str, sort_keys=True) for v in values],
        pa.string(),
    )


def _same(back: Iterable[Any], given: Iterable[Any]) -> bool:
    """Equal, with NaN equal to itself."""
    return all(a == b or repr(a) == repr(b) for a, b in zip(back, given, strict=True))
