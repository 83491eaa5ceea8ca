"""Files of tensors: safetensors, the same bytes for the same content, with errors of the system as
what they are."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file


@dataclass(frozen=True)
class StoredTensor:
    """What a file's header says of one tensor; ``dtype`` as safetensors calls it."""

    shape: tuple[int, ...]
    dtype: str


FLOATS = ("F64", "F32", "F16", "BF16")  # as safetensors calls them
_SYSTEM = re.compile(r"\(os error (\d+)\)")  # as Rust writes errno


def save_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors and metadata to a new safetensors file, with the mode that new files have.

    OSError where the disk is full, or whatever else the system says.
    """
    path.touch()
    mode = path.stat().st_mode
    with system_errors(path):
        contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, path, metadata=dict(metadata or {}) or None)
    path.chmod(mode)  # safetensors leaves a file that nobody else may read
    if metadata:
        _sort_metadata(path)


def stored_tensors(file: Any) -> dict[str, StoredTensor]:
    """The tensors of an open safetensors file by name, of which none is read."""
    slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
    return {
        key: StoredTensor(tuple(found.get_shape()), found.get_dtype())
        for key, found in slices.items()
    }


def check_finite(tensors: Mapping[str, torch.Tensor]) -> None:
    """ValueError for a tensor that holds NaN or Inf."""
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ValueError(f"{name} holds numbers that are not finite")


@contextmanager
def system_errors(path: Path) -> Iterator[None]:
    """Where a library writes by safetensors to ``path``: SafetensorError, if it stands for an error
    of the system, is raised as that OSError."""
    try:
        yield
    except SafetensorError as error:
        if (found := _SYSTEM.search(str(error))) is None:
            raise
        number = int(found[1])
        raise OSError(number, os.strerror(number), str(path)) from None


def _sort_metadata(path: Path) -> None:
    """Put the metadata in order, which safetensors writes by chance."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(text) <= size  # the tensors begin behind it
        file.seek(8)
        file.write(text.ljust(size))
