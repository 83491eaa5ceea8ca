"""Whether scores make a scale that a model can learn: judged before hours of training are."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ric_diffusion.rewards.space import RewardSpace

FEW = 500  # samples, below which quantiles and what a model learns of them are mostly chance
EXTREMES = 0.01  # the share of samples, and at least one, that must not decide a scale
SQUEEZED = 0.5  # of the deviation that is left without them
LEAST = 20  # samples, below which any of them may
NARROW = 1.0  # of the reachable range in z; that of a normal reward is 4.65, of a coin 2


def outliers(scores: ArrayLike) -> list[int]:
    """The samples that decide the scale of a reward, by index, of scores (N,): those farthest from
    the median, at most 1 % of all or one, where the standard deviation without them would be less
    than half. All others lie close together in z then. Empty if there are none."""
    values = np.asarray(scores, dtype=np.float64)
    if len(values) < LEAST:
        return []
    count = max(1, int(len(values) * EXTREMES))
    away = values - np.median(values)
    order = np.argsort(-np.abs(away), kind="stable")
    far, near = away[order[:count]], away[order[count:]]
    # Deviations without the 1, 2, … farthest, from sums: each anew would be quadratic in N.
    left = len(values) - np.arange(1, count + 1)
    sums = near.sum() + np.cumsum(far[::-1])[::-1] - far
    squares = (near**2).sum() + np.cumsum(far[::-1] ** 2)[::-1] - far**2
    deviations = np.sqrt(np.maximum(squares / left - (sums / left) ** 2, 0.0))
    squeezed = np.flatnonzero(deviations < SQUEEZED * values.std())
    return [int(i) for i in order[: squeezed[0] + 1]] if len(squeezed) else []


def narrow(space: RewardSpace) -> Sequence[str]:
    """The rewards whose reachable range is less than one standard deviation wide: their sliders
    have next to nothing to move between."""
    widths = space.highs - space.lows
    return [name for name, width in zip(space.names, widths, strict=True) if width < NARROW]
