"""The grid of a sweep: what is asked where, whatever the batches."""

import numpy as np
import pytest

from ric_diffusion.errors import InputError
from ric_diffusion.evaluation.sweep import preference_line, run_sweep, target_line
from ric_diffusion.rewards import Curve

TARGETS = [{"bright": -1.0}, {"bright": 0.5, "dark": 0.0}, {}]
PROMPTS = ["a", "abcd"]
SEEDS = [0, 7]


def test_grid_order_and_shapes(painter, space, fake_scorers):
    sweep = run_sweep(painter, space, TARGETS, PROMPTS, SEEDS, fake_scorers)
    assert sweep.targets == TARGETS
    assert (sweep.prompts, sweep.seeds) == (PROMPTS, SEEDS)
    assert sweep.scores.shape == sweep.z.shape == (3, 2, 2, 2)
    asked = [120 + 20 * target.get("bright", 0.0) for target in TARGETS]
    levels = np.array(
        [[[round(a + 3 * len(p) + s) for s in SEEDS] for p in PROMPTS] for a in asked]
    )
    assert sweep.scores[..., 0].tolist() == levels.tolist()
    assert sweep.scores[..., 1] == pytest.approx(-levels / 100)
    drawn = [[[s.getpixel((0, 0)) for s in row] for row in plane] for plane in sweep.samples]
    assert drawn == levels.tolist()
    assert sweep.z[..., 0] == pytest.approx((levels - space.means[0]) / space.stds[0])
    assert sweep.z[..., 1] == pytest.approx((-levels / 100 - space.means[1]) / space.stds[1])


@pytest.mark.parametrize("batch_size", [1, 5, 12, 100])
def test_batch_size_changes_nothing_but_the_calls(painter, space, fake_scorers, batch_size):
    whole = run_sweep(painter, space, TARGETS, PROMPTS, SEEDS, fake_scorers)
    assert painter.calls == [12]
    painter.calls.clear()
    sweep = run_sweep(painter, space, TARGETS, PROMPTS, SEEDS, fake_scorers, batch_size=batch_size)
    assert max(painter.calls) <= batch_size and sum(painter.calls) == 12
    assert np.array_equal(sweep.scores, whole.scores)
    assert np.array_equal(sweep.z, whole.z)


def test_the_callers_targets_are_not_shared(painter, space, fake_scorers):
    targets = [{"bright": 1.0}]
    sweep = run_sweep(painter, space, targets, PROMPTS, SEEDS, fake_scorers)
    targets[0]["bright"] = 9.0
    assert sweep.targets == [{"bright": 1.0}]


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
