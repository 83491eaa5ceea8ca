"""Sampling from a pipeline with rewards, and judging what it made: the sampler protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from ric_diffusion.data.images import is_not_finite, not_finite
from ric_diffusion.data.medium import IMAGE, Medium
from ric_diffusion.io.errors import not_finite_error
from ric_diffusion.models.diffusion.latents import framed
from ric_diffusion.models.diffusion.objective import Objective
from ric_diffusion.models.judge import prompt_r_precision
from scorers.hardware import in_parts

GRID = 8  # cells to a side of the latents that diversity is measured on
LEVELS = (0.3, 0.5, 0.7, 0.9)  # of the noise schedule, where prompts are told apart
JUDGE_BATCH = 32
IN_A_ROW = 8  # pictures that are not finite, and the model is broken


def pictures_of(output: Any) -> list[Image.Image]:
    """The pictures of a pipeline's output, black where its safety checker flagged one, as it is
    after diffusers' own: so they are rejected as blank, whatever a checker puts in their place.
    Where one is not finite is what the medium rejects for that."""
    flags = getattr(output, "nsfw_content_detected", None) or [False] * len(output.images)
    shown = [
        Image.new("RGB", image.size) if flagged else image
        for image, flagged in zip(output.images, flags, strict=True)
    ]
    return [
        image if finite else not_finite(image.size)
        for image, finite in zip(shown, output.finite, strict=True)
    ]


class DiffusionSampler:
    """A pipeline, with an adapter or without, behind the sampler protocol."""

    medium: Medium = IMAGE

    def __init__(self, pipe: Any, sampling: Mapping[str, Any] | None = None) -> None:
        """``pipe``: one of ours; ``sampling``: arguments of every call, by default what the adapter
        was validated with."""
        self.pipe = pipe
        if sampling is None:
            sampling = pipe.adapter.sampling if pipe.adapter else {}
        self.sampling: Mapping[str, Any] = sampling
        self._in_a_row = 0  # of the latest pictures those that are not finite

    @torch.no_grad()
    def sample(
        self,
        prompts: Sequence[str],
        targets: Sequence[Mapping[str, float]],
        seeds: Sequence[int],
    ) -> list[Image.Image]:
        """One picture per prompt, each from its own seed; see ``pictures_of``. All at once, or as
        many as fit into the device's memory. FloatingPointError once the last IN_A_ROW pictures,
        over all calls, are not finite."""
        self.network().eval()
        rewards = self.pipe.adapter is not None or any(targets)

        def draw(rows: range) -> list[Image.Image]:
            # What is not finite is told by us; numpy warns as it is cast to 8 bits.
            with np.errstate(invalid="ignore"):
                output = self.pipe(
                    [prompts[i] for i in rows],
                    targets=[targets[i] for i in rows] if rewards else None,
                    generator=[torch.Generator().manual_seed(seeds[i]) for i in rows],
                    **self.sampling,
                )
            return pictures_of(output)

        count = len(prompts)
        found = [image for part in in_parts(draw, range(count), count) for image in part]
        self._check_some_finite(found)
        return found

    def _check_some_finite(self, pictures: Sequence[Image.Image]) -> None:
        for picture in pictures:
            self._in_a_row = self._in_a_row + 1 if is_not_finite(picture) else 0
        if self._in_a_row >= IN_A_ROW:
            raise not_finite_error(f"the last {self._in_a_row} pictures")

    def network(self) -> torch.nn.Module:
        network: torch.nn.Module = self.pipe.denoiser
        return network

    def features(self, samples: Sequence[Image.Image]) -> np.ndarray:
        """The autoencoder's latents on a coarse grid: what is where, in which colour."""
        parts = [
            F.adaptive_avg_pool2d(latents, GRID).flatten(1) for latents in self._latents(samples)
        ]
        features: np.ndarray = F.normalize(torch.cat(parts), dim=1).cpu().numpy()
        return features

    @torch.no_grad()
    def prompt_r_precision(
        self, prompts: Sequence[str], samples: Sequence[Image.Image]
    ) -> np.ndarray:
        """The diffusion classifier (Li et al. 2023, arXiv 2303.16203, eq. 6) of the model without
        its adapter, between a picture's prompt and some of the others."""
        self.network().eval()
        with self.pipe.without_adapter():
            return prompt_r_precision(prompts, lambda given: self._errors(given, samples))

    def _errors(self, prompts: Sequence[str], samples: Sequence[Image.Image]) -> np.ndarray:
        """(N,) denoising error of each picture under its prompt, by the same noise for all."""
        pipe, family, found = self.pipe, self.pipe.family, []
        objective = family.objective(pipe)
        for i, latents in enumerate(self._latents(samples)):
            part = list(prompts[i * JUDGE_BATCH : (i + 1) * JUDGE_BATCH])
            generator = torch.Generator().manual_seed(i)
            noises = [torch.randn(latents.shape, generator=generator).to(latents) for _ in LEVELS]

            errors = partial(self._errors_of, objective, part, latents, noises)
            found += in_parts(errors, range(len(part)), len(part))
        each: np.ndarray = torch.cat(found).numpy()
        return each

    def _errors_of(
        self,
        objective: Objective,
        prompts: Sequence[str],
        latents: torch.Tensor,
        noises: Sequence[torch.Tensor],
        rows: range,
    ) -> torch.Tensor:
        """The errors of these rows, (B,), over all levels, by the noise of each."""
        pipe, family, some = self.pipe, self.pipe.family, slice(rows.start, rows.stop)
        context = family.encode(pipe, [list(prompts[some])] * len(family.prompts))
        predict = family.predictor(pipe, context)
        error = torch.zeros(len(rows), device=latents.device)
        for level, noise in zip(LEVELS, noises, strict=True):
            t = objective.at(level, len(rows), latents.device)
            error += objective.errors(predict, latents[some], noise[some], t)
        return error.cpu()

    def _latents(self, samples: Sequence[Image.Image]) -> list[torch.Tensor]:
        """Posterior means, (B, C, h, w) each, scaled as the denoiser takes them, where it is; in
        float32."""
        latents, found = self.pipe.family.latents(self.pipe), []
        device = self.pipe.denoiser.device
        for i in range(0, len(samples), JUDGE_BATCH):
            part = [s.convert("RGB") for s in samples[i : i + JUDGE_BATCH]]
            images = torch.stack([framed(image, min(image.size)) for image in part])
            found.append(latents.encode(images)[:, 0].to(device))
        return found
