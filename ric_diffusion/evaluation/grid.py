"""What is asked: points of a sweep, and the grid of points x prompts x seeds in batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ric_diffusion.adapters.adapter import Adapter
from ric_diffusion.io.bounds import MOST_POINTS, check_count
from ric_diffusion.io.errors import InputError
from ric_diffusion.rewards import Curve, RewardSpace, to_targets

Cell = tuple[int, int, int]  # point, prompt, seed


@dataclass(frozen=True, kw_only=True)
class Point:
    """What is asked of a method: targets in its own z, and the preference they come of.

    ``along`` is the one reward that is moved, the others on auto; None in a preference sweep. A
    model without adapter has one point, with neither targets nor preference.
    """

    targets: Mapping[str, float] = field(default_factory=dict)
    preference: Mapping[str, float] | None = None
    along: str | None = None


def preference_line(names: Sequence[str], count: int) -> list[dict[str, float]]:
    """``count`` preferences from all weight on the first reward to all on the last.

    With more than two rewards the line goes through all of them in order, corner to corner.
    """
    check_count("points", count, MOST_POINTS, least=2)
    if len(names) < 2:
        raise InputError(f"a preference sweep needs two rewards, {list(names)} given")
    corners = np.eye(len(names))
    where = np.linspace(0, len(names) - 1, count)
    weights = np.array([np.interp(where, range(len(names)), column) for column in corners.T]).T
    return [dict(zip(names, row, strict=True)) for row in weights.tolist()]


def target_line(
    space: RewardSpace, name: str, count: int, curve: Curve | None = None
) -> list[dict[str, float]]:
    """``count`` targets of one reward from its 5th to its 95th percentile, others on auto; with
    the reward's calibration ``curve``, over as much of that as can be had."""
    check_count("points", count, MOST_POINTS, least=2)
    low, high = space.quantile(name, 0.05), space.quantile(name, 0.95)
    if curve is not None:
        low, high = curve.clamp(low), curve.clamp(high)
    return [{name: value} for value in np.linspace(low, high, count).tolist()]


def preference_points(space: RewardSpace, count: int, mapping: str | None = None) -> list[Point]:
    """``count`` points along the preferences, one point for a single reward; their targets are by
    ``mapping``, without one there are none."""
    line = [{name: 1.0} for name in space.names]  # of one reward: nothing to weigh it against
    if len(line) > 1:
        line = preference_line(space.names, count)
    return [
        Point(targets=to_targets(p, space, mapping) if mapping else {}, preference=p) for p in line
    ]


def slider_points(space: RewardSpace, mapping: str, count: int) -> list[Point]:
    """What an evaluation asks of a model with sliders: the preference sweep, then each reward moved
    alone."""
    alone = [
        Point(targets=target, along=name)
        for name in space.names
        for target in target_line(space, name, count)
    ]
    return preference_points(space, count, mapping) + alone


def sweep_points(
    adapter: Adapter, count: int, *, along: str | None = None, mapping: str | None = None
) -> list[Point]:
    """What ``ric sweep`` shows of an adapter: one reward moved as far as it can be had, or, without
    ``along``, the preferences by the adapter's own mapping unless another is given."""
    space = adapter.space
    if along is None and len(space.names) == 1:
        along = space.names[0]
    if along is not None:
        line = target_line(space, along, count, adapter.calibration.get(along))
        return [Point(targets=targets, along=along) for targets in line]
    return [
        Point(targets=adapter.reachable(adapter.mapped(preference, mapping)), preference=preference)
        for preference in preference_line(space.names, count)
    ]


def range_points(space: RewardSpace, count: int) -> list[Point]:
    """Each reward moved alone over all of its range: further than a report asks, since what lies
    beyond the ends of a calibration's curve can no longer be had."""
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
            levels = np.linspace(*curve.reachable, count).tolist()
            requests[1:-1] = [curve.request(level) for level in levels[1:-1]]
        points += [Point(targets={name: z}, along=name) for z in requests]
    return points


@dataclass(frozen=True, kw_only=True)
class Grid:
    """P points x Q prompts x S seeds, drawn ``batch_size`` cells at a time; ``seeds``: S numbers
    for each of the Q prompts."""

    points: Sequence[Point]
    prompts: Sequence[str]
    seeds: Sequence[Sequence[int]]
    batch_size: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """(P, Q, S)"""
        return len(self.points), len(self.prompts), len(self.seeds[0])

    def batches(self) -> list[list[Cell]]:
        """All cells in batches, the same in every run whatever was done before: a sample then never
        depends on when it was drawn, or by which process."""
        cells = [(p, q, s) for p, q, s in np.ndindex(*self.shape)]
        size = self.batch_size
        return [cells[start : start + size] for start in range(0, len(cells), size)]
