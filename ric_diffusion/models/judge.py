"""What samples are judged by beside their rewards: prompt R-precision and diversity."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

DISTRACTORS = 3  # other prompts that a sample's own has to beat


def prompt_r_precision(
    prompts: Sequence[str], errors: Callable[[list[str]], np.ndarray]
) -> np.ndarray:
    """How often a sample's own prompt explains it better than a distractor, (N,) in [0, 1].

    ``errors``: a prompt for each of the N samples -> how badly it explains that sample, (N,). The
    distractors of a prompt are the next DISTRACTORS of the others; with a single prompt, the empty
    one.
    """
    distinct = list(dict.fromkeys(prompts))
    number = {prompt: i for i, prompt in enumerate(distinct)}
    distractors = [
        distinct[s:] + distinct[:s] for s in range(1, min(DISTRACTORS, len(distinct) - 1) + 1)
    ]
    others = [[f[number[p]] for p in prompts] for f in distractors] or [[""] * len(prompts)]
    own = errors(list(prompts))
    share: np.ndarray = np.mean([own < errors(other) for other in others], axis=0)
    return share


def diversity(features: np.ndarray) -> float:
    """Mean cosine distance between samples of one prompt, features (S, D) of unit length; NaN for a
    single sample. The mean over pairs comes from the length of the sum."""
    count = len(features)
    if count < 2:
        return math.nan
    pairs = (np.square(features.sum(axis=0)).sum() - count) / (count * (count - 1))
    return float(1 - pairs)
