"""What all methods of a report share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ric_diffusion.evaluation.grid import Grid, Point
from ric_diffusion.rewards import RewardSpace


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What every method of a report is drawn on and scored by.

    Attributes:
        space: the n rewards, in whose z everything is measured.
        prompts: Q of them.
        seeds: the S seeds of the first prompt; ``seed`` has those of the others.
        scorers: one for each reward of ``space``.
        held_out: h more, which no method was trained on.
        batch_size: how many samples are drawn at a time.
    """

    space: RewardSpace
    prompts: Sequence[str]
    seeds: Sequence[int]
    scorers: Sequence[Any]
    held_out: Sequence[Any] = ()
    batch_size: int = 32

    def seed(self, q: int, s: int) -> int:
        """The ``s``-th seed of prompt ``q``. No two prompts share one: what a noise does to all
        prompts alike would else stay in every mean."""
        return self.seeds[s] + q * len(self.seeds)

    def grid(self, points: Sequence[Point]) -> Grid:
        """These points on all prompts and seeds."""
        seeds = [
            [self.seed(q, s) for s in range(len(self.seeds))] for q in range(len(self.prompts))
        ]
        return Grid(points=points, prompts=self.prompts, seeds=seeds, batch_size=self.batch_size)
