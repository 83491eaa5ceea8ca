"""Preference → targets: what to ask of each reward when the user weighs them against each other.

Every mapping takes the weights (n,), non-negative with sum 1, and gives targets (n,) in z. For any
n ≥ 1, each target stays in its reward's reachable range and never falls as its own weight rises
while the other sliders stay where they are.
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from ric_diffusion.io.errors import InputError, suggest
from ric_diffusion.rewards.front import FLOOR, floors
from ric_diffusion.rewards.space import HIGH, LOW, PERCENTILES, RewardSpace

Array = NDArray[np.float64]

MARGIN = 0.1  # of the front's range: how far below its nadir the ray starts, for three and more
STEEPEST = 8.0  # the highest price of a corner that counts


def linear(weights: Array, lows: Array, highs: Array) -> Array:
    """w·(hi - lo) + lo (RiC's `linear`)."""
    return lows + weights * (highs - lows)


def l2(weights: Array, lows: Array, highs: Array) -> Array:
    """w / ‖w‖₂·(hi - lo) + lo (RiC's `l2`)."""
    return lows + weights / np.linalg.norm(weights) * (highs - lows)


def linf(weights: Array, lows: Array, highs: Array) -> Array:
    """min(n·w, 1)·(hi - lo) + lo, and hi for the largest weight (arXiv 2402.10207, the paper's).

    The largest of n weights is at least 1/n, so the first half says the second already; that is why
    nothing jumps where two weights change places.
    """
    return lows + np.minimum(len(weights) * weights, 1) * (highs - lows)


def quantile(weights: Array, quantiles: Array) -> Array:
    """The empirical quantile at level min(n·w, 1), kept within the reachable range; (n, 101) given.

    For two rewards: the larger weight gets the top quantile, the other the one at 2·w (RiC's image
    code, which takes the 0th and the 99.99999th percentile for the ends).
    """
    levels = np.clip(100 * len(weights) * weights, LOW, HIGH)
    rows = zip(levels, quantiles, strict=True)
    return np.array([np.interp(level, PERCENTILES, row) for level, row in rows])


def front(weights: Array, points: Array, corners: Array | None = None) -> Array:
    """The best trade-off: front points (F, n), non-dominated, and corners (n, n), what a weight on
    one reward alone asks for; as `front.fit_front` and `front.fit_corners` have them.

    With a the target where the ray along the preference leaves the front, lo and hi the worst and
    the best of each reward there, c the corners and λ_i = `alone`, which rises from 0 at an even
    weight to 1 where reward i has all of it, target_j is the larger of

        a_j + λ_j·(c_jj - hi_j) - Σ_i λ_i·max(lo_j - c_ij, 0)    and    Σ_i w_i·c_ij / Σ_i w_i

    over the i ≠ j: what is asked for, and what comes with that which is asked of the others. So the
    floors of the front, which keep lo up, hold in proportion to a reward's own weight, and all
    weight on reward i gives corner i. Without corners, in spaces stored before there were any, it
    is a.

    Why raising w_j never lowers target_j: the other weights fall in proportion, so λ_j and a_j
    (see `leave`) rise, λ_i falls, and the second line stays, which has only their ratios. Why
    nothing jumps: each part is continuous but the second line where w_j is all, and there the
    first one is c_jj, which no c_ij exceeds.
    """
    if corners is None:
        return leave(weights, points)
    n = len(weights)
    lows, highs = points.min(axis=0), points.max(axis=0)
    more = np.maximum(corners.diagonal() - highs, 0)
    less = np.maximum(lows - corners, 0)
    np.fill_diagonal(less, 0)
    share = alone(weights, more, less.max(axis=1))
    asked = leave(weights, points, MARGIN) + share * more - share @ less
    others = np.tile(weights, (n, 1)) * (1 - np.eye(n))  # (n, n): row j has those beside reward j
    total = others.sum(axis=1)
    anyway = np.full(n, -np.inf)
    np.divide((others * corners.T).sum(axis=1), total, out=anyway, where=total > 0)
    targets: Array = np.maximum(asked, anyway)
    return targets


def alone(weights: Array, more: Array, less: Array) -> Array:
    """How far each corner is gone to, (n,) in [0, 1]: 0 up to an even weight, 1 for all of it.

    In proportion, where the corner gives at least as much of its reward (``more``, in z) as it
    takes of another (``less``); where its price is higher, with that as exponent: later.
    """
    n = len(weights)
    if n == 1:
        return np.ones(1)
    price = np.full(n, STEEPEST)
    np.divide(less, more, out=price, where=less < STEEPEST * more)
    with np.errstate(under="ignore"):
        found: Array = np.maximum((n * weights - 1) / (n - 1), 0) ** np.maximum(price, 1)
    return found


def leave(weights: Array, points: Array, margin: float = 0.0) -> Array:
    """Where the ray along the preference leaves the front; points (F, n), non-dominated.

    The ray starts at the nadir lo (the worst of each reward on the front) in direction
    d = w·(hi - lo), hi the best of each. Two rewards: it meets the line through the points, so that
    the slider moves without steps. More: it ends at lo + t·d on the surface they attain,
    t = max_k min_j (p_kj - lo_j) / d_j over the j with d_j > 0, the weighted Chebyshev achievement
    (Wierzbicki 1980). With a ``margin`` the ray starts below the nadir by so much of hi - lo, and
    ends no lower than the nadir: points that are worst in a reward then count until its weight is
    large enough, and nothing jumps where it becomes 0.

    Why raising w_i never lowers target_i: if it did, t·d would have fallen in every reward, and a
    point below the surface in every reward is not where the ray leaves it.
    """
    lows: Array = points.min(axis=0)
    span: Array = points.max(axis=0) - lows
    if points.shape[1] == 2 and len(points) > 1:
        heights = ((points - lows) / span)[np.argsort(points[:, 0])]
        side = heights[:, 0] * weights[1] - heights[:, 1] * weights[0]  # rises; 0 on the ray
        meet = np.array([np.interp(0, side, column) for column in heights.T])
        return lows + meet * span
    start = lows - margin * span
    d = weights * (span + margin * span)
    wanted = d > 0
    if wanted.any():  # else the front has one point, or is flat in all that is wanted
        with np.errstate(over="ignore"):  # a vanishing weight: infinitely far, never the minimum
            d *= ((points - start)[:, wanted] / d[wanted]).min(axis=1).max()
    return np.maximum(lows, start + d)


MAPPINGS: dict[str, Callable[[Array, RewardSpace], Array]] = {
    "linear": lambda weights, space: linear(weights, space.lows, space.highs),
    "l2": lambda weights, space: l2(weights, space.lows, space.highs),
    "linf": lambda weights, space: linf(weights, space.lows, space.highs),
    "quantile": lambda weights, space: quantile(weights, space.quantiles),
    "front": lambda weights, space: front(
        weights, np.array(space.front), None if space.corners is None else np.array(space.corners)
    ),
}


def to_targets(
    preference: Mapping[str, float], space: RewardSpace, mapping: str = "front"
) -> dict[str, float]:
    """Targets in z for every reward of the space; a reward not in the preference has weight 0.

    Only the ratios of the weights count.
    """
    if mapping not in MAPPINGS:
        raise InputError(f"mapping: unknown {mapping!r}{suggest(mapping, MAPPINGS)}")
    given = space.check_preference(preference)
    weights = np.array([given.get(name, 0.0) for name in space.names])
    weights /= weights.max()  # first, since the sum of huge weights overflows
    targets = MAPPINGS[mapping](weights / weights.sum(), space)
    inside = np.clip(targets, space.lows, space.highs)  # against rounding
    return dict(zip(space.names, inside.tolist(), strict=True))


def opposite(targets: Mapping[str, float], space: RewardSpace, times: float) -> dict[str, float]:
    """`times` the opposite of the targets, in z, kept between the front's floors and the upper ends
    of the reachable ranges; nothing for 0 times.

    What lies below the floors is a style of its own as often as not, and guidance away from that
    moves the picture in every reward at once.
    """
    if not times:
        return {}
    quantiles = np.array([space.quantile(name, FLOOR) for name in space.names])
    ends = zip(floors(quantiles, space.lows, space.highs), space.highs, strict=True)
    bounds = dict(zip(space.names, ends, strict=True))
    return {name: float(np.clip(-times * z, *bounds[name])) for name, z in targets.items()}
