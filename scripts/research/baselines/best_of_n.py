"""Best of n: draw several samples for every prompt and keep the one the preference likes best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from baselines.base import Preference, z_of
from ric_diffusion.evaluation.method import PreferenceSampler, weights_of
from ric_diffusion.io.errors import InputError
from ric_diffusion.rewards import RewardSpace


class BestOfN:
    """``n`` samples of the base model for every prompt and seed, chosen by weighted z.

    Drawing costs ``n`` times the forwards of the base model and ``n`` calls of every scorer for
    each sample: give ``scorers`` that a meter counts. The first of the ``n`` is the base model's
    own sample from that seed.
    """

    def __init__(
        self, base: PreferenceSampler, space: RewardSpace, scorers: Sequence[Any], n: int
    ) -> None:
        if n < 1:
            raise InputError(f"n {n}: best of n needs 1 sample or more")
        self.base, self.space, self.scorers, self.n = base, space, scorers, n

    def draw(
        self, preference: Preference, prompts: Sequence[str], seeds: Sequence[int]
    ) -> list[Image.Image]:
        weights = weights_of(preference, self.space)
        tries = [
            self.base.draw(preference, prompts, [nth_seed(seed, i) for seed in seeds])
            for i in range(self.n)
        ]
        # All tries together: a reward may be compared within a prompt.
        drawn = [sample for samples in tries for sample in samples]
        z = z_of(drawn, [*prompts] * self.n, self.scorers, self.space)
        values = (z @ weights).reshape(self.n, -1)
        best = np.nan_to_num(values, nan=-np.inf).argmax(axis=0)  # the first of equals
        return [tries[i][column] for column, i in enumerate(best.tolist())]


def nth_seed(seed: int, i: int) -> int:
    """The seed of the i-th sample for ``seed``, which is the 0th's own."""
    if i == 0:
        return seed
    return int(np.random.SeedSequence([seed, i]).generate_state(1, np.uint64)[0]) & (2**63 - 1)
