"""Figures of an evaluation, from arrays of z: points x prompts x seeds x rewards, (P, Q, S, n).

NaN marks a sample that is left out because it is rejected or a scorer gave it no finite score.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ric_diffusion.rewards import hypervolume, nondominated

Array = NDArray[np.float64]
Statistic = Callable[[Array], ArrayLike]
Ends = tuple[float, float]  # of a range, in z

REFERENCE = -2.0  # z, of every reward: the mean of the training data minus two deviations
NEAR = 0.02  # of a reward's range over the sweep: so little behind still counts as on the front
DRAWS = 1000  # of the bootstrap
LEVEL = 0.95  # of its intervals


def reference_point(n: int) -> Array:
    """Where the hypervolume of ``n`` rewards is measured from, (n,) in z: one for all methods."""
    return np.full(n, REFERENCE)


def means_of(z: Array) -> Array:
    """Mean over prompts and seeds of what is not left out: (P, Q, S, n) → (P, n), NaN of none."""
    there = np.isfinite(z)
    count = there.sum(axis=(1, 2))
    total = np.where(there, z, 0.0).sum(axis=(1, 2))
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def volume_of(z: Array) -> float:
    """Hypervolume of the means above the reference point."""
    return hypervolume(means_of(z), reference_point(z.shape[-1]))


def front_mask(means: Array) -> NDArray[np.bool_]:
    """Which of the means (P, n) lie on their front, (P,)."""
    mask = np.asarray(np.isfinite(means).all(axis=1))
    if mask.any():
        mask[mask] = nondominated(means[mask])
    return mask


def near_front(means: Array, tolerance: float = NEAR) -> NDArray[np.bool_]:
    """Which of the means (P, n) no other exceeds, in every reward at once, by more than
    ``tolerance`` of that reward's range over the sweep: (P,)."""
    mask = np.asarray(np.isfinite(means).all(axis=1))
    if mask.any():
        known = means[mask]
        margin = tolerance * np.ptp(known, axis=0)
        exceeded = (known[None, :, :] > known[:, None, :] + margin).all(axis=2).any(axis=1)
        mask[mask] = ~exceeded
    return mask


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A statistic and the ends of its interval, arrays of the statistic's shape."""

    value: Array
    low: Array
    high: Array


def interval(z: Array, statistic: Statistic, *, draws: int = DRAWS, seed: int = 0) -> Interval:
    """Bootstrap of a statistic of z: prompts are drawn with replacement, and so are the seeds of
    each, which no other prompt has."""
    found = [statistic(z[:, q[:, None], s]) for q, s in resamples(z.shape[1:3], draws, seed)]
    return interval_of(statistic(z), found)


def ratio_interval(
    z: Array, other: Array, statistic: Statistic, *, draws: int = DRAWS, seed: int = 0
) -> Interval:
    """The same for the statistic of ``z`` over that of ``other``, paired: both are drawn from the
    same prompts and seeds, in number and in order. Draws that divide by 0 are left out."""
    if z.shape[1:3] != other.shape[1:3]:
        raise ValueError(f"not the same prompts and seeds: {z.shape[1:3]} and {other.shape[1:3]}")

    def ratio(a: Array, b: Array) -> Array:
        above, below = np.asarray(statistic(a), float), np.asarray(statistic(b), float)
        return np.where(below == 0, np.nan, above / np.where(below == 0, 1.0, below))

    found = [
        ratio(z[:, q[:, None], s], other[:, q[:, None], s])
        for q, s in resamples(z.shape[1:3], draws, seed)
    ]
    return interval_of(ratio(z, other), found)


def resamples(
    shape: tuple[int, ...], draws: int, seed: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Indices of the prompts (Q,) of each draw, and of each one's seeds (Q, S)."""
    rng = np.random.default_rng(seed)
    prompts, seeds = shape
    for _ in range(draws):
        yield rng.integers(prompts, size=prompts), rng.integers(seeds, size=shape)


def interval_of(value: ArrayLike, found: Sequence[ArrayLike] | Array) -> Interval:
    """From a statistic and what it is in each draw; those that are not finite are left out."""
    value = np.asarray(value, float)
    columns = np.asarray(found, float).reshape(len(found), -1).T
    ends = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    rows = [
        np.quantile(finite, ends) if len(finite := one[np.isfinite(one)]) else [np.nan, np.nan]
        for one in columns
    ]
    low, high = np.array(rows).T.reshape(2, *value.shape)
    return Interval(value=value, low=low, high=high)


def reached_range(means: Array) -> Ends:
    """Lowest and highest mean (P,) that a one-reward sweep obtained."""
    known = means[np.isfinite(means)]
    return (float(known.min()), float(known.max())) if len(known) else (np.nan, np.nan)


def control_error(requested: Array, means: Array, reachable: Ends | tuple[Array, Array]) -> float:
    """Mean of |mean obtained - requested| over the requests (P,) inside ``reachable``, in z, of all
    or of each; NaN if none lies there.

    Methods are compared by one ``reachable``: one that obtains little would else be judged by few
    requests.
    """
    low, high = reachable
    inside = (requested >= low) & (requested <= high) & np.isfinite(means)
    return float(np.abs(means - requested)[inside].mean()) if inside.any() else np.nan


def sample_error(requested: Array, z: Array, reachable: Ends) -> float:
    """The same of single samples, z (P, Q, S), whose scatter no calibration takes away."""
    low, high = reachable
    inside = (requested >= low) & (requested <= high)
    distances = np.abs(z - requested[:, None, None])[inside]
    known = distances[np.isfinite(distances)]
    return float(known.mean()) if len(known) else np.nan


def saturation(requested: Array, means: Array) -> float:
    """Fraction of the requested range, from the lowest to the highest request, outside the reached
    range."""
    low, high = reached_range(means)
    first, last = requested.min(), requested.max()
    covered = max(0.0, min(high, last) - max(low, first))
    return float(1 - covered / (last - first)) if np.isfinite([low, high]).all() else np.nan


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Rank correlation; 0 if one side is constant, since nothing was controlled then."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    from scipy.stats import spearmanr  # of the extra eval; sweeps need the rest of this module

    return float(spearmanr(x, y).statistic)


def rank_control(requested: Array, z: Array) -> tuple[float, float]:
    """Spearman of the requests (P,) with the means of z (P, Q, S), and the median of the same over
    the single prompts and seeds that have a sample at every point."""
    means = means_of(z[..., None])[:, 0]
    known = np.isfinite(means)
    single = z.reshape(len(z), -1).T
    single = single[np.isfinite(single).all(axis=1)]
    each = [spearman(requested, one) for one in single]
    of_means = spearman(requested[known], means[known]) if known.any() else np.nan
    return of_means, float(np.median(each)) if each else np.nan
