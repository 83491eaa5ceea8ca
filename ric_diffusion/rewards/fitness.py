"""Whether scores make a scale that a model can learn: judged before hours of training are."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ric_diffusion.rewards.space import RewardSpace

FEW = 500  # samples, below which quantiles and what a model learns of them are mostly chance
EXTREMES = 0.01  # the share of samples, and at least one, that must not decide a scale
SQUEEZED = 0.5  # of the deviation that is left without them
LEAST = 20  # samples, below which any of them may
SAME = 0.9  # of the samples with one score: a reward that is all but constant
RARE = 0.1  # of what chance gives: so few are nearly none
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


def constant(scores: ArrayLike) -> int:
    """How many of N samples, scores (N,), have the commonest score if those are nearly all, so that
    the slider has little to learn from; else 0."""
    counts = np.unique(np.round(np.asarray(scores, dtype=np.float64), 9), return_counts=True)[1]
    return int(counts.max()) if counts.max() > SAME * counts.sum() else 0


def exclusive(first: ArrayLike, second: ArrayLike) -> bool:
    """Whether nearly none of N samples, scores (N,) each, is above the median of both rewards: less
    than a tenth of what two independent ones would give, as for normal ones that correlate below
    -0.988."""
    above = _above(first), _above(second)
    return len(above[0]) >= LEAST and _rare(*above)


def alike(first: ArrayLike, second: ArrayLike) -> bool:
    """Whether nearly none of N samples, scores (N,) each, is above the median of one reward alone:
    the two are practically one."""
    one, other = _above(first), _above(second)
    return len(one) >= LEAST and _rare(one, ~other) and _rare(~one, other)


def _above(scores: ArrayLike) -> NDArray[np.bool_]:
    values = np.asarray(scores, dtype=np.float64)
    above: NDArray[np.bool_] = values > np.median(values)
    return above


def _rare(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> bool:
    """Whether the two nearly never come together."""
    return bool((first & second).mean() < RARE * first.mean() * second.mean())


def narrow(space: RewardSpace) -> Sequence[str]:
    """The rewards whose reachable range is less than one standard deviation wide: their sliders
    have next to nothing to move between."""
    widths = space.highs - space.lows
    return [name for name, width in zip(space.names, widths, strict=True) if width < NARROW]
