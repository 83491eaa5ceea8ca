"""The scorers of a reward space, applied to finished samples."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

import scorers
from ric_diffusion.io.errors import InputError
from ric_diffusion.rewards import RewardSpace
from scorers import Scorer

_log = logging.getLogger(__name__)


def load_scorers(space: RewardSpace) -> list[Scorer]:
    """One scorer per reward, rebuilt as it was when the training data was labelled; a warning for
    each that does not score as it did then. InputError if the space does not know one."""
    found: list[Scorer] = []
    for reward in space.rewards:
        if not reward.scorer:
            raise InputError(f"{reward.name}: the reward space does not say how it was scored")
        scorer = scorers.load(reward.scorer["name"], **reward.scorer.get("options", {}))
        if scorer.fingerprint != reward.fingerprint:
            _log.warning(
                "%s: scores may differ from those of training: now %s, then %s",
                reward.name,
                scorer.fingerprint,
                reward.fingerprint,
            )
        found.append(scorer)
    return found


def scores_of(
    samples: Sequence[Any], prompts: Sequence[str], using: Sequence[Scorer]
) -> np.ndarray:
    """N samples with their N prompts, scored by n scorers: (N, n) float64, each column in the unit
    of its scorer."""
    columns = [np.asarray(scorer(list(samples), list(prompts)), float) for scorer in using]
    return np.stack(columns, axis=1)
