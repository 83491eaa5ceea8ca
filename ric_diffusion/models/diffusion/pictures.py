"""The pictures that are trained on: what is in each file, what is seen of it, and at what size."""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from ric_diffusion.data.budget import one_picture
from ric_diffusion.data.framing import Frame, Framing, Size
from ric_diffusion.data.images import UnreadableImage, image_size, open_image
from ric_diffusion.data.records import Record
from ric_diffusion.io.counting import counted
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import full_stamp
from ric_diffusion.io.progress import tracking
from ric_diffusion.models.diffusion.shards import KEY, Shards, as_rows, from_rows, keys_of

FILES = "files"  # the folder in a cache where pictures are described
FILES_AT_ONCE = 4096
MAX_CUT = 0.1  # the share of what was labelled that training may leave out
_log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """N pictures, as columns: a hundred thousand of them take a few megabytes.

    Attributes:
        folder: where their files are.
        records: what is known of them, (N,).
        digests: of what the files hold, (N,).
        sizes: their widths and heights, (N, 2).
        boxes: what is seen of each: left, top, right, bottom, (N, 4).
        drawn: the widths and heights that it is drawn at, (N, 2).
    """

    folder: Path
    records: Sequence[Record]
    digests: np.ndarray
    sizes: np.ndarray
    boxes: np.ndarray
    drawn: np.ndarray

    def __len__(self) -> int:
        return len(self.records)

    def path(self, i: int) -> Path:
        return self.folder / self.records[i].file

    def draw(self, i: int) -> torch.Tensor:
        """(3, h, w) uint8: what training sees of one."""
        box, size = self.boxes[i].tolist(), self.drawn[i].tolist()
        with one_picture():
            with _named(self.path(i)):
                opened = open_image(self.records[i].source(self.folder), suffix=self.path(i).suffix)
            image = Frame(box=tuple(box), size=tuple(size)).draw(opened)
            del opened
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

    def told(self, rows: Sequence[int], views: Sequence[int]) -> torch.Tensor:
        """(B, 6) float32: height and width in the file; top and left of what is seen, at the scale
        that it is drawn at; height and width that it is drawn at. Of a mirror image, view 1, left
        is counted in the mirrored picture."""
        some = list(rows)
        size, box, drawn = self.sizes[some], self.boxes[some], self.drawn[some]
        mirrored = np.array(views) == 1
        left = np.where(mirrored, size[:, 0] - box[:, 2], box[:, 0])
        scale = drawn / (box[:, 2:] - box[:, :2])
        corner = np.stack([box[:, 1] * scale[:, 1], left * scale[:, 0]], axis=1).round()
        told = np.concatenate([size[:, ::-1], corner, drawn[:, ::-1]], axis=1)
        return torch.from_numpy(told.astype(np.float32))

    @property
    def upscale(self) -> np.ndarray:
        """How many times as long a side is drawn as it is in the file, the longer way, (N,)."""
        sides = self.boxes[:, 2:] - self.boxes[:, :2]
        found: np.ndarray = (self.drawn / sides).max(axis=1)
        return found

    def buckets(self) -> tuple[list[Size], np.ndarray]:
        """The sizes that pictures are drawn at, and for each picture the number of its own."""
        sizes, numbers = np.unique(self.drawn, axis=0, return_inverse=True)
        return [tuple(size) for size in sizes.tolist()], numbers.reshape(-1)

    def chosen(self, rows: np.ndarray) -> Pictures:
        """Those of these numbers."""
        return replace(
            self,
            records=[self.records[i] for i in rows.tolist()],
            digests=self.digests[rows],
            sizes=self.sizes[rows],
            boxes=self.boxes[rows],
            drawn=self.drawn[rows],
        )


@contextmanager
def threads() -> Iterator[Callable[[Callable[[int], T], Sequence[int]], list[T]]]:
    """``each(function, numbers)`` in the block: the function of every number, in threads; pictures
    are decoded outside Python's lock."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        yield lambda function, numbers: list(pool.map(function, numbers))


def read_pictures(
    folder: Path,
    records: Sequence[Record],
    cache: Path,
    process: Any,
    *,
    resolution: int,
    step: int,
    max_upscale: float,
) -> tuple[Pictures, np.ndarray]:
    """The pictures of a labelled folder that can be trained on, and their numbers (n,) among those
    given. Files whose size in bytes and time of change are known in ``cache`` are not opened.

    They are drawn in buckets of the area of a square with the side ``resolution``, which is one of
    them; sides are multiples of ``step`` where that one's is. Left out, and told of in a line, are
    pictures that would be enlarged more than ``max_upscale`` times or are too long. InputError, by
    name, for pictures that cannot be read, or of which much was labelled that training does not
    see, and if none are left.
    """
    digests, sizes = _described(folder, records, cache / FILES, process)
    step = math.gcd(resolution, step)
    framing = labelled = Framing.read(folder)
    if labelled.rule == "whole":
        framing = Framing(rule="bucket", resolution=resolution, step=step)
    shapes, numbers = np.unique(sizes, axis=0, return_inverse=True)
    boxes, drawn, cut, long = [], [], [], []
    for shape in shapes.tolist():
        size: Size = tuple(shape)
        frame = framing.frame(size, resolution=resolution, step=step)
        boxes.append(frame.box)
        drawn.append(frame.size)
        cut.append(1 - (1 - frame.cut(size)) / (1 - labelled.frame(size).cut(size)))
        long.append(framing.reject_reason(size) is not None)
    numbers = numbers.reshape(-1)
    every = Pictures(
        folder=folder,
        records=records,
        digests=digests,
        sizes=sizes,
        boxes=np.array(boxes, np.int32)[numbers],
        drawn=np.array(drawn, np.int32)[numbers],
    )
    too_long = np.array(long)[numbers]
    too_small = (every.upscale > max_upscale) & ~too_long
    rows = np.flatnonzero(~(too_long | too_small))
    left_out = (
        f"{folder}: {len(records) - len(rows)} of {counted(len(records), 'pictures')} left out, "
        f"{too_small.sum()} that training would enlarge more than {max_upscale:g} times and "
        f"{too_long.sum()} longer than {framing.max_aspect:g} to 1"
    )
    if not len(rows):
        raise InputError(f"{left_out}; lower resolution, or raise max_upscale")
    if len(rows) < len(records) and process.is_main_process:
        _log.warning("%s", left_out)
    chosen = every.chosen(rows)
    _check_cut(chosen, np.array(cut)[numbers[rows]], labelled, resolution)
    return chosen, rows


def _described(
    folder: Path, records: Sequence[Record], cache: Path, process: Any
) -> tuple[np.ndarray, np.ndarray]:
    """The digests (N,) of the records' samples and the sizes (N, 2) of their pictures."""
    shards, root = Shards(cache), str(folder.absolute())
    keys = keys_of(_place(root, record) for record in records)
    groups = np.split(np.arange(len(keys)), range(FILES_AT_ONCE, len(keys), FILES_AT_ONCE))
    own = sum(map(len, shards.missing(keys, groups, process)))
    with (
        threads() as each,
        tracking("read", own, unit="image", show=process.is_main_process) as tracker,
    ):

        def describe(rows: np.ndarray) -> dict[str, torch.Tensor]:
            found = each(lambda i: _description(folder, records[i]), rows.tolist())
            digests, sizes = zip(*found, strict=True)
            tracker.advance(len(rows))
            return {"digest": as_rows(np.array(digests)), "size": torch.tensor(sizes).int()}

        shards.fill(keys, groups, describe, process)
    places = shards.find(keys)
    return from_rows(shards.whole("digest", places)), shards.whole("size", places)


def _place(root: str, record: Record) -> tuple[Any, ...]:
    """Where a sample is, and what a change of it shows in. InputError if there is no file."""
    path = os.path.join(root, record.file)
    known = record.stamp
    if known is None:
        try:
            known = full_stamp(os.path.join(root, record.container))
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    return (path, known) if record.span is None else (path, known, record.span)


def _description(folder: Path, record: Record) -> tuple[bytes, Size]:
    """A digest of what holds a sample, and the size of its picture."""
    path = folder / record.file
    with _named(path):
        source = record.source(folder)
        size = image_size(source, suffix=path.suffix)
        data = source if isinstance(source, bytes) else source.read_bytes()
    return hashlib.blake2b(data, digest_size=KEY.itemsize).digest(), size


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except (UnreadableImage, OSError) as error:
        raise InputError(f"{path}: {error}; run `ric label` again") from error


def _check_cut(pictures: Pictures, cut: np.ndarray, labelled: Framing, resolution: int) -> None:
    """``cut``: the share of what was labelled of each picture that training leaves out, (N,)."""
    if count := int((cut > MAX_CUT).sum()):
        worst = int(cut.argmax())
        how = "whole" if labelled.rule == "whole" else f"for buckets of {labelled.resolution} px"
        raise InputError(
            f"{pictures.folder}: was labelled {how}, and training at {resolution} px cuts more "
            f"than {MAX_CUT:.0%} away from {count} of {counted(len(cut), 'pictures')}, "
            f"{cut[worst]:.0%} from {pictures.records[worst].file}; label again with --framing "
            "square"
        )
