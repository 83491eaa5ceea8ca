"""From scores on a grid to z, where rewards compared within a prompt find its other samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from ric_diffusion.evaluation.metrics import Array
from ric_diffusion.rewards import PromptGroups, RewardSpace


@dataclass(frozen=True, kw_only=True)
class Standard:
    """The z in which grids with the same Q prompts are measured.

    Rewards that are compared within a prompt are so with all samples of that prompt on all of these
    grids, whatever their points and seeds. So methods of one report are compared with the same, and
    z has no meaning beyond the report.
    """

    space: RewardSpace
    groups: PromptGroups

    @classmethod
    def of(cls, space: RewardSpace, grids: Sequence[Array]) -> Self:
        """Of these grids, scores (P, Q, S, n) each."""
        flat = [_flat(scores) for scores in grids]
        prompts = [name for scores in grids for name in _prompts(scores)] if space.centred else []
        return cls(space=space, groups=space.groups(np.concatenate(flat), prompts))

    def z(self, scores: Array) -> Array:
        """(P, Q, S, n) of one of the grids, from its scores."""
        prompts = _prompts(scores) if self.space.centred else None
        z: Array = self.space.normalize(_flat(scores), prompts, self.groups)
        return z.reshape(scores.shape)


def _flat(scores: Array) -> Array:
    return scores.reshape(-1, scores.shape[-1])


def _prompts(scores: Array) -> list[str]:
    """The prompt of each sample, by its place in the grid."""
    points, prompts, seeds, _ = scores.shape
    return [str(q) for q in range(prompts) for _ in range(seeds)] * points
