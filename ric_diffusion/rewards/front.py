"""The front of a set of samples: what can be had of several rewards at once. Higher is better."""

import itertools
import math

import moocore
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

TOP = 0.95  # the quantile that stands for "attainable": 5 % of the samples do better
TRADE = 0.05  # a front point gives up at most about 1 / TRADE for what it gains, in ranges
FLOOR = 0.3  # the quantile below which no reward is given up for another, between the corners
BEST = 5  # samples, at least, that stand for the best in a reward
POINTS = 200  # directions tried for three rewards and more, about


def nondominated(points: Array) -> NDArray[np.bool_]:
    """Which points no other point beats: (F, n) → mask (F,). Of equal points the first counts."""
    mask: NDArray[np.bool_] = moocore.is_nondominated(points, maximise=True)
    return mask


def hypervolume(points: Array, reference: Array) -> float:
    """Volume that points (F, n) dominate above the reference point (n,), as in Zitzler & Thiele
    1999: each reward's unit, multiplied.

    A point that is not above the reference in every reward adds nothing.
    """
    above = points[(points > reference).all(axis=1)]
    return float(moocore.hypervolume(above, ref=reference, maximise=True)) if len(above) else 0.0


def fit_front(z: Array, lows: Array, highs: Array, top: float = TOP) -> Array:
    """The front the samples reach together: z (N, n), reachable range lows and highs (n,) → (F, n).

    It starts at `floors`, and samples below them in any reward don't count. Along each direction d
    from there goes the point floor + t·d that a fraction 1 - ``top`` of the samples reach or
    surpass in every reward at once: t is a quantile over the samples of the weighted Chebyshev
    value min_j (z_j - floor_j) / d_j, so that no single outlier decides. What stays are the points
    worth their price: one that gives up more than 21 times what it gains, each counted in ranges,
    falls to its neighbour (dominance after adding TRADE times the sum, as in the augmented
    Chebyshev norm of Steuer & Choo 1983).
    """
    lows = floors(np.quantile(z, FLOOR, axis=0), lows, highs)
    span = highs - lows
    heights = (z - lows) / span
    points = []
    for direction in directions(z.shape[1]):
        wanted = direction > 0
        values = (heights[:, wanted] / direction[wanted]).min(axis=1)
        values[(heights < 0).any(axis=1)] = 0.0  # what lies below in another reward is no example
        points.append(np.clip(np.quantile(values, top) * direction, 0, 1))
    front = np.array(points)
    worth = nondominated(front + TRADE * front.sum(axis=1, keepdims=True))
    front = np.clip(lows + front[worth] * span, lows, highs)
    return front[nondominated(front)]  # rounding may have made equals


def fit_corners(z: Array, lows: Array, highs: Array, top: float = TOP) -> Array:
    """What a preference for one reward alone asks for: z (N, n), range lows, highs (n,) → (n, n).

    Row i belongs to reward i: the quantile ``top`` of reward i, whatever that costs. The others are
    given up to where the front of the two rewards ends, and below their floors only where most of
    the best samples lie there: to the median of those that are best in reward i, a fraction
    2·(1 - ``top``) of all, whose median in reward i the quantile ``top`` is. No entry of a column
    is above the diagonal's.
    """
    best = np.quantile(z, top, axis=0)
    corners = np.diag(best)
    for i, j in itertools.combinations(range(z.shape[1]), 2):
        front = fit_front(z[:, [i, j]], lows[[i, j]], highs[[i, j]], top)
        corners[j, i], corners[i, j] = front.min(axis=0)
    count = min(len(z), max(BEST, round(2 * (1 - top) * len(z))))
    least = np.sort(z, axis=0)[-count]
    typical = np.array([np.median(z[z[:, i] >= least[i]], axis=0) for i in range(len(least))])
    np.fill_diagonal(typical, best)
    corners = np.clip(np.minimum(corners, typical), lows, highs)
    kept: Array = np.minimum(corners, corners.diagonal())
    return kept


def farthest(points: Array, direction: Array) -> Array:
    """The one of the points (F, n) that goes farthest along a direction (n,) from the worst of
    each reward, by the weighted Chebyshev value; the first one along no direction."""
    heights = points - points.min(axis=0)
    steps = direction * heights.max(axis=0)
    wanted = steps > 0
    far = (heights[:, wanted] / steps[wanted]).min(axis=1, initial=np.inf)
    point: Array = points[far.argmax()]
    return point


def floors(quantiles: Array, lows: Array, highs: Array) -> Array:
    """(n,): how far each reward is given up, its quantile at FLOOR; the lower end of its range
    where most samples share the highest value."""
    floor: Array = np.where(quantiles < highs, np.maximum(quantiles, lows), lows)
    return floor


def directions(n: int) -> Array:
    """Weights spread over the simplex, the same every time: (D, n), D = 33 for two rewards.

    For more, lattices (Das & Dennis 1998) in three layers and the centre. One lattice of so few
    points has none with every weight above zero from six rewards on, and equal weights would then
    find no front point to aim at.
    """
    if n <= 2:
        return _lattice(n, 32)
    steps = 1
    while 3 * math.comb(steps + n, n - 1) < POINTS:
        steps += 1
    outer, centre = _lattice(n, steps), np.full((1, n), 1 / n)
    return np.concatenate([outer, (2 * outer + centre) / 3, (outer + 2 * centre) / 3, centre])


def _lattice(n: int, steps: int) -> Array:
    """All weights that are multiples of 1 / steps and add up to 1: (C(steps + n - 1, n - 1), n).

    Stars and bars: n - 1 bars among the stars cut them into n counts.
    """
    bars = list(itertools.combinations(range(steps + n - 1), n - 1))
    cuts = np.array(bars, dtype=np.int64).reshape(len(bars), n - 1)
    counts = np.diff(cuts, axis=1, prepend=-1, append=steps + n - 1) - 1
    weights: Array = counts / steps
    return weights
