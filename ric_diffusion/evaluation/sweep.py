"""Sweeps: the same prompts and seeds while the sliders move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ric_diffusion.backend import Sampler
from ric_diffusion.errors import InputError
from ric_diffusion.evaluation.scoring import scores_of
from ric_diffusion.rewards import Curve, RewardSpace


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Samples and scores on a grid of P points x Q prompts x S seeds.

    ``targets``: one dict in z per point. ``samples``: lists P x Q x S. ``scores`` and ``z``:
    (P, Q, S, n), raw and in standard units.
    """

    targets: list[dict[str, float]]
    prompts: list[str]
    seeds: list[int]
    samples: list[list[list[Any]]]
    scores: np.ndarray
    z: np.ndarray


def preference_line(names: Sequence[str], points: int) -> list[dict[str, float]]:
    """``points`` preferences from all weight on the first reward to all on the last.

    With more than two rewards the line goes through all of them in order, corner to corner.
    """
    if points < 2:
        raise InputError(f"points {points}: a sweep needs at least 2")
    if len(names) < 2:
        raise InputError(f"a preference sweep needs two rewards, {list(names)} given")
    corners = np.eye(len(names))
    where = np.linspace(0, len(names) - 1, points)
    weights = np.array([np.interp(where, range(len(names)), column) for column in corners.T]).T
    return [dict(zip(names, row, strict=True)) for row in weights.tolist()]


def target_line(
    space: RewardSpace, name: str, points: int, curve: Curve | None = None
) -> list[dict[str, float]]:
    """``points`` targets of one reward from its 5th to its 95th percentile, others on auto; with
    the reward's calibration ``curve``, over as much of that as can be had."""
    if points < 2:
        raise InputError(f"points {points}: a sweep needs at least 2")
    low, high = space.quantile(name, 0.05), space.quantile(name, 0.95)
    if curve is not None:
        low, high = curve.clamp(low), curve.clamp(high)
    return [{name: value} for value in np.linspace(low, high, points).tolist()]


def run_sweep(
    sampler: Sampler,
    space: RewardSpace,
    targets: Sequence[Mapping[str, float]],
    prompts: Sequence[str],
    seeds: Sequence[int],
    scorers: Sequence[Any],
    *,
    batch_size: int = 32,
    label: str = "sweep",
) -> Sweep:
    """Sample every point for every prompt and seed, and score the finished samples."""
    cells = [
        (dict(target), prompt, seed) for target in targets for prompt in prompts for seed in seeds
    ]
    samples: list[Any] = []
    with tqdm(total=len(cells), desc=label, unit="sample") as bar:
        for start in range(0, len(cells), batch_size):
            some = cells[start : start + batch_size]
            wanted, texts, numbers = zip(*some, strict=True)
            samples += sampler.sample(texts, wanted, numbers)
            bar.update(len(some))
    scores = scores_of(samples, [prompt for _, prompt, _ in cells], scorers)
    shape = (len(targets), len(prompts), len(seeds))
    grid = np.arange(len(cells)).reshape(shape)
    return Sweep(
        targets=[dict(t) for t in targets],
        prompts=list(prompts),
        seeds=list(seeds),
        samples=[[[samples[i] for i in row] for row in plane] for plane in grid.tolist()],
        scores=scores.reshape(*shape, -1),
        z=space.normalize(scores).reshape(*shape, -1),
    )
