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
    prompts = _prompts(records) if space.centred else None
    z: np.ndarray = space.normalize(_scores(records, space), prompts, groups)
    return z


def records_groups(records: Sequence[Record], space: RewardSpace) -> PromptGroups:
    """What the records say of their prompts, their canonical captions: nothing where no reward
    asks."""
    asked = records if space.centred else ()
    return space.groups(_scores(asked, space), _prompts(asked))


def _scores(records: Sequence[Record], space: RewardSpace) -> np.ndarray:
    """(N, n) in the scorers' units."""
    names = space.names
    scores = (record.scores[name] for record in records for name in names)
    return np.fromiter(scores, np.float64).reshape(-1, len(names))


def _prompts(records: Sequence[Record]) -> list[str]:
    return [next(iter(record.captions), "") for record in records]
