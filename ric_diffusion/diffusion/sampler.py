"""Sampling from a Stable Diffusion pipeline, and judging what it made: the sampler protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from ric_diffusion.conditioning.foils import kept
from ric_diffusion.data.images import is_blank, open_image, pixel_digest, save_png
from ric_diffusion.diffusion.latents import encode, framed
from ric_diffusion.diffusion.objective import squared_errors
from ric_diffusion.diffusion.pipeline import RiCStableDiffusionPipeline

GRID = 8  # cells to a side of the latents that diversity is measured on
LEVELS = (0.3, 0.5, 0.7, 0.9)  # of the noise schedule, where prompts are told apart
JUDGED_AT_ONCE = 32


class DiffusionSampler:
    """A pipeline, with an adapter or without, behind the sampler protocol."""

    suffix = ".png"

    def __init__(
        self, pipe: RiCStableDiffusionPipeline, sampling: Mapping[str, Any] | None = None
    ) -> None:
        """``sampling``: arguments of every call, by default what the adapter was validated with."""
        self.pipe = pipe
        if sampling is None:
            sampling = pipe.adapter.sampling if pipe.adapter else {}
        self.sampling: Mapping[str, Any] = sampling

    @torch.no_grad()
    def sample(
        self,
        prompts: Sequence[str],
        targets: Sequence[Mapping[str, float]],
        seeds: Sequence[int],
    ) -> list[Image.Image]:
        """One picture per prompt, each from its own seed."""
        self.pipe.unet.eval()
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        wanted = list(targets) if self.pipe.adapter is not None or any(targets) else None
        output = self.pipe(list(prompts), targets=wanted, generator=generators, **self.sampling)
        return list(output.images)

    def write(self, sample: Image.Image, path: Path) -> None:
        save_png(path, sample)

    def read(self, path: Path) -> Image.Image:
        return open_image(path)

    def fault(self, sample: Image.Image) -> str | None:
        """A NaN picture turns black in the pipeline, so it is found as blank too."""
        return "blank" if is_blank(sample) else None

    def digest(self, sample: Image.Image) -> str:
        return pixel_digest(sample)

    def watched(self) -> torch.nn.Module:
        return self.pipe.unet

    def features(self, samples: Sequence[Image.Image]) -> np.ndarray:
        """The autoencoder's latents on a coarse grid: what is where, in which colour."""
        parts = [
            F.adaptive_avg_pool2d(latents, GRID).flatten(1) for latents in self._latents(samples)
        ]
        features: np.ndarray = F.normalize(torch.cat(parts), dim=1).cpu().numpy()
        return features

    @torch.no_grad()
    def prompt_kept(self, prompts: Sequence[str], samples: Sequence[Image.Image]) -> np.ndarray:
        """The diffusion classifier (Li et al. 2023, arXiv 2303.16203, eq. 6) of the model without
        its adapter, between a picture's prompt and some of the others."""
        self.pipe.unet.eval()
        with self.pipe.without_adapter():
            return kept(prompts, lambda given: self._errors(given, samples))

    def _errors(self, prompts: Sequence[str], samples: Sequence[Image.Image]) -> np.ndarray:
        """(N,) denoising error of each picture under its prompt, by the same noise for all."""
        pipe, found = self.pipe, []
        steps = pipe.scheduler.config.num_train_timesteps
        for i, latents in enumerate(self._latents(samples)):
            part = list(prompts[i * JUDGED_AT_ONCE : (i + 1) * JUDGED_AT_ONCE])
            context, _ = pipe.encode_prompt(part, pipe.device, 1, False)
            generator = torch.Generator().manual_seed(i)
            error = torch.zeros(len(part), device=latents.device)
            for level in LEVELS:
                noise = torch.randn(latents.shape, generator=generator).to(latents)
                t = torch.full((len(part),), int(level * steps), device=latents.device)
                error += squared_errors(pipe.unet, pipe.scheduler, latents, context, noise, t)
            found.append(error.cpu().numpy())
        return np.concatenate(found)

    def _latents(self, samples: Sequence[Image.Image]) -> list[torch.Tensor]:
        """Posterior means, (B, C, h, w) each, scaled as the U-Net takes them, on its device."""
        vae, found = self.pipe.vae, []
        for i in range(0, len(samples), JUDGED_AT_ONCE):
            part = [s.convert("RGB") for s in samples[i : i + JUDGED_AT_ONCE]]
            images = torch.stack([framed(image, min(image.size)) for image in part])
            found.append(encode(vae, images)[:, 0].to(self.pipe.unet.device, self.pipe.unet.dtype))
        return found
