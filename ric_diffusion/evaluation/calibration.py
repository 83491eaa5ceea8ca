"""Calibration from an evaluation: the curves through what came of every reward moved alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ric_diffusion.adapters.adapter import Adapter
from ric_diffusion.evaluation.metrics import means_of
from ric_diffusion.evaluation.runner import MethodScores
from ric_diffusion.evaluation.standard import Standard
from ric_diffusion.io import config
from ric_diffusion.models.cost import Cost
from ric_diffusion.rewards import Curve, RewardSpace, fit_effect


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The curves of those rewards that rise with their sliders, drawn from ``prompts`` with
    ``seeds`` for the first of them, at ``cost``.

    A report with a calibration compares an adapter without it and with it: the methods at the two
    positions of ``pair``. Where curves know prompts, the method at ``average`` has the same curves
    without that.
    """

    curves: Mapping[str, Curve]
    prompts: Sequence[str]
    seeds: Sequence[int]
    cost: Cost
    pair: tuple[int, int] = (0, 1)
    average: int | None = None


def calibration_digest(adapter: Adapter) -> str | None:
    """What a report calls the adapter's calibration; None without one."""
    if not adapter.calibration:
        return None
    return config.digest(adapter.about()["calibration"])[:16]


def curves_of(scores: MethodScores, space: RewardSpace) -> dict[str, Curve]:
    """The curves through what an adapter without calibration gave with one reward moved at a time,
    in z of its ``space``; none for a reward where nothing rises. Rewards that are compared within a
    prompt are so among these samples."""
    means = means_of(Standard.of(space, [scores.scores]).z(scores.scores))  # (P, n)
    found = {}
    for column, name in enumerate(space.names):
        rows = [p for p, point in enumerate(scores.points) if point.along == name]
        requested = [scores.points[p].targets[name] for p in rows]
        if curve := Curve.fit(requested, means[rows, column]):
            found[name] = curve
    return found


def with_prompts(
    curves: Mapping[str, Curve], scores: MethodScores, space: RewardSpace, features: np.ndarray
) -> dict[str, Curve]:
    """The curves of ``curves_of`` with what prompts change of them, as far as the prompts' features
    (Q, D) tell it."""
    z = Standard.of(space, [scores.scores]).z(scores.scores)
    found = {}
    for name, curve in curves.items():
        rows = [p for p, point in enumerate(scores.points) if point.along == name]
        requested = [scores.points[p].targets[name] for p in rows]
        found[name] = with_prompt(curve, requested, z[rows, ..., space.names.index(name)], features)
    return found


def with_prompt(
    curve: Curve, requested: Sequence[float], z: np.ndarray, features: np.ndarray
) -> Curve:
    """The curve with what prompts change of it: ``z`` (P, Q, S) obtained at the P requests by the
    prompts with these features (Q, D)."""
    expected = np.interp(requested, curve.requested, curve.obtained)
    return replace(curve, prompt=fit_effect(features, expected, z))


def on_average(curves: Mapping[str, Curve]) -> dict[str, Curve]:
    """The curves without what prompts change of them."""
    return {name: replace(curve, prompt=None) for name, curve in curves.items()}
