"""Latents: what the autoencoder makes of pictures, scaled as the denoiser takes them, and the cache
of them: every picture goes through the frozen autoencoder once, not once an epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from ric_diffusion.data.framing import Framing
from ric_diffusion.data.images import open_image
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import replacing
from ric_diffusion.io.progress import tracking
from ric_diffusion.models.protocol import weights_digest

PIXELS_AT_ONCE = 2**18  # an autoencoder takes some kilobytes for each


def to_pixels(images: torch.Tensor) -> torch.Tensor:
    """(N, 3, H, W) uint8 -> float in [-1, 1], as autoencoders take them."""
    return images.float().div_(127.5).sub_(1.0)


def framed(image: Image.Image, size: int, framing: Framing | None = None) -> torch.Tensor:
    """RGB picture -> (3, size, size) uint8: the middle square of its frame."""
    frame = (framing or Framing()).frame(image.size, resolution=size, step=size)
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
        dtype, upcast = self.vae.dtype, getattr(self.vae.config, "force_upcast", False)
        # Module's own `to`: that of diffusers warns of parts to be kept in float32 that are not.
        to = partial(torch.nn.Module.to, self.vae)
        to(torch.float32 if upcast and dtype == torch.float16 else dtype)
        try:
            return torch.cat([self._moments(part) for part in images.split(count)])
        finally:
            to(dtype)

    def _moments(self, images: torch.Tensor) -> torch.Tensor:
        pixels = to_pixels(images).to(self.vae.device, self.vae.dtype)
        posterior = self.vae.encode(pixels).latent_dist
        mean, std = posterior.mean.float(), posterior.std.float()
        return torch.stack([(mean - self.shift) * self.scale, std * self.scale], dim=1).cpu()


def cached_latents(
    latents: Latents,
    paths: Sequence[Path],
    size: int,
    cache: Path,
    *,
    mirrored: bool,
    framing: Framing | None = None,
    batch_size: int = 32,
) -> torch.Tensor:
    """Posterior moments of every picture in its frame, by default the middle square:
    (N, M, 2, C, h, w), M = 2 with mirror images else 1.

    Read from ``cache`` if the same pictures were encoded there by the same autoencoder. It holds
    one file a run can lose without harm, written whole or not at all. InputError, by its name, for
    a picture that the autoencoder makes no numbers of.
    """
    begin = f"{weights_digest(latents.vae)} {latents.scale} {latents.shift} {size} {mirrored}"
    sha = hashlib.sha256(f"{begin} {framing or Framing()}".encode())
    for path in paths:
        sha.update(hashlib.sha256(path.read_bytes()).digest())
    file = cache / f"latents-{sha.hexdigest()[:16]}.safetensors"
    if not file.exists():
        parts = []
        with tracking("latents", len(paths), unit="image") as tracker:
            for start in range(0, len(paths), batch_size):
                some = paths[start : start + batch_size]
                images = torch.stack([framed(open_image(path), size, framing) for path in some])
                views = [images, images.flip(-1)] if mirrored else [images]
                parts.append(torch.stack([latents.encode(view) for view in views], dim=1))
                finite = parts[-1].flatten(1).isfinite().all(1)
                if not finite.all():
                    raise InputError(
                        f"{some[int((~finite).nonzero()[0])]}: the autoencoder overflows on this "
                        f"picture in {latents.vae.dtype}; train with base_precision: bf16 or fp32"
                    )
                tracker.advance(len(images))
        with replacing(file) as temporary:
            save_file({"moments": torch.cat(parts)}, temporary)
    return load_file(file)["moments"]
