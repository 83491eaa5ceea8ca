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


def front(weights: Array, points: Array) -> Array:
    """Where the ray along the preference leaves the front; points (F, n), non-dominated.

    The ray starts at the nadir lo (the worst of each reward on the front) in direction
    d = w·(hi - lo), hi the best of each. Two rewards: it meets the line through the points, so that
    the slider moves without steps. More: it ends at lo + t·d on the surface they attain,
    t = max_k min_j (p_kj - lo_j) / d_j over the j with d_j > 0, the weighted Chebyshev achievement
    (Wierzbicki 1980).

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
    d = weights * span
    wanted = d > 0
    if wanted.any():  # else the front has one point, or is flat in all that is wanted
        with np.errstate(over="ignore"):  # a vanishing weight: infinitely far, never the minimum
            d *= ((points - lows)[:, wanted] / d[wanted]).min(axis=1).max()
    return lows + d


MAPPINGS: dict[str, Callable[[Array, RewardSpace], Array]] = {
    "linear": lambda weights, space: linear(weights, space.lows, space.highs),
    "l2": lambda weights, space: l2(weights, space.lows, space.highs),
    "linf": lambda weights, space: linf(weights, space.lows, space.highs),
    "quantile": lambda weights, space: quantile(weights, space.quantiles),
    "front": lambda weights, space: front(weights, np.array(space.front)),
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
