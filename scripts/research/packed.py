"""A folder of pictures as one file, and back: what travels to a machine without a network."""

from __future__ import annotations

import gzip
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import replacing


def pack(folder: Path, file: Path) -> None:
    """Write a compressed tar file of all files in a folder, the same bytes for the same files.

    InputError if it is no folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no folder; give the one that build_emoji_dataset.py wrote")
    with (
        replacing(file) as temporary,
        temporary.open("wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w") as tar,
    ):
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            member = tarfile.TarInfo(path.relative_to(folder).as_posix())
            member.size = path.stat().st_size
            with path.open("rb") as content:
                tar.addfile(member, content)


@contextmanager
def unpacked(source: Path) -> Iterator[Path]:
    """The folder itself, or that of a file of ``pack``, which is there inside the block.

    InputError if it is neither.
    """
    if source.is_dir():
        yield source
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            with tarfile.open(source) as tar:
                tar.extractall(folder, filter="data")
        except (OSError, tarfile.TarError) as error:
            raise InputError(
                f"{source}: neither a folder of pictures nor a file of --pack ({error})"
            ) from error
        yield Path(folder)
