"""Reading parquet: the hub's, with pictures in it, and tables about the samples of a tar."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ric_diffusion.data import metadata
from ric_diffusion.data.images import FORMATS, HEADER, PLUGIN_OF, UNSIGNED, signature
from ric_diffusion.data.parquet import from_parquet
from ric_diffusion.data.prompts import NO_TEXT, is_utf16
from ric_diffusion.data.records import Record, from_cells
from ric_diffusion.data.samples import Unread
from ric_diffusion.data.tar_reader import BrokenShard, split_name
from ric_diffusion.io.errors import InputError

IMAGE = "image"  # the column with pictures, where a file has several
KEY = "key"  # the column of a table that names a sample of the tar
ROWS_AT_ONCE = 64  # with a picture each
KEY_DIGITS = 8  # of the number of a row, which is its key
_SUFFIXES = {"JPEG": "jpg", "JPEG2000": "jp2"}  # where the format's name is none


def read_parquet(file: IO[bytes], shard: str) -> Iterator[Unread]:
    """The samples of a parquet file as the hub has them, in order: pictures in a column of structs
    {bytes, path}, with what is in the other columns, except more bytes, as metadata.

    A sample is called by ``shard`` and the number of its row. BrokenShard if the file cannot be
    read, or has no pictures in it.
    """
    with _reading():
        schema = pq.ParquetFile(file).schema_arrow
    image = _image_column(schema)
    columns = [image, *(field.name for field in schema if not _has_bytes(field.type))]
    file.seek(0)
    with _reading():
        for number, cells in enumerate(from_parquet(file, columns, ROWS_AT_ONCE)):
            yield _sample(f"{shard}/{number:0{KEY_DIGITS}}", cells.pop(image) or {}, cells)


def read_table(file: IO[bytes], shard: str) -> dict[str, dict[str, Any]]:
    """The rows of the table beside the tar ``shard`` by the key of their samples: img2dataset's,
    or one of ours, whose rows name the file. BrokenShard if it cannot be read or names none."""
    with _reading():
        columns = {field.name: field.type for field in pq.ParquetFile(file).schema_arrow}
        if not {KEY, metadata.FILE} & columns.keys():
            raise BrokenShard(f"no column {KEY!r} that says which sample a row is about")
        file.seek(0)
        plain = [name for name, kind in columns.items() if not _has_bytes(kind)]
        rows = from_parquet(file, plain)
        return {key: cells for cells in rows if (key := _key(cells, shard)) is not None}


def _key(cells: Mapping[str, Any], shard: str) -> str | None:
    if cells.get(KEY) is not None:
        return str(cells[KEY])
    file = str(cells.get(metadata.FILE))
    named = split_name(file.partition(f"{shard}/")[2] or file)
    return named[0] if named else None


def _image_column(schema: pa.Schema) -> str:
    found = [field.name for field in schema if _is_image(field.type)]
    if IMAGE in found:
        return IMAGE
    if len(found) != 1:
        what = f"several with pictures, {', '.join(found)}, and" if found else "no pictures, and"
        raise BrokenShard(
            f"{what} no column {IMAGE!r} of structs with bytes; its columns are "
            f"{', '.join(schema.names)}"
        )
    return found[0]


def _is_image(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and any(
        field.name == "bytes" and _is_bytes(field.type) for field in kind
    )


def _has_bytes(kind: pa.DataType) -> bool:
    """Whether there are any in it, at any depth: other pictures, sound."""
    inner = [kind.field(i).type for i in range(kind.num_fields)]
    return _is_bytes(kind) or any(_has_bytes(one) for one in inner)


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _sample(name: str, image: Mapping[str, Any], cells: Mapping[str, Any]) -> Unread:
    data = image.get("bytes")
    if not data:
        where = f", only the path {image['path']!r}" if image.get("path") else ""
        return Unread(record=Record(file=name), reason=f"no bytes of a picture{where}")
    file = f"{name}.{_extension(data, str(image.get('path') or ''))}"
    given = {metadata.to_utf8(key): value for key, value in cells.items() if value is not None}
    try:
        record = from_cells(file, "its metadata", given)
    except InputError as error:
        return Unread(record=Record(file=file), reason=str(error))
    if is_utf16("".join(record.captions)):
        return Unread(record=Record(file=file), reason=f"its caption is {NO_TEXT}")
    return Unread(record=record, source=data)


def _extension(data: bytes, path: str) -> str:
    """By what the bytes begin with, or else that of the picture's ``path``; whoever decodes them
    says what is wrong with them."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            name = str(image.format)
    except Exception:  # as in `open_image`
        suffix = signature(data[:HEADER]) or PurePosixPath(path).suffix.lower()
        return suffix[1:] if suffix in UNSIGNED or suffix in PLUGIN_OF else "bin"
    return _SUFFIXES.get(name, name.lower())


@contextmanager
def _reading() -> Iterator[None]:
    """What Arrow says of a damaged file as a BrokenShard; errors of the system are none of it."""
    try:
        yield
    except BrokenShard:
        raise
    except (pa.ArrowException, ValueError) as error:
        raise BrokenShard(f"not a whole parquet file ({_line(error)})") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise BrokenShard(f"not a whole parquet file ({_line(error)})") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
