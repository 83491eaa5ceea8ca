"""Rows of tensors on disk, by key: what a frozen network makes of a picture or a text, once.

A folder of safetensors files, the shards. Each says itself which rows it has, so a shard is either
there with all of them or not at all: whoever is killed loses the one it was at, several processes
write into one folder without a lock, and there is no list beside the shards that could disagree.
Each has a digest of what is in it, too, and is read once before it is used.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ric_diffusion.io.files import check_regular, clear_leftovers, replacing
from ric_diffusion.io.progress import tracking
from ric_diffusion.io.tensors import save_tensors
from ric_diffusion.models.hardware import this_process

KEY = np.dtype("S16")  # NumPy sorts and searches these; a zero at the end counts as none there
KEYS, ENDS = "keys", ".ends"
DIGEST = "digest"  # in a shard's metadata
AT_ONCE = 2**22  # bytes that are read of a file to check it
SHOWN = 2**31  # bytes, from which on to check them takes so long that a person watches
DTYPES = {
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
# What reading a file that is not whole ends in; its header may say anything.
DAMAGE = (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError)
_log = logging.getLogger(__name__)


def key_of(*parts: Any) -> bytes:
    """A key for what these say together: 16 bytes."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=KEY.itemsize).digest()


def keys_of(things: Iterable[Sequence[Any]]) -> np.ndarray:
    """The keys of several, (N,)."""
    return np.fromiter((key_of(*parts) for parts in things), dtype=KEY)


def as_rows(keys: np.ndarray) -> torch.Tensor:
    """Keys (N,) as bytes, (N, 16) uint8."""
    padded = keys.astype(KEY).tobytes()
    return torch.from_numpy(np.frombuffer(padded, np.uint8).copy()).view(-1, KEY.itemsize)


def from_rows(rows: np.ndarray) -> np.ndarray:
    """The inverse."""
    keys: np.ndarray = np.ascontiguousarray(rows).view(KEY)[:, 0]
    return keys


class _Digest:
    """Of the names, types, shapes and bytes of tensors, given in the order of their names."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=KEY.itemsize)

    def begin(self, name: str, dtype: torch.dtype, shape: Sequence[int]) -> None:
        self._hash.update(repr((name, str(dtype), tuple(shape))).encode())

    def add(self, data: bytes | memoryview) -> None:
        self._hash.update(data)

    def read(self) -> str:
        return self._hash.hexdigest()


def _digest_of(tensors: Mapping[str, torch.Tensor]) -> str:
    digest = _Digest()
    for name, tensor in sorted(tensors.items()):
        digest.begin(name, tensor.dtype, tensor.shape)
        digest.add(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.read()


@dataclass(frozen=True, kw_only=True)
class _Tensor:
    """Where a shard has a tensor, in bytes from the file's start, and of what shape that is."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int

    @property
    def stride(self) -> int:
        """Bytes of one entry of the first dimension."""
        return int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize


class Shard:
    """One file. ValueError if it is not whole.

    Rows are read by their place in the file, not through a memory map: pages that were touched stay
    with a process as resident memory, until at the end all of a data set is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        check_regular(path)
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = os.fstat(file.fileno()).st_size
            if length > size:
                raise ValueError("its header is cut short")
            header = json.loads(file.read(length))
        self._digest = header.pop("__metadata__", {}).get(DIGEST)
        starts, ends = zip(*(entry["data_offsets"] for entry in header.values()), strict=True)
        if min(starts) < 0 or KEYS not in header or size != 8 + length + max(ends):
            raise ValueError(f"it has {size} bytes, not those that its header says")
        self.tensors = {
            name: _Tensor(
                dtype=DTYPES[entry["dtype"]],
                shape=tuple(entry["shape"]),
                start=8 + length + entry["data_offsets"][0],
            )
            for name, entry in header.items()
        }
        self.names = [name for name in self.tensors if name != KEYS and not name.endswith(ENDS)]

    def check(self) -> None:
        """ValueError unless what is in it is what was written."""
        digest = _Digest()
        with self.path.open("rb", buffering=0) as file:
            for name, tensor in sorted(self.tensors.items()):
                digest.begin(name, tensor.dtype, tensor.shape)
                file.seek(tensor.start)
                left = tensor.shape[0] * tensor.stride
                while left and (data := file.read(min(left, AT_ONCE))):
                    digest.add(data)
                    left -= len(data)
        if digest.read() != self._digest:
            raise ValueError("it is not what was written")

    def keys(self) -> np.ndarray:
        """(n,), of its rows."""
        return from_rows(self.whole(KEYS).numpy())

    def whole(self, name: str) -> torch.Tensor:
        """All rows of one tensor."""
        return self._entries(name, 0, self.tensors[name].shape[0])

    def row(self, row: int, name: str) -> torch.Tensor:
        """One row of one tensor: (…) if every row is one entry of it, else (T, …)."""
        if name + ENDS not in self.tensors:
            return self._entries(name, row, row + 1)[0]
        first = max(0, row - 1)
        ends = [0] * (row == 0) + self._entries(name + ENDS, first, row + 1).tolist()
        return self._entries(name, *ends)

    def part(self, row: int, name: str, part: int) -> torch.Tensor:
        """One entry of the second dimension of one row."""
        tensor = self.tensors[name]
        inner = _Tensor(dtype=tensor.dtype, shape=tensor.shape[1:], start=0)
        start = tensor.start + row * tensor.stride + part * inner.stride
        return self._at(start, inner.stride, tensor.dtype, tensor.shape[2:])

    def _entries(self, name: str, first: int, last: int) -> torch.Tensor:
        tensor = self.tensors[name]
        shape = (last - first, *tensor.shape[1:])
        start = tensor.start + first * tensor.stride
        return self._at(start, (last - first) * tensor.stride, tensor.dtype, shape)

    def _at(
        self, start: int, size: int, dtype: torch.dtype, shape: tuple[int, ...]
    ) -> torch.Tensor:
        found = torch.empty(size, dtype=torch.uint8)
        with self.path.open("rb", buffering=0) as file:
            file.seek(start)
            if size and file.readinto(found.numpy().data) != size:
                raise OSError(f"{self.path}: is shorter than it was; start again with --resume")
        return found.view(dtype).view(shape)


class Shards:
    """The rows of all shards in a folder.

    A shard that is damaged, as a disk that was full or failed leaves one, is named and passed over,
    so its rows are missing and are made anew.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shards: list[Shard] = []
        self.damaged: list[Path] = []
        self._keys = np.empty(0, KEY)  # sorted
        self._places = np.empty((0, 2), np.int32)
        self.refresh()

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def nbytes(self) -> int:
        return sum(shard.path.stat().st_size for shard in self.shards)

    def refresh(self) -> None:
        """See what other processes wrote."""
        known = {shard.path: shard for shard in self.shards}
        paths = sorted(self.folder.glob("[!.]*.safetensors"))
        new = [path for path in paths if path not in known]
        size = sum(path.stat().st_size for path in new if path.is_file())
        show = size > SHOWN and this_process().is_main_process
        with (
            ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
            tracking("check", len(new), unit="shard", show=show) as tracker,
        ):
            for path, shard in zip(new, pool.map(self._opened, new), strict=True):
                tracker.advance()
                if shard is not None:
                    known[path] = shard
        self.shards = [known[path] for path in paths if path in known]
        self._index([shard.keys() for shard in self.shards])

    def _opened(self, path: Path) -> Shard | None:
        """A shard that is what was written, or None."""
        try:
            shard = Shard(path)
            shard.check()
        except FileNotFoundError:  # another process has cleared it away
            return None
        except DAMAGE as error:
            if path not in self.damaged:
                _log.warning("%s: damaged, and made anew (%s)", path, error)
                self.damaged.append(path)
            return None
        return shard

    def _index(self, keys: list[np.ndarray]) -> None:
        counts = [len(some) for some in keys]
        places = np.stack(
            [
                np.repeat(np.arange(len(keys)), counts),
                np.concatenate([np.arange(count) for count in [0, *counts]]),
            ],
            axis=1,
        ).astype(np.int32)
        every = np.concatenate([np.empty(0, KEY), *keys])
        self._keys, first = np.unique(every, return_index=True)
        self._places = places[first]

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Keys (N,) -> places (N, 2): which shard, which of its rows; -1 where there is none."""
        if not len(self._keys):
            return np.full((len(keys), 2), -1, np.int32)
        at = np.searchsorted(self._keys, keys).clip(max=len(self._keys) - 1)
        return np.where((self._keys[at] == keys)[:, None], self._places[at], np.int32(-1))

    def whole(self, name: str, places: np.ndarray) -> np.ndarray:
        """Rows (N, …) at places (N, 2) of a small tensor, from whole shards."""
        columns = [shard.whole(name).numpy() for shard in self.shards]
        starts = np.cumsum([0, *(len(column) for column in columns)])
        rows: np.ndarray = np.concatenate(columns)[starts[places[:, 0]] + places[:, 1]]
        return rows

    def write(self, keys: np.ndarray, tensors: Mapping[str, torch.Tensor]) -> None:
        """Add a shard of these rows: tensors (n, …), or (T_1 + … + T_n, …) with NAME.ends (n,).

        Its name is a digest of the keys: who is to make the same rows writes the same file.
        """
        name = hashlib.blake2b(keys.tobytes(), digest_size=8).hexdigest()
        every = {KEYS: as_rows(keys), **tensors}
        with replacing(self.folder / f"{name}.safetensors") as temporary:
            save_tensors(temporary, every, {DIGEST: _digest_of(every)})

    def clear(self) -> None:
        """Remove what is damaged and what killed processes left."""
        for path in self.damaged:
            path.unlink(missing_ok=True)
        self.damaged.clear()
        if self.folder.is_dir():
            clear_leftovers(self.folder)

    def missing(
        self, keys: np.ndarray, groups: Sequence[np.ndarray], process: Any
    ) -> list[np.ndarray]:
        """What ``fill`` has this process make of the same arguments: numbers of rows, of which
        each lot is a shard."""
        missing = self.find(keys)[:, 0] < 0
        wanted = [rows for group in groups if len(rows := group[missing[group]])]
        return wanted[process.process_index :: process.num_processes]

    def fill(
        self,
        keys: np.ndarray,
        groups: Sequence[np.ndarray],
        make: Callable[[np.ndarray], Mapping[str, torch.Tensor]],
        process: Any,
    ) -> None:
        """Have a row for every one of the keys (N,); ``make`` gives the tensors of those that are
        missing, some numbers of rows at a time.

        ``groups``: the numbers of the rows that go into a shard together, where none of them is
        there yet. They depend on all keys alone, not on what is missing, and so does what ``make``
        is asked for: what it makes of a row may depend by a rounding error on those beside it, and
        a run that was killed has to end with the same numbers. The processes (accelerate's
        ``process``) take turns with the groups.
        """
        own = self.missing(keys, groups, process)
        process.wait_for_everyone()  # all have seen the folder as it was
        if process.is_main_process:
            self.clear()
        for rows in own:
            self.write(keys[rows], make(rows))
        process.wait_for_everyone()
        self.refresh()
