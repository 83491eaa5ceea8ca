"""Records' scores in standard units."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ric_diffusion.data.records import Record
from ric_diffusion.rewards import PromptGroups, RewardSpace


def records_z(
    records: Sequence[Record], space: RewardSpace, groups: PromptGroups | None = None
) -> np.ndarray:
    """(N, n): z of N records. Rewards that are compared within a prompt are so with ``groups``, by
    default with these records alone."""
    z: np.ndarray = space.normalize(_scores(records, space), _prompts(records), groups)
    return z


def records_groups(records: Sequence[Record], space: RewardSpace) -> PromptGroups:
    """What the records say of their prompts: of the canonical captions."""
    return space.groups(_scores(records, space), _prompts(records))


def _scores(records: Sequence[Record], space: RewardSpace) -> np.ndarray:
    """(N, n) in the scorers' units."""
    scores = (record.scores[name] for record in records for name in space.names)
    return np.fromiter(scores, np.float64).reshape(-1, len(space.names))


def _prompts(records: Sequence[Record]) -> list[str]:
    return [next(iter(record.captions), "") for record in records]
