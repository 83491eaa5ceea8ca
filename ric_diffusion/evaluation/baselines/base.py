"""The base model as a method, and what the baselines that fine-tune it share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from ric_diffusion.conditioning import lora
from ric_diffusion.data.images import is_blank
from ric_diffusion.diffusion import lora_file
from ric_diffusion.diffusion.backend import DiffusionBackend, DiffusionConfig
from ric_diffusion.diffusion.pipeline import RiCStableDiffusionPipeline
from ric_diffusion.diffusion.sampler import DiffusionSampler
from ric_diffusion.errors import InputError
from ric_diffusion.evaluation.methods import weights_of
from ric_diffusion.evaluation.scoring import scores_of
from ric_diffusion.files import replacing
from ric_diffusion.rewards import RewardSpace

Preference = Mapping[str, float]


def load_base(model: str, device: str | torch.device = "cpu") -> RiCStableDiffusionPipeline:
    """The pipeline of a bundled name, folder or hub id, without any adapter."""
    pipe = RiCStableDiffusionPipeline.from_pretrained(model)
    pipe.unload_adapter()
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


class BaseModel:
    """The base model as it is; the preference is ignored.

    ``sampling`` holds pipeline arguments, such as guidance_scale and num_inference_steps.
    """

    name = "base"

    def __init__(self, pipe: RiCStableDiffusionPipeline, sampling: Mapping[str, Any]) -> None:
        if pipe.adapter is not None:
            raise InputError("a baseline needs the base model alone; call unload_adapter first")
        self.pipe = pipe
        self.sampler = DiffusionSampler(pipe, sampling)

    def draw(
        self, preference: Preference, prompts: Sequence[str], seeds: Sequence[int]
    ) -> list[Image.Image]:
        return self.sampler.sample(prompts, [{}] * len(prompts), seeds)


class Tuned(BaseModel):
    """The base model under a LoRA; of several, each made for a preference, the nearest one.

    With a single file the preference is ignored. Distance is the sum of the absolute differences
    of the weights; of equally near ones the first is taken.
    """

    def __init__(
        self,
        name: str,
        pipe: RiCStableDiffusionPipeline,
        sampling: Mapping[str, Any],
        space: RewardSpace,
        files: Sequence[tuple[Preference, Path]],
    ) -> None:
        super().__init__(pipe, sampling)
        self.name, self.space = name, space
        self.made_for = np.array([weights_of(preference, space) for preference, _ in files])
        self.loras = [read_lora(pipe, file) for _, file in files]

    def draw(
        self, preference: Preference, prompts: Sequence[str], seeds: Sequence[int]
    ) -> list[Image.Image]:
        with merged(self.pipe.unet, self.loras[self._nearest(preference)]):
            return super().draw(preference, prompts, seeds)

    def _nearest(self, preference: Preference) -> int:
        if len(self.loras) == 1:
            return 0
        distances = np.abs(self.made_for - weights_of(preference, self.space)).sum(axis=1)
        return int(distances.argmin())


def read_lora(pipe: RiCStableDiffusionPipeline, file: Path) -> lora.Lora:
    """A LoRA file; InputError if it is none, or was made for another architecture."""
    weights = lora_file.read(file)
    lora.check_fit(pipe.unet, weights)
    return weights


@contextmanager
def merged(unet: torch.nn.Module, weights: lora.Lora) -> Iterator[None]:
    """The LoRA is part of the U-Net's weights inside the block; outside they are as before."""
    originals = lora.merge(unet, weights)
    try:
        yield
    finally:
        lora.restore(unet, weights, originals)


def save_lora(unet: torch.nn.Module, file: Path) -> None:
    """Write the LoRA in training as a plain diffusers file, in one move."""
    weights = lora.trained(unet)
    with replacing(file) as temporary:
        StableDiffusionPipeline.save_lora_weights(
            temporary.parent,
            unet_lora_layers={key: value.contiguous() for key, value in weights.tensors.items()},
            unet_lora_adapter_metadata=dict(weights.config),
            weight_name=temporary.name,
        )


def plain_backend(
    model: str,
    space: RewardSpace,
    config: DiffusionConfig,
    *,
    seed: int,
    device: str | torch.device,
) -> DiffusionBackend:
    """A fresh LoRA on the base model, without any reward conditioning.

    It is our own backend in text mode with every reward always left out: the text is then the
    prompt alone, and everything else (layers, objective, captions, mirror images, prompt dropout)
    is what our method trains with.
    """
    config = replace(config, mode="text", dropout=replace(config.dropout, reward=1.0))
    return DiffusionBackend.create(model, space, config, seed=seed, device=device)


def z_of(
    samples: Sequence[Image.Image],
    prompts: Sequence[str],
    scorers: Sequence[Any],
    space: RewardSpace,
) -> np.ndarray:
    """(N, n) in z; a whole row is NaN if the picture is blank or a scorer has no number for it.

    Such a picture must never be chosen or learned from: a NaN that turned black is the most
    compressible picture there is.
    """
    z = space.normalize(scores_of(samples, prompts, scorers))
    blank = np.array([is_blank(sample) for sample in samples])
    z[blank | ~np.isfinite(z).all(axis=1)] = np.nan
    return z
