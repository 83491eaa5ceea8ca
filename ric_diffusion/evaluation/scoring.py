"""The scorers of a reward space, applied to finished samples."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

import scorers
from ric_diffusion.errors import InputError
from ric_diffusion.rewards import RewardSpace

_log = logging.getLogger(__name__)


def load_scorers(space: RewardSpace) -> list[Any]:
    """One scorer per reward, rebuilt as it was when the training data was labelled."""
    found = []
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


def scores_of(samples: Sequence[Any], prompts: Sequence[str], using: Sequence[Any]) -> np.ndarray:
    """(N, n) float64 scores in each scorer's unit."""
    columns = [np.asarray(scorer(list(samples), list(prompts)), float) for scorer in using]
    return np.stack(columns, axis=1)
