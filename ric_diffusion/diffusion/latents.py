"""Latents cache: every picture goes through the frozen autoencoder once, not once an epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image, ImageOps
from safetensors.torch import load_file, save_file
from tqdm.auto import tqdm

from ric_diffusion.backend import weights_digest
from ric_diffusion.data.images import open_image
from ric_diffusion.diffusion.autoencoder import to_pixels
from ric_diffusion.files import replacing


def framed(image: Image.Image, size: int) -> torch.Tensor:
    """RGB picture -> (3, size, size) uint8: scaled to cover the square, then centre-cropped."""
    if image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def base_digests(pipe: Any) -> list[str]:
    """One digest for each part of a pipeline's model that has weights, to tell runs apart."""
    return [weights_digest(part) for part in (pipe.vae, pipe.text_encoder, pipe.unet)]


@torch.no_grad()
def encode(vae: AutoencoderKL, images: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) uint8 -> (B, 2, C, h, w): mean and standard deviation of the posterior,
    scaled as the U-Net takes them, on the CPU."""
    posterior = vae.encode(to_pixels(images).to(vae.device, vae.dtype)).latent_dist
    moments = torch.stack([posterior.mean, posterior.std], dim=1).float()
    return (moments * vae.config.scaling_factor).cpu()


def cached_latents(
    vae: AutoencoderKL,
    paths: Sequence[Path],
    size: int,
    cache: Path,
    *,
    mirrored: bool,
    batch_size: int = 32,
) -> torch.Tensor:
    """Posterior moments of every picture, (N, M, 2, C, h, w), M = 2 with mirror images else 1.

    Read from ``cache`` if the same pictures were encoded there by the same autoencoder. It holds
    one file a run can lose without harm, written whole or not at all.
    """
    scale = vae.config.scaling_factor
    sha = hashlib.sha256(f"{weights_digest(vae)} {scale} {size} {mirrored}".encode())
    for path in paths:
        sha.update(hashlib.sha256(path.read_bytes()).digest())
    file = cache / f"latents-{sha.hexdigest()[:16]}.safetensors"
    if not file.exists():
        parts = []
        bar = tqdm(total=len(paths), desc="latents", unit="image")
        for start in range(0, len(paths), batch_size):
            images = torch.stack([framed(open_image(p), size) for p in paths[start:][:batch_size]])
            views = [images, images.flip(-1)] if mirrored else [images]
            parts.append(torch.stack([encode(vae, view) for view in views], dim=1))
            bar.update(len(images))
        bar.close()
        with replacing(file) as temporary:
            save_file({"moments": torch.cat(parts)}, temporary)
    return load_file(file)["moments"]
