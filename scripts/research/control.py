"""How well a model does what its sliders ask: control along one reward, and along preferences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ric_diffusion.evaluation.metrics import means_of, rank_control
from ric_diffusion.evaluation.runner import Sweep


@dataclass(frozen=True, kw_only=True)
class Control:
    """One reward swept alone.

    ``of_means``: Spearman of requested z against the obtained z averaged over prompts and seeds;
    ``per_picture``: the median over prompts and seeds of the same for one picture's sweep;
    ``span``: mean obtained z at the last target minus that at the first; ``means``: (P,) the means.
    """

    name: str
    requested: list[float]
    means: list[float]
    of_means: float
    per_picture: float
    span: float


def control_of(sweep: Sweep, name: str, column: int) -> Control:
    """Control figures of reward ``name``, column ``column`` of the sweep's scores."""
    requested = np.array([point.targets[name] for point in sweep.points])
    means = means_of(sweep.z)[:, column]
    of_means, per_picture = rank_control(requested, sweep.z[..., column])
    return Control(
        name=name,
        requested=requested.tolist(),
        means=means.tolist(),
        of_means=of_means,
        per_picture=per_picture,
        span=float(means[-1] - means[0]),
    )


@dataclass(frozen=True, kw_only=True)
class Tradeoff:
    """A preference sweep: ``means`` (P, n) mean obtained z; for each reward the deepest fall as its
    weight rises (0 if it never falls) and the span between its ends."""

    means: list[list[float]]
    deepest_fall: list[float]
    span: list[float]


def tradeoff_of(sweep: Sweep, weights: np.ndarray) -> Tradeoff:
    """Figures of a sweep whose points had the preferences ``weights`` (P, n)."""
    means = means_of(sweep.z)  # (P, n)
    falls, spans = [], []
    for column in range(means.shape[1]):
        # Points that weigh a reward alike, as most do where there are more than two rewards, count
        # as one: nothing rose between them.
        levels, level = np.unique(weights[:, column].round(9), return_inverse=True)
        rising = np.array([means[level == i, column].mean() for i in range(len(levels))])
        falls.append(float((np.maximum.accumulate(rising) - rising).max()))
        spans.append(float(rising[-1] - rising[0]))
    return Tradeoff(means=means.tolist(), deepest_fall=falls, span=spans)
