"""Methods: whatever answers a preference with samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any, Protocol

import numpy as np

from ric_diffusion.rewards import RewardSpace


class Method(Protocol):
    """One way to give a user who weighs rewards against each other what they want."""

    name: str

    def draw(
        self, preference: Mapping[str, float], prompts: Sequence[str], seeds: Sequence[int]
    ) -> list[Any]:
        """One sample per prompt, each from its own seed, all for the same preference."""


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
