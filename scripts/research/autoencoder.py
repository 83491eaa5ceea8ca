"""Training an AutoencoderKL from scratch: the first half of a base model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from ric_diffusion.io.files import replacing_folder
from ric_diffusion.models.diffusion.latents import to_pixels
from ric_diffusion.models.protocol import Batch


def gradient_l1(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Mean |difference| of horizontal and vertical image gradients of (N, C, H, W): keeps edges."""
    d = x - y
    return d.diff(dim=-1).abs().mean() + d.diff(dim=-2).abs().mean()


def augmented(images: torch.Tensor, generator: torch.Generator, shift: int = 3) -> torch.Tensor:
    """Mirror, move by up to ``shift`` pixels and, for one in four, swap the colour channels.

    ``images`` (N, 3, H, W) uint8; the gap a move leaves is white, as every background is.
    """
    n, channels, height, width = images.shape
    padded = F.pad(images, (shift,) * 4, value=255)
    mirror, down, right, swap = torch.rand(n, 4, generator=generator).double().unbind(1)
    colours = torch.arange(channels).repeat(n, 1)
    for i in (swap < 0.25).nonzero().flatten().tolist():
        colours[i] = torch.randperm(channels, generator=generator)
    columns = torch.arange(width).repeat(n, 1)
    columns = torch.where(mirror[:, None] < 0.5, columns.flip(1), columns)
    columns += (right * (2 * shift + 1)).long()[:, None]
    rows = torch.arange(height) + (down * (2 * shift + 1)).long()[:, None]
    # One gather: on a GPU a copy for each picture would take longer than the network.
    each, colours, rows, columns = (
        index.to(images.device)
        for index in (
            torch.arange(n)[:, None, None, None],
            colours[:, :, None, None],
            rows[:, None, :, None],
            columns[:, None, None, :],
        )
    )
    return padded[each, colours, rows, columns]


class AutoencoderTrainer:
    """L1 + L2 + gradient L1 + KL on augmented pictures; a backend for the training loop."""

    buckets = None

    def __init__(
        self, settings: Mapping[str, Any], images: torch.Tensor, kl_weight: float = 5e-4
    ) -> None:
        """``settings`` are AutoencoderKL's; ``images`` (N, 3, H, W) uint8, on the device to train
        on."""
        vae = AutoencoderKL(**settings)
        self.vae = vae.to(images.device, memory_format=torch.channels_last).train()
        self.images = images
        self.kl_weight = kl_weight

    def named_parameters(self) -> Mapping[str, torch.nn.Parameter]:
        return dict(self.vae.named_parameters())

    def loss(self, batch: Batch) -> torch.Tensor:
        images = augmented(self.images[list(batch.indices)], batch.generator)
        x = to_pixels(images).contiguous(memory_format=torch.channels_last)
        posterior = self.vae.encode(x).latent_dist
        y = self.vae.decode(posterior.sample(generator=batch.generator)).sample.float()
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        pixel = F.l1_loss(y, x) + F.mse_loss(y, x)
        return pixel + 0.5 * gradient_l1(y, x) + self.kl_weight * kl

    def save(self, folder: Path) -> None:
        with replacing_folder(folder) as temporary:
            self.vae.save_pretrained(temporary, safe_serialization=True)

    def load(self, folder: Path) -> None:
        stored = AutoencoderKL.from_pretrained(folder, use_safetensors=True)
        self.vae.load_state_dict(stored.state_dict())


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, images: torch.Tensor, batch_size: int = 32) -> torch.Tensor:
    """(N, 3, H, W) uint8 -> the same through the posterior mean, uint8."""
    out = []
    for part in images.split(batch_size):
        y = vae.decode(vae.encode(to_pixels(part).to(vae.dtype)).latent_dist.mode()).sample
        out.append(y.add(1.0).mul(127.5).round().clamp(0, 255).to(torch.uint8))
    return torch.cat(out)


def psnr(images: torch.Tensor, others: torch.Tensor) -> float:
    """Mean over pictures of 10 log10(255^2 / MSE), in dB; both (N, 3, H, W) uint8."""
    mse = (images.float() - others.float()).square().flatten(1).mean(1).clamp_min(1e-4)
    return float((10 * torch.log10(255.0**2 / mse)).mean())
