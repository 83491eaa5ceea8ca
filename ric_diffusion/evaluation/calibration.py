"""Calibration from an evaluation: every reward moved alone, and the curves through what came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ric_diffusion.cost import Cost
from ric_diffusion.evaluation.metrics import means_of
from ric_diffusion.evaluation.subject import Outcome, Point
from ric_diffusion.rewards import Curve, RewardSpace


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The curves of those rewards that rise with their sliders, drawn from ``prompts`` with
    ``seeds`` for the first of them, at ``cost``.

    A report with a calibration compares an adapter without it and with it: the outcomes at the two
    positions of ``pair``.
    """

    curves: Mapping[str, Curve]
    prompts: Sequence[str]
    seeds: Sequence[int]
    cost: Cost
    pair: tuple[int, int] = (0, 1)


def range_points(space: RewardSpace, count: int) -> list[Point]:
    """Each reward moved alone over all of its range: further than a report asks, since what lies
    beyond the ends of a curve can no longer be had."""
    return [
        Point(targets={name: z}, along=name)
        for name in space.names
        for z in np.linspace(*space.range(name), count).tolist()
    ]


def level_points(space: RewardSpace, curves: Mapping[str, Curve], count: int) -> list[Point]:
    """The same with requests that by these ``curves`` come out evenly spaced: many where what is
    obtained jumps, few where it stays. Without a curve the requests are evenly spaced."""
    points = []
    for name in space.names:
        requests = np.linspace(*space.range(name), count).tolist()
        if curve := curves.get(name):
            levels = np.linspace(*curve.reach, count).tolist()
            requests[1:-1] = [curve.request(level) for level in levels[1:-1]]
        points += [Point(targets={name: z}, along=name) for z in requests]
    return points


def curves_of(outcome: Outcome, space: RewardSpace) -> dict[str, Curve]:
    """The curves through what an adapter without calibration gave at such points, in z of its
    ``space``; none for a reward where nothing rises."""
    means = space.normalize(means_of(outcome.scores))  # (P, n)
    found = {}
    for column, name in enumerate(space.names):
        rows = [p for p, point in enumerate(outcome.points) if point.along == name]
        requested = [outcome.points[p].targets[name] for p in rows]
        if curve := Curve.fit(requested, means[rows, column]):
            found[name] = curve
    return found
