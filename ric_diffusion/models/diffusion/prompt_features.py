"""What a model expects of a prompt before it draws: the features that calibration knows it by.

A text encoder's states say what a prompt is about; what a picture of it will look like, the
denoiser knows. Seeing nothing but noise it predicts the mean of all pictures of the prompt, in one
pass, and the mean and deviation of each channel of that go with how colourful, bright or busy they
come out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ric_diffusion.models.diffusion.context import Context

LEVEL = 0.999  # of the noise: all but the last of it, since signal is divided by
NOISES = 2  # to be told apart from what the prompt says; as many rows as guidance takes


def feature_count(pipe: Any) -> int:
    """How many features a prompt has."""
    return 2 * int(pipe.vae.config.latent_channels)


def has_features(pipe: Any) -> bool:
    """Whether the denoiser reads noisy latents and a context alone. One for inpainting reads a
    picture and its mask beside them, and expects nothing without."""
    return bool(pipe.family.channels(pipe.denoiser) == pipe.vae.config.latent_channels)


def features_of(pipe: Any, contexts: Sequence[Context]) -> np.ndarray:
    """B contexts of one row each with their reward tokens -> (B, 2C) float32: mean and deviation
    over the picture of each channel of the latents that the denoiser expects, at the size that the
    adapter draws.

    One context at a time, and each made alone: what comes depends on its batch by a rounding error,
    and whoever draws the prompt alone must get the same. To be called inside
    ``pipe.with_adapter()``.
    """
    family, device = pipe.family, pipe._execution_device
    sides = family.sample_size(pipe, pipe.adapter.sampling)
    width, height = (side // pipe.vae_scale_factor for side in sides)
    shape = NOISES, feature_count(pipe) // 2, height, width
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    objective = family.objective(pipe)
    t = objective.at(LEVEL, NOISES, device)
    dtype = pipe.denoiser.dtype  # contexts that a user gives may be in another
    found = []
    for context in contexts:
        context = context.map(lambda x: x.to(dtype) if x.is_floating_point() else x)
        predict = family.predictor(pipe, context.repeated(NOISES))
        expected = objective.expected(predict, noise, t).flatten(2)
        each = torch.cat([expected.mean(dim=2), expected.std(dim=2)], dim=1)
        found.append(each.mean(dim=0).cpu())
    features: np.ndarray = torch.stack(found).numpy()
    return features
