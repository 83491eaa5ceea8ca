"""Selection: which samples of a round are worth training on. Pure numpy, in z, higher is better."""

from collections.abc import Callable

import moocore
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Order = NDArray[np.intp]


def any_above(z: Array, reference: Array, quantile: float) -> NDArray[np.bool_]:
    """Rejection sampling as in RiC's online stage: keep a sample if any one of its rewards reaches
    that reward's ``quantile`` over the ``reference`` samples. (N, n) and (M, n) → mask (N,)."""
    return np.asarray((z >= np.quantile(reference, quantile, axis=0)).any(axis=1))


def crowding(z: Array) -> Array:
    """Crowding distance within one front (Deb et al. 2002, NSGA-II, section III-B): (N, n) → (N,).

    The ends of each reward are infinitely far from the crowd.
    """
    distance = np.zeros(len(z))
    for column in z.T:
        order = np.argsort(column, kind="stable")
        gaps = np.full(len(z), np.inf)
        if (span := column[order[-1]] - column[order[0]]) > 0:
            gaps[order[1:-1]] = (column[order[2:]] - column[order[:-2]]) / span
        else:
            gaps[:] = 0.0  # a reward that is flat here distinguishes no samples
        distance += gaps
    return distance


def by_fronts(z: Array) -> Order:
    """All samples, best first: by front (non-dominated sorting), within a front by crowding
    distance, the most isolated first (NSGA-II's crowded comparison). (N, n) → indices (N,)."""
    if not len(z):
        return np.array([], dtype=np.intp)
    ranks = moocore.pareto_rank(z, maximise=True)
    lonely = np.zeros(len(z))
    for rank in np.unique(ranks):
        lonely[ranks == rank] = crowding(z[ranks == rank])
    return np.lexsort((-lonely, ranks))


def best_by_quantile(z: Array, reference: Array, fraction: float) -> Order:
    """The samples that `any_above` keeps, at the quantile that keeps about ``fraction`` of those of
    the reference: for n independent rewards 1 - (1 - fraction)^(1/n) of each. Indices, rising."""
    quantile = (1 - fraction) ** (1 / z.shape[1])
    return np.flatnonzero(any_above(z, reference, quantile))


def best_by_fronts(z: Array, reference: Array, fraction: float) -> Order:
    """The best ``fraction`` of the samples by fronts and crowding; the reference is not needed,
    since fronts compare the samples with each other. Indices, rising."""
    count = max(1, round(fraction * len(z))) if len(z) else 0
    return np.sort(by_fronts(z)[:count])


SELECTIONS: dict[str, Callable[[Array, Array, float], Order]] = {
    "quantile": best_by_quantile,
    "fronts": best_by_fronts,
}
