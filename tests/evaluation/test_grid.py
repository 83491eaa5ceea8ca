"""Points: what is asked in a sweep, and the batches of a grid."""

import numpy as np
import pytest

from ric_diffusion.adapters.adapter import Adapter
from ric_diffusion.conditioning.conditioner import TextConditioner
from ric_diffusion.conditioning.grammar import Grammar
from ric_diffusion.evaluation.grid import (
    Grid,
    Point,
    level_points,
    preference_line,
    preference_points,
    range_points,
    slider_points,
    sweep_points,
    target_line,
)
from ric_diffusion.io.errors import InputError
from ric_diffusion.rewards import Curve, to_targets
from support import scores
from support.points import NAMES
from support.points import space as plane

SPACE = plane()
POINTS = slider_points(SPACE, "front", 4)
TRADE = scores.space()
ONE, OTHER = TRADE.names


def test_preference_line_of_two():
    line = preference_line(["a", "b"], 5)
    assert line == [
        {"a": 1.0, "b": 0.0},
        {"a": 0.75, "b": 0.25},
        {"a": 0.5, "b": 0.5},
        {"a": 0.25, "b": 0.75},
        {"a": 0.0, "b": 1.0},
    ]


def test_preference_line_of_three_goes_through_every_corner():
    line = preference_line(["a", "b", "c"], 11)
    assert line[0] == {"a": 1.0, "b": 0.0, "c": 0.0}
    assert line[5] == {"a": 0.0, "b": 1.0, "c": 0.0}
    assert line[10] == {"a": 0.0, "b": 0.0, "c": 1.0}
    assert line[2] == pytest.approx({"a": 0.6, "b": 0.4, "c": 0.0})
    assert line[9] == pytest.approx({"a": 0.0, "b": 0.2, "c": 0.8})
    assert all(sum(weights.values()) == pytest.approx(1.0) for weights in line)


def test_shortest_preference_line():
    assert preference_line(["a", "b"], 2) == [{"a": 1.0, "b": 0.0}, {"a": 0.0, "b": 1.0}]


@pytest.mark.parametrize("names, points", [(["a", "b"], 1), (["a", "b"], 0), (["a"], 5)])
def test_no_preference_line(names, points):
    with pytest.raises(InputError):
        preference_line(names, points)


def test_target_line_ends_at_the_5th_and_95th_percentile(space):
    line = target_line(space, "dark", 11)
    assert [list(target) for target in line] == [["dark"]] * 11  # the other is on auto
    values = [target["dark"] for target in line]
    # The percentiles of what the space was fitted on, in standard units.
    standard = np.random.default_rng(0).normal(size=500)
    standard = -(standard - standard.mean()) / standard.std()
    assert values[0] == pytest.approx(np.percentile(standard, 5))
    assert values[-1] == pytest.approx(np.percentile(standard, 95))
    assert np.diff(values) == pytest.approx(np.full(10, (values[-1] - values[0]) / 10))


def test_target_line_ends_where_a_calibration_does(space):
    low, high = space.quantile("dark", 0.05), space.quantile("dark", 0.95)
    curve = Curve(requested=(-2, 2), obtained=(low - 1, high - 0.1))
    line = target_line(space, "dark", 3, curve)
    assert [target["dark"] for target in line] == pytest.approx(
        [low, (low + high - 0.1) / 2, high - 0.1]
    )


def test_no_target_line(space):
    with pytest.raises(InputError, match="points 1"):
        target_line(space, "dark", 1)
    with pytest.raises(InputError, match="did you mean 'dark'"):
        target_line(space, "drak", 3)


def test_points_of_two_rewards():
    preferences = [point for point in POINTS if point.along is None]
    assert POINTS[:4] == preferences
    assert [p.preference["x"] for p in preferences] == pytest.approx([1, 2 / 3, 1 / 3, 0])
    for point in preferences:
        assert point.targets == to_targets(point.preference, SPACE, "front")
    for name in NAMES:
        alone = [point.targets for point in POINTS if point.along == name]
        assert [list(targets) for targets in alone] == [[name]] * 4
        ends = SPACE.quantile(name, 0.05), SPACE.quantile(name, 0.95)
        assert (alone[0][name], alone[-1][name]) == pytest.approx(ends)


def test_points_of_one_reward():
    points = slider_points(SPACE.subset(["y"]), "linear", 3)
    assert [point.along for point in points] == [None, "y", "y", "y"]
    assert points[0].preference == {"y": 1.0}


def test_points_reach_from_end_to_end():
    points = range_points(TRADE, 5)
    assert [point.along for point in points] == [ONE] * 5 + [OTHER] * 5
    assert all(list(point.targets) == [point.along] for point in points)
    assert not any(point.preference for point in points)
    for name in (ONE, OTHER):
        asked = [point.targets[name] for point in points if point.along == name]
        assert (asked[0], asked[-1]) == pytest.approx(TRADE.range(name))
        assert np.diff(asked) == pytest.approx(np.diff(asked)[0])


def test_requests_lie_where_what_is_obtained_rises():
    """By a curve that jumps by 2 z between requests of 0 and 0.1, most requests go there."""
    jump = Curve(requested=(-1, 0, 0.1, 1), obtained=(-1, -0.9, 1.1, 1.2))
    points = level_points(TRADE, {ONE: jump}, 12)
    asked = {name: [p.targets[name] for p in points if p.along == name] for name in (ONE, OTHER)}
    assert (asked[ONE][0], asked[ONE][-1]) == pytest.approx(TRADE.range(ONE))
    assert all(np.diff(asked[ONE]) > 0)
    assert sum(0 < z < 0.1 for z in asked[ONE]) == 10
    even = [p.targets[OTHER] for p in range_points(TRADE, 12) if p.along == OTHER]
    assert asked[OTHER] == even  # no curve


def test_preferences_of_methods_without_targets():
    points = preference_points(SPACE, 4)
    assert [p.preference for p in points] == preference_line(NAMES, 4)
    assert all(p.targets == {} and p.along is None for p in points)


def adapter_of(space=SPACE, **changes):
    words = TextConditioner(Grammar.words(space.names))
    return Adapter(family="points", base_model="p", space=space, conditioner=words, **changes)


def test_a_sweep_of_an_adapter_goes_through_its_preferences():
    adapter = adapter_of(mapping="linf")
    for points, mapping in ((sweep_points(adapter, 3), "linf"),
                            (sweep_points(adapter, 3, mapping="l2"), "l2")):  # fmt: skip
        assert [p.preference for p in points] == preference_line(NAMES, 3)
        assert [p.targets for p in points] == [
            to_targets(p.preference, SPACE, mapping) for p in points
        ]


def test_a_sweep_along_one_reward():
    points = sweep_points(adapter_of(), 3, along="y")
    assert [p.targets for p in points] == target_line(SPACE, "y", 3)
    assert all(p.along == "y" and p.preference is None for p in points)
    single = adapter_of(SPACE.subset(["y"]))
    assert sweep_points(single, 3) == points


def test_a_sweep_asks_for_what_can_be_had():
    curve = Curve(requested=(-2, 2), obtained=(-0.4, 0.6))
    adapter = adapter_of(calibration={"x": curve})
    along = [p.targets["x"] for p in sweep_points(adapter, 3, along="x")]
    assert along == pytest.approx([-0.4, 0.1, 0.6])
    assert all(-0.4 <= p.targets["x"] <= 0.6 for p in sweep_points(adapter, 5))


@pytest.mark.parametrize("size", [1, 5, 12, 100])
def test_batches_hold_every_cell_once_in_order(size):
    points = [Point(), Point(), Point()]
    grid = Grid(points=points, prompts=["a", "b"], seeds=[[1, 2], [3, 4]], batch_size=size)
    batches = grid.batches()
    assert grid.shape == (3, 2, 2)
    assert max(map(len, batches)) <= size and len(batches) == -(-12 // size)
    cells = [cell for batch in batches for cell in batch]
    assert cells == list(np.ndindex(3, 2, 2))
