"""The base model as a method, and what the baselines that fine-tune it share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from baselines.families import model_of, read_run, under
from ric_diffusion.adapters import lora
from ric_diffusion.data.images import is_blank
from ric_diffusion.data.scoring import scores_of
from ric_diffusion.evaluation.method import weights_of
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.causal_lm.backend import LlmConfig
from ric_diffusion.models.diffusion.backend import DiffusionConfig
from ric_diffusion.models.family import family_of
from ric_diffusion.rewards import RewardSpace

Preference = Mapping[str, float]


class BaseModel:
    """The base model as it is; the preference is ignored. ``sampler`` is of either medium."""

    def __init__(self, sampler: Any) -> None:
        if model_of(sampler).adapter is not None:
            raise InputError("a baseline needs the base model alone; call unload_adapter first")
        self.sampler = sampler

    def draw(
        self, preference: Preference, prompts: Sequence[str], seeds: Sequence[int]
    ) -> list[Any]:
        samples: list[Any] = self.sampler.sample(prompts, [{}] * len(prompts), seeds)
        return samples

    def draw_under(
        self, weights: lora.Lora, prompts: Sequence[str], seeds: Sequence[int]
    ) -> list[Any]:
        """The same from the base model under a LoRA."""
        with under(model_of(self.sampler).family, self.sampler.network(), weights):
            return BaseModel.draw(self, {}, prompts, seeds)


class Tuned(BaseModel):
    """The base model under a LoRA; of several, each made for a preference, the nearest one.

    With a single file the preference is ignored. Distance is the sum of the absolute differences
    of the weights; of equally near ones the first is taken.
    """

    def __init__(
        self,
        sampler: Any,
        space: RewardSpace,
        files: Sequence[tuple[Preference, Path]],
    ) -> None:
        super().__init__(sampler)
        self.space = space
        self.made_for = np.array([weights_of(preference, space) for preference, _ in files])
        self.loras = [read_lora(sampler, file) for _, file in files]

    def draw(
        self, preference: Preference, prompts: Sequence[str], seeds: Sequence[int]
    ) -> list[Any]:
        return self.draw_under(self.loras[self._nearest(preference)], prompts, seeds)

    def _nearest(self, preference: Preference) -> int:
        if len(self.loras) == 1:
            return 0
        distances = np.abs(self.made_for - weights_of(preference, self.space)).sum(axis=1)
        return int(distances.argmin())


def read_lora(sampler: Any, file: Path) -> lora.Lora:
    """A run's LoRA; InputError if it is none, or was made for another architecture."""
    weights = read_run(model_of(sampler).family, file)
    lora.check_fit(sampler.network(), weights)
    return weights


def plain_backend(
    model: str,
    space: RewardSpace,
    config: DiffusionConfig | LlmConfig,
    *,
    seed: int,
    device: str | torch.device,
) -> Any:
    """A new LoRA on the base model, without any reward conditioning: a backend of either medium.

    It is our own backend in text mode with every reward always left out: the text is then the
    prompt alone, and everything else (layers, objective, captions, mirror images, prompt dropout)
    is what our method trains with.
    """
    config = replace(config, mode="text", dropout=replace(config.dropout, reward=1.0))
    return family_of(model).create_backend(model, space, config, seed=seed, device=device)


def z_of(
    samples: Sequence[Image.Image],
    prompts: Sequence[str],
    scorers: Sequence[Any],
    space: RewardSpace,
) -> np.ndarray:
    """(N, n) in z, of rewards that are compared within a prompt among these samples; a whole row is
    NaN if the picture is blank or a scorer has no number for it.

    Such a picture must never be chosen or learned from: a NaN that turned black is the most
    compressible picture there is.
    """
    z = space.normalize(scores_of(samples, prompts, scorers), prompts)
    blank = np.array([is_blank(sample) for sample in samples])
    z[blank | ~np.isfinite(z).all(axis=1)] = np.nan
    return z
