"""Methods: whatever answers a preference with samples, and the sweep that compares them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any, Protocol

import numpy as np
from tqdm.auto import tqdm

from ric_diffusion.backend import Sampler
from ric_diffusion.evaluation.scoring import scores_of
from ric_diffusion.rewards import RewardSpace, to_targets


class Method(Protocol):
    """One way to give a user who weighs rewards against each other what they want."""

    name: str

    def draw(
        self, preference: Mapping[str, float], prompts: Sequence[str], seeds: Sequence[int]
    ) -> list[Any]:
        """One sample per prompt, each from its own seed, all for the same preference."""


class RewardsInContext:
    """Ours: the preference becomes targets, and the model reads them."""

    def __init__(
        self, sampler: Sampler, space: RewardSpace, mapping: str, *, name: str = "ric"
    ) -> None:
        self.sampler, self.space, self.mapping, self.name = sampler, space, mapping, name

    def draw(
        self, preference: Mapping[str, float], prompts: Sequence[str], seeds: Sequence[int]
    ) -> list[Any]:
        targets = to_targets(preference, self.space, self.mapping)
        return self.sampler.sample(prompts, [targets] * len(prompts), seeds)


def weights_of(preference: Mapping[str, float], space: RewardSpace) -> np.ndarray:
    """The weights (n,) in the order of the space, sum 1; InputError if the preference is none."""
    given = space.check_preference(preference)
    weights = np.array([given.get(name, 0.0) for name in space.names])
    weights /= weights.max()  # first, since the sum of huge weights overflows
    return weights / weights.sum()


def by_preference(
    method: Method,
) -> Callable[[Sequence[Any], Sequence[str], Sequence[int]], list[Any]]:
    """Draw from a method that is asked for a point's preference: the ``draw`` of an evaluation's
    subject, whose points have one each. Neighbours with one preference are drawn together."""

    def draw(points: Sequence[Any], prompts: Sequence[str], seeds: Sequence[int]) -> list[Any]:
        samples: list[Any] = []
        for preference, group in groupby(point.preference for point in points):
            some = slice(len(samples), len(samples) + len(list(group)))
            samples += method.draw(preference, prompts[some], seeds[some])
        return samples

    return draw


def sweep(
    method: Method,
    space: RewardSpace,
    preferences: Sequence[Mapping[str, float]],
    prompts: Sequence[str],
    seeds: Sequence[int],
    scorers: Sequence[Any],
    *,
    batch_size: int = 32,
) -> np.ndarray:
    """z obtained for P preferences x Q prompts x S seeds and the n rewards: (P, Q, S, n).

    Every sample counts as it is scored; ``evaluate`` with ``by_preference`` also looks for faults,
    keeps the samples and resumes.
    """
    cells = [(prompt, seed) for prompt in prompts for seed in seeds]
    texts, numbers = zip(*cells, strict=True)
    scores = []
    with tqdm(total=len(preferences) * len(cells), desc=method.name, unit="sample") as bar:
        for preference in preferences:
            samples: list[Any] = []
            for start in range(0, len(cells), batch_size):
                some = slice(start, start + batch_size)
                samples += method.draw(preference, texts[some], numbers[some])
                bar.update(len(texts[some]))
            scores.append(scores_of(samples, texts, scorers))
    z = space.normalize(np.concatenate(scores))
    return z.reshape(len(preferences), len(prompts), len(seeds), -1)
