"""Networks that turn pictures and prompts into vectors, and the passes that scorers share."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

from scorers import probes
from scorers.hardware import Compute, in_parts
from scorers.parallel import map_images
from scorers.rgb import to_rgb

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

T = TypeVar("T")
E = TypeVar("E", bound="Encoder")

# Inputs in a pass where nobody says: beyond these a pass gets no faster, and a GPU on which they do
# not fit does half as many.
BATCH_ON_CPU, BATCH_ON_GPU = 32, 256

# Scorers on the same network share one encoder for as long as one of them lives.
_alive: WeakValueDictionary[tuple[object, ...], Encoder] = WeakValueDictionary()


def shared(key: tuple[object, ...], build: Callable[[], E]) -> E:
    """The encoder that is known by the key, which names all that it depends on, or a new one."""
    encoder: Any = _alive.get(key)
    if encoder is None:
        encoder = _alive[key] = build()
    found: E = encoder
    return found


class Encoder(ABC):
    """A network in evaluation, shared by the scorers that read it: pictures and prompts -> unit
    vectors.

    Those of the latest pictures and of the latest prompts are kept, so several scorers that are
    called with the same ones take one pass between them. It counts what the pictures show, not
    which objects they are: one that was painted over in between is seen anew. A pass is shared as
    a whole or not at all, and only at the same batch size: a score never depends, not even in
    rounding, on what was scored before.
    """

    fingerprint: str
    width: int  # of the vectors

    def __init__(self, compute: Compute) -> None:
        self._compute = compute
        self._fits = usual_batch(compute)
        self._seen: tuple[object, torch.Tensor] | None = None  # the latest pictures, their vectors
        self._read: tuple[object, torch.Tensor] | None = None  # the latest prompts, theirs

    @abstractmethod
    def _pixels(self, image: Image) -> torch.Tensor:
        """An RGB picture as the network takes it: (3, H, W) float32."""

    @abstractmethod
    def _images(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) on the device -> (B, D)."""

    @abstractmethod
    def _texts(self, prompts: list[str]) -> torch.Tensor:
        """B prompts, cut at the network's context length -> (B, D)."""

    def encode_images(self, images: Sequence[Image], batch_size: int | None = None) -> torch.Tensor:
        """N >= 1 images -> (N, D) float32 on the CPU, each row of length 1.

        ``batch_size``: in a pass; None for what fits. No more than fit are put into one either way.
        """
        size = batch_size or self._fits
        key = (size, *map_images(_digest, images))
        seen = self._seen
        if seen is None or seen[0] != key:

            def encode(part: range, pixels: torch.Tensor) -> torch.Tensor:
                with self._compute.autocast():
                    return _unit(self._images(pixels.to(self._compute.device)))

            rows = in_batches(encode, images, lambda image: self._pixels(to_rgb(image)), size)
            seen = self._seen = (key, self._joined(rows, size))
        return seen[1]

    def encode_texts(self, prompts: Sequence[str], batch_size: int | None = None) -> torch.Tensor:
        """N >= 1 prompts -> (N, D) as ``encode_images``; one that stands in the list more than once
        is read once."""
        import torch

        size = batch_size or self._fits
        distinct = {prompt: index for index, prompt in enumerate(dict.fromkeys(prompts))}
        key = (size, *distinct)
        read = self._read
        if read is None or read[0] != key:

            def encode(some: list[str]) -> torch.Tensor:
                with torch.inference_mode(), self._compute.autocast():
                    return _unit(self._texts(some))

            read = self._read = (key, self._joined(in_parts(encode, list(distinct), size), size))
        return read[1][[distinct[prompt] for prompt in prompts]]

    def cosines(
        self, images: Sequence[Image], prompts: Sequence[str], batch_size: int | None = None
    ) -> torch.Tensor:
        """Of N pictures and their N prompts, (N,) float32 on the CPU."""
        pictures = self.encode_images(images, batch_size)  # (N, D)
        texts = self.encode_texts(prompts, batch_size)  # (N, D)
        return (pictures * texts).sum(dim=1)

    def _joined(self, rows: list[torch.Tensor], size: int) -> torch.Tensor:
        """The rows of all passes; where none was of the size asked for, it did not fit, and is not
        tried again."""
        import torch

        largest = max(len(some) for some in rows)
        if len(rows) > 1 and largest < size:
            self._fits = min(self._fits, largest)
        return torch.cat(rows)

    def _pixels_digest(self) -> str:
        """Of what preprocessing makes of fixed pictures, to a tenth of a grey level or so: what the
        libraries do with them, rather than their versions."""
        pixels = [self._pixels(picture) for picture in probes.pictures()]  # (3, H, W) each
        return probes.digest([(p * 1000).round().int().numpy().tobytes().hex() for p in pixels])


def usual_batch(compute: Compute) -> int:
    """How many inputs go into a pass where nobody says."""
    return BATCH_ON_GPU if compute.device.type == "cuda" else BATCH_ON_CPU


def in_batches(
    function: Callable[[range, torch.Tensor], T],
    images: Sequence[Image],
    prepare: Callable[[Image], torch.Tensor],
    size: int,
) -> list[T]:
    """``function(part, pixels)`` for the parts of range(N), in their order, as ``in_parts`` makes
    them, without gradients. Pixels are what ``prepare`` makes of the part's images, stacked;
    threads are one part ahead, so the network does not wait for them.
    """
    import torch

    # An image that stands in the list more than once is read by one thread only.
    first: dict[int, int] = {}
    where = [first.setdefault(id(image), index) for index, image in enumerate(images)]
    ready: dict[int, Future[torch.Tensor]] = {}
    with ThreadPoolExecutor(min(len(images), os.cpu_count() or 1)) as threads:

        def run(part: range) -> T:
            for index in where[part.start : part.stop + len(part)]:
                if index not in ready:
                    ready[index] = threads.submit(prepare, images[index])
            pixels = torch.stack([ready[index].result() for index in where[part.start : part.stop]])
            with torch.inference_mode():
                found = function(part, pixels)
            for index in where[part.start : part.stop]:
                ready.pop(index, None)
            return found

        try:
            return in_parts(run, range(len(images)), size)
        finally:
            threads.shutdown(cancel_futures=True)


def _digest(image: Image) -> bytes:
    """Of what the picture looks like, which is all that scorers see of it."""
    rgb = to_rgb(image)
    return hashlib.sha256(b"%d %d " % rgb.size + rgb.tobytes()).digest()


def _unit(features: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.nn.functional.normalize(features.float(), dim=-1).cpu()
