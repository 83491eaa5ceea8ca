"""What it costs a method that trains for one preference to come as far as ours does at that one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import uniform_filter1d

from baselines.curves import WINDOW
from comparison import markdown, training_of
from ric_diffusion.evaluation.report.schema import EvaluationResult, MethodResult
from ric_diffusion.evaluation.report.text import number
from ric_diffusion.io.config import at_least


@dataclass(frozen=True, kw_only=True)
class PlateauConfig:
    """A run for one ``preference``, for so many ``iterations`` that it rises no further; a longer
    one goes on from a shorter."""

    preference: Mapping[str, float]
    iterations: int

    def __post_init__(self) -> None:
        at_least(self, 1, "iterations")


def weighted_z(method: MethodResult, weights: Mapping[str, float]) -> float | None:
    """The weighted mean z at the point of the sweep that is asked for these weights, which sum to
    1; None where there is no such point, or nothing could be used there."""
    for point in method.points:
        asked = point.preference or {}
        if all(abs(asked.get(name, 0.0) - weight) < 1e-9 for name, weight in weights.items()):
            values = [(point.obtained[name].value, weight) for name, weight in weights.items()]
            if any(value is None for value, _ in values):
                return None
            return sum(value * weight for value, weight in values if value is not None)
    return None


def reached(rewards: np.ndarray, level: float) -> int | None:
    """The first iteration, from 1, at which the running mean of the rewards (T,) is at ``level``;
    None if it never is."""
    above = np.flatnonzero(uniform_filter1d(rewards, WINDOW, mode="nearest") >= level)
    return int(above[0]) + 1 if len(above) else None


def late_rise(rewards: np.ndarray) -> float:
    """By how much the last quarter of the rewards (T,) is better than the one before, in z."""
    quarter = max(1, len(rewards) // 4)
    return float(rewards[-quarter:].mean() - rewards[-2 * quarter : -quarter].mean())


def plateau_table(
    result: EvaluationResult, name: str, weights: Mapping[str, float], rewards: np.ndarray
) -> str:
    """One row about the method ``name`` with the ``rewards`` (T,) of its iterations. What it
    reaches is measured twice: on the prompts of the report, and by its own curve, on those that it
    was trained on."""
    ours, theirs = result.methods[0], result.method(name)
    assert theirs is not None
    spent, aim = training_of(theirs).forwards, weighted_z(ours, weights)
    first = None if aim is None else reached(rewards, aim)
    header = ["preference", "iterations", "training, million forwards",
              "of the last quarter, rise in z", f"weighted z, {name}",
              f"weighted z, {ours.name}", f"iterations until that of {ours.name}, by its curve",
              "million forwards until then",
              f"{ours.name}, training for all preferences, million forwards"]  # fmt: skip
    row = [
        ", ".join(f"{reward} {weight:g}" for reward, weight in weights.items()),
        str(len(rewards)),
        number(spent / 1e6, 3),
        number(late_rise(rewards), sign=True) if len(rewards) > 1 else "–",
        number(weighted_z(theirs, weights)),
        number(aim),
        f"not in {len(rewards)}" if first is None else str(first),
        f"> {number(spent / 1e6, 3)}"
        if first is None
        else number(spent * first / len(rewards) / 1e6, 3),
        number(training_of(ours).forwards / 1e6, 3),
    ]
    return markdown(header, [row])
