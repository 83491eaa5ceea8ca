"""One shard of a labelled folder: samples as a tar, a row for each, and what was left out."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ric_diffusion.data.labelled import labelled
from ric_diffusion.data.parquet import Kind, note_of
from ric_diffusion.data.records import METADATA, TAR_OFFSET, TAR_SIZE, Record, metadata_bytes
from ric_diffusion.data.skipped import write_skipped
from ric_diffusion.data.tar_header import plain_header
from ric_diffusion.data.tar_reader import split_name, stored_name
from ric_diffusion.data.unchanged import DIGEST, NAME_DIGITS
from ric_diffusion.io.files import replacing, write_bytes

SHARDS = "shards"
BUFFER = 2**20  # bytes
KINDS: Mapping[str, Kind] = {DIGEST: "text", TAR_OFFSET: "integer", TAR_SIZE: "integer"}


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """A sample that has all scores. ``record``: as it stands in the input; ``digest``: of what is
    seen of the picture whose bytes ``data`` are."""

    record: Record
    data: bytes
    digest: str
    scores: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class OutputShard:
    """The files of one shard in the labelled folder ``out``. It is whole where its metadata is,
    which is written last and notes what it was made of."""

    out: Path
    name: str

    @property
    def tar(self) -> Path:
        return self.out / SHARDS / f"{self.name}.tar"

    @property
    def metadata(self) -> Path:
        return self.out / SHARDS / f"{self.name}.parquet"

    @property
    def skipped(self) -> Path:
        return self.out / SHARDS / f"{self.name}.skipped.json"

    @property
    def files(self) -> tuple[Path, ...]:
        return self.metadata, self.skipped, self.tar

    def note(self) -> Any:
        """What it was made of; None unless it is whole."""
        if not (self.tar.is_file() and self.skipped.is_file()):
            return None
        try:
            return json.loads(note_of(self.metadata) or "null")
        except ValueError:
            return None

    def begin(self) -> None:
        """From here on it is not whole, nor is a folder whose metadata has rows of it."""
        (self.out / METADATA).unlink(missing_ok=True)
        self.metadata.unlink(missing_ok=True)

    def write(
        self,
        samples: Iterable[Accepted],
        skipped: Mapping[str, str],
        *,
        note: Any,
        changed_ns: int,
    ) -> None:
        """Write the three files. ``skipped`` is read when ``samples`` has ended. The tar gets the
        time of change ``changed_ns``, so that whoever writes the same shard writes the same."""
        records = []
        with replacing(self.tar) as temporary:
            with TarWriter(temporary) as tar:
                for sample in samples:
                    records.append(self._add(tar, sample))
            os.utime(temporary, ns=(changed_ns, changed_ns))
        with replacing(self.skipped) as temporary:
            write_skipped(temporary, skipped.items())
        write_bytes(self.metadata, metadata_bytes(records, KINDS, json.dumps(note)))

    def _add(self, tar: TarWriter, sample: Accepted) -> Record:
        """Put a sample into the tar; its record, with where it is."""
        named = split_name(sample.record.file.partition("/")[2])
        assert named is not None  # or the reader had passed it over
        name = stored_name(*named)
        offset = tar.add(name, sample.data)
        tar.add(f"{named[0]}.txt", sample.record.captions[0].encode())
        return labelled(
            sample.record,
            f"{SHARDS}/{self.tar.name}/{name}",
            sample.scores,
            span=(offset, len(sample.data)),
            **{DIGEST: sample.digest[:NAME_DIGITS]},
        )


class TarWriter:
    """Writes a tar whose bytes follow from names and contents alone."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=BUFFER)
        self._offset = 0

    def add(self, name: str, data: bytes) -> int:
        """Returns where in the file the data begin."""
        offset = self._write(plain_header(name, len(data)) or _any_header(name, len(data)))
        self._write(data)
        self._write(bytes(-len(data) % tarfile.BLOCKSIZE))
        return offset

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._file:
            if error is None:
                self._write(bytes(2 * tarfile.BLOCKSIZE))
                self._write(bytes(-self._offset % tarfile.RECORDSIZE))

    def _write(self, data: bytes) -> int:
        """Returns where in the file the next ones begin."""
        self._file.write(data)
        self._offset += len(data)
        return self._offset


def _any_header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)  # of nobody, and of 1970
    member.size = size
    try:
        return member.tobuf(tarfile.USTAR_FORMAT)
    except ValueError:  # too long a name
        return member.tobuf(tarfile.PAX_FORMAT)
