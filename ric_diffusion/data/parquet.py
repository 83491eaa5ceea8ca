"""Rows to and from parquet, the one format here that needs a package of the extra ``train``."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

Kind = Literal["text", "texts", "number", "integer"]

ROWS_AT_ONCE = 1024
BUFFER = 2**20  # bytes
NOTE = b"ric"  # the key of a note in a file's schema, and of what a field says of its column
JSON_TEXT = {NOTE: b"json"}  # of a column whose values are stored as JSON text
TYPES: Mapping[Kind, pa.DataType] = {
    "text": pa.string(),
    "texts": pa.list_(pa.string()),
    "number": pa.float64(),
    "integer": pa.int64(),
}
# What Arrow and Python say of values that only one of them has; time zones are looked up.
_UNKNOWN = (pa.ArrowException, ValueError, OverflowError, LookupError)


def columns_of(path: Path) -> list[str]:
    """The names of a parquet file's columns."""
    names: list[str] = pq.read_schema(path).names
    return names


def from_parquet(
    source: Path | IO[bytes], columns: Sequence[str] | None = None, at_once: int = ROWS_AT_ONCE
) -> Iterator[dict[str, Any]]:
    """The rows of a parquet file, a few in memory at a time. ValueError if it is none."""
    try:
        # Arrow's threads: see _table. A buffer has it read pages, not whole row groups.
        file = pq.ParquetFile(source, pre_buffer=False, buffer_size=BUFFER)
        for batch in file.iter_batches(at_once, use_threads=False, columns=columns):
            yield from _rows(batch)
    except pa.ArrowException as error:
        raise ValueError(error) from error
    finally:
        pa.default_memory_pool().release_unused()  # which it else keeps, half a kilobyte a row


def _rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """As Python has them; a column with values that it has not, as dates after the year 9999, as
    the numbers that they are stored as."""
    try:
        rows: list[dict[str, Any]] = batch.to_pylist()
    except _UNKNOWN:
        columns = [_plain(column) for column in batch.columns]
        names = batch.schema.names
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    return rows


def _plain(column: pa.Array) -> list[Any]:
    for kind in (None, pa.int64(), pa.int32(), pa.string()):
        try:
            values: list[Any] = (column if kind is None else column.cast(kind)).to_pylist()
        except _UNKNOWN:
            continue
        return values
    return [None] * len(column)


def to_parquet(rows: Sequence[dict[str, Any]], kinds: Mapping[str, Kind], note: str = "") -> bytes:
    """Rows -> the bytes of a parquet file, the same for the same rows.

    Columns stand in the order in which `rows` first name them; those in `kinds` come first, exist
    always and hold that. A column whose values no single Arrow type can hold unchanged is stored as
    JSON text. ``note``: what `note_of` reads.
    """
    names = dict.fromkeys([*kinds, *(name for row in rows for name in row)])
    fields, columns = [], []
    for name in names:
        kind = TYPES[kinds[name]] if name in kinds else None
        field, column = _column(name, [row.get(name) for row in rows], kind)
        fields.append(field)
        columns.append(column)
    schema = pa.schema(fields, metadata={NOTE: note.encode()} if note else None)
    return _written(pa.Table.from_arrays(columns, schema=schema))


def note_of(path: Path) -> str | None:
    """The note in a file of ours; None if there is no such file, or it is no parquet."""
    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowException):
        return None
    note: str = (schema.metadata or {}).get(NOTE, b"").decode()
    return note


def _table(source: Path | pa.NativeFile) -> pa.Table:
    # Arrow's threads can abort or hang the process as it ends (apache/arrow#33975, #50482).
    return pq.ParquetFile(source, pre_buffer=False).read(use_threads=False)


def _written(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())


def _column(name: str, values: list[Any], kind: pa.DataType | None) -> tuple[pa.Field, pa.Array]:
    if kind is not None:
        return pa.field(name, kind), pa.array(values, kind)
    numbers = [value for value in values if value is not None]
    if all(type(value) in (int, float) for value in numbers) and float in map(type, numbers):
        kind = pa.float64()
    try:
        column = pa.array(values, kind)
        back = _table(pa.BufferReader(_written(pa.table({"": column})))).column(0)
        if _same(back.to_pylist(), values):
            return pa.field(name, column.type), column
    except (pa.ArrowException, ValueError, TypeError, OverflowError, OSError):  # it is too deep
        pass
    return pa.field(name, pa.string(), metadata=JSON_TEXT), pa.array(as_json(values), pa.string())


def as_json(values: Iterable[Any]) -> list[str | None]:
    """Each value as JSON text; a null stays one."""
    return [None if v is None else json.dumps(v, default=str, sort_keys=True) for v in values]


def _same(back: Iterable[Any], given: Iterable[Any]) -> bool:
    """Equal, with NaN equal to itself."""
    return all(a == b or repr(a) == repr(b) for a, b in zip(back, given, strict=True))
