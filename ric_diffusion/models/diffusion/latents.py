"""Latents: what the autoencoder makes of pictures, scaled as the denoiser takes them, and the cache
of them: every picture goes through the frozen autoencoder once, not once an epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ric_diffusion.data.framing import Framing
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.progress import tracking
from ric_diffusion.models.diffusion.pictures import Pictures, threads
from ric_diffusion.models.diffusion.shards import Shards, key_of, keys_of
from ric_diffusion.models.protocol import weights_digest
from scorers.hardware import in_parts

LATENTS, MOMENTS = "latents", "moments"  # a folder in a cache, the tensor in its shards
PIXELS_AT_ONCE = 2**18  # an autoencoder takes some kilobytes for each
SHARD_BYTES = 2**26


def to_pixels(images: torch.Tensor) -> torch.Tensor:
    """(N, 3, H, W) uint8 -> float in [-1, 1], as autoencoders take them."""
    return images.float().div_(127.5).sub_(1.0)


def framed(image: Image.Image, size: int) -> torch.Tensor:
    """RGB picture -> (3, size, size) uint8: its middle square."""
    frame = Framing().frame(image.size, resolution=size, step=size)
    return torch.from_numpy(np.array(frame.draw(image))).permute(2, 0, 1)


@dataclass(frozen=True, kw_only=True)
class Latents:
    """The latents of an autoencoder as a denoiser takes them: (x - shift) * scale."""

    vae: Any
    scale: float
    shift: float = 0.0

    @classmethod
    def of(cls, vae: Any) -> Latents:
        """As the autoencoder's own config has it."""
        shift = getattr(vae.config, "shift_factor", None) or 0.0
        return cls(vae=vae, scale=vae.config.scaling_factor, shift=shift)

    @torch.no_grad()
    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) uint8 -> (B, 2, C, h, w): mean and standard deviation of the posterior, on
        the CPU in float32.

        An autoencoder in float16 whose config says ``force_upcast``, as that of SDXL, which
        overflows, is in float32 meanwhile, as in the pipelines.
        """
        count = max(1, PIXELS_AT_ONCE // (images.shape[-2] * images.shape[-1]))
        with self._upcast():
            return torch.cat(in_parts(self._moments, images, count))

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> Image.Image:
        """(1, C, h, w) -> the picture; an autoencoder that overflows in float16 is in float32
        meanwhile."""
        with self._upcast():
            scaled = (latents.to(self.vae.dtype) / self.scale + self.shift).to(self.vae.device)
            pixels = self.vae.decode(scaled).sample[0].float()
        shown = pixels.nan_to_num().add(1).mul(127.5).round().clamp(0, 255).byte()
        return Image.fromarray(shown.permute(1, 2, 0).cpu().numpy())

    @contextmanager
    def _upcast(self) -> Iterator[None]:
        dtype, upcast = self.vae.dtype, getattr(self.vae.config, "force_upcast", False)
        # Module's own `to`: that of diffusers warns of parts to be kept in float32 that are not.
        to = partial(torch.nn.Module.to, self.vae)
        to(torch.float32 if upcast and dtype == torch.float16 else dtype)
        try:
            yield
        finally:
            to(dtype)

    def nbytes(self, width: int, height: int) -> int:
        """Of the moments of a picture."""
        config = self.vae.config
        factor = 2 ** (len(config.block_out_channels) - 1)
        return 2 * 4 * config.latent_channels * (width // factor) * (height // factor)

    def _moments(self, images: torch.Tensor) -> torch.Tensor:
        pixels = to_pixels(images).to(self.vae.device, self.vae.dtype)
        posterior = self.vae.encode(pixels).latent_dist
        mean, std = posterior.mean.float(), posterior.std.float()
        return torch.stack([(mean - self.shift) * self.scale, std * self.scale], dim=1).cpu()


@dataclass(frozen=True, kw_only=True)
class CachedLatents:
    """Posterior moments of N pictures in M views, in shards: ``places`` (N, 2) of their rows.

    Only those of a batch are read, so memory does not grow with N.
    """

    shards: Shards
    places: np.ndarray
    views: int

    def moments(self, rows: Sequence[int], views: Sequence[int]) -> torch.Tensor:
        """(B, 2, C, h, w) of these pictures, which are drawn at one size, in one view each."""
        found = []
        for (shard, row), view in zip(self.places[list(rows)].tolist(), views, strict=True):
            found.append(self.shards.shards[shard].part(row, MOMENTS, view))
        return torch.stack(found)


def cached_latents(
    latents: Latents,
    pictures: Pictures,
    cache: Path,
    process: Any,
    *,
    mirrored: bool,
    batch_size: int = 32,
) -> CachedLatents:
    """The latents of every picture, with mirror images in two views each, from ``cache`` where the
    same pixels were encoded by the same autoencoder, and into it.

    A picture that changed is encoded anew, the others are not. A run that is killed loses the shard
    it was at. The processes share the work. InputError, by its name, for a picture that the
    autoencoder makes no numbers of.
    """
    views = 2 if mirrored else 1
    key = key_of(weights_digest(latents.vae), latents.scale, latents.shift, views)
    shards = Shards(cache / f"{LATENTS}-{key.hex()[:16]}")
    # Of each picture alone: as lists the columns of many would take far more memory than they do.
    keys = keys_of(
        (bytes(pictures.digests[i]), *pictures.boxes[i].tolist(), *pictures.drawn[i].tolist())
        for i in range(len(pictures))
    )
    first = np.sort(np.unique(keys, return_index=True)[1])  # of equal pictures one is encoded
    groups = _groups(latents, pictures, first, views)
    own = sum(map(len, shards.missing(keys, groups, process)))
    with (
        threads() as each,
        tracking("latents", own, unit="image", show=process.is_main_process) as tracker,
    ):

        def encode(rows: np.ndarray) -> dict[str, torch.Tensor]:
            parts = []
            for start in range(0, len(rows), batch_size):
                some = rows[start : start + batch_size]
                images = torch.stack(each(pictures.draw, some.tolist()))
                seen = [images, images.flip(-1)] if mirrored else [images]
                parts.append(torch.stack([latents.encode(view) for view in seen], dim=1))
                finite = parts[-1].flatten(1).isfinite().all(1)
                if not finite.all():
                    worst = pictures.path(int(some[int((~finite).nonzero()[0])]))
                    raise InputError(
                        f"{worst}: the autoencoder overflows on this picture in "
                        f"{latents.vae.dtype}; train with base_precision: bf16 or fp32"
                    )
                tracker.advance(len(some))
            return {MOMENTS: torch.cat(parts)}

        shards.fill(keys, groups, encode, process)
    return CachedLatents(shards=shards, places=shards.find(keys), views=views)


def _groups(latents: Latents, pictures: Pictures, rows: np.ndarray, views: int) -> list[np.ndarray]:
    """The rows that go into a shard together: those of one bucket, about SHARD_BYTES of them."""
    groups = []
    sizes, buckets = pictures.buckets()
    for bucket, (width, height) in enumerate(sizes):
        some = rows[buckets[rows] == bucket]
        size = latents.nbytes(width, height) * views
        count = max(1, SHARD_BYTES // size)
        groups += np.split(some, range(count, len(some), count))
    return groups
