"""Many parquet files into one, streamed: their columns need not agree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ric_diffusion.data.parquet import JSON_TEXT, as_json

ROWS = 16_384  # of a row group of the one
_EXACT = 2**53  # up to which a float holds every whole number


def count_rows(path: Path) -> int:
    count: int = pq.read_metadata(path).num_rows
    return count


def read_columns(path: Path, names: Sequence[str]) -> dict[str, Any]:
    """Columns by name: an array of one of floats, a list of any other."""
    # Without Arrow's threads, as in `parquet`.
    table = pq.ParquetFile(path, pre_buffer=False).read(columns=list(names), use_threads=False)
    return {
        name: column.to_numpy() if pa.types.is_floating(column.type) else column.to_pylist()
        for name, column in zip(table.column_names, table.columns, strict=True)
    }


class JoinedSchema:
    """The columns of files that are seen one after the other, in the order in which they come up.

    A column has the one type that holds its values in all files unchanged; where there is none, it
    is JSON text, as `to_parquet` makes it of one file.
    """

    def __init__(self) -> None:
        self._fields: dict[str, pa.Field] = {}
        self._exact: dict[str, bool] = {}  # of columns of whole numbers: as floats, too

    def add(self, path: Path) -> None:
        file = pq.ParquetFile(path)
        for field in file.schema_arrow:
            if pa.types.is_integer(field.type):
                exact = _largest(file.metadata, field.name) <= _EXACT
                self._exact[field.name] = exact and self._exact.get(field.name, True)
            known = self._fields.get(field.name)
            self._fields[field.name] = field if known is None else self._joined(known, field)

    @property
    def schema(self) -> pa.Schema:
        return pa.schema(list(self._fields.values()))

    def _joined(self, one: pa.Field, other: pa.Field) -> pa.Field:
        if one.equals(other, check_metadata=True):
            return one
        text = pa.field(one.name, pa.string(), metadata=JSON_TEXT)
        if _is_json(one) or _is_json(other):
            return text
        try:
            (joined,) = pa.unify_schemas(
                [pa.schema([one]), pa.schema([other])], promote_options="permissive"
            )
        except pa.ArrowException:
            return text
        rounded = pa.types.is_floating(joined.type) and not self._exact.get(one.name, True)
        return text if rounded or _floats_of_whole(joined.type, one.type, other.type) else joined


def write_joined(
    path: Path, schema: pa.Schema, parts: Iterable[tuple[Path, NDArray[np.bool_]]]
) -> None:
    """Write the rows of files to one parquet file, with these columns: of each file those that its
    mask, (rows,), has True for."""
    with pq.ParquetWriter(path, schema) as writer:
        waiting: list[pa.Table] = []
        count = 0
        for table in _tables(schema, parts):
            waiting.append(table)
            count += len(table)
            if count >= ROWS:
                writer.write_table(pa.concat_tables(waiting), row_group_size=ROWS)
                waiting, count = [], 0
        if waiting:
            writer.write_table(pa.concat_tables(waiting), row_group_size=ROWS)
    pa.default_memory_pool().release_unused()


def _tables(
    schema: pa.Schema, parts: Iterable[tuple[Path, NDArray[np.bool_]]]
) -> Iterator[pa.Table]:
    for path, mask in parts:
        file, start = pq.ParquetFile(path, pre_buffer=False), 0
        for i in range(file.num_row_groups):
            table = file.read_row_group(i, use_threads=False)
            kept = mask[start : start + len(table)]
            start += len(table)
            if kept.any():
                yield _conformed(table.filter(pa.array(kept)), schema)


def _conformed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = []
    for field in schema:
        if field.name not in table.column_names:
            columns.append(pa.nulls(len(table), field.type))
            continue
        column = table[field.name]
        if _is_json(field) and not _is_json(table.schema.field(field.name)):
            column = pa.array(as_json(column.to_pylist()), pa.string())
        columns.append(column.cast(field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def _floats_of_whole(joined: pa.DataType, *given: pa.DataType) -> bool:
    """Whether there are floats in lists or structs that are whole numbers in one of those given:
    nobody has looked whether they are too large for it."""
    kinds = [_leaves(kind) for kind in given]
    return any(
        place and pa.types.is_floating(leaf) and pa.types.is_integer(kind.get(place, leaf))
        for place, leaf in _leaves(joined).items()
        for kind in kinds
    )


def _leaves(kind: pa.DataType, place: tuple[str, ...] = ()) -> dict[tuple[str, ...], pa.DataType]:
    """The types without others in them, by where they are in a type; at the top that is ()."""
    if not kind.num_fields:
        return {place: kind}
    inner = [kind.field(i) for i in range(kind.num_fields)]
    return {k: v for one in inner for k, v in _leaves(one.type, (*place, one.name)).items()}


def _is_json(field: pa.Field) -> bool:
    return field.metadata is not None and JSON_TEXT.items() <= field.metadata.items()


def _largest(metadata: pq.FileMetaData, name: str) -> int:
    """The largest whole number of a column, whatever its sign."""
    largest = 0
    for i in range(metadata.num_row_groups):
        group = metadata.row_group(i)
        for j in range(group.num_columns):
            column = group.column(j)
            known = column.statistics  # None of a column without a value
            if column.path_in_schema == name and known is not None and known.has_min_max:
                largest = max(largest, abs(known.min), abs(known.max))
    return largest
