"""Calibration curves: fit, turned around, clamped, stored."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ric_diffusion.io.errors import InputError
from ric_diffusion.rewards.calibration import Curve, curves

values = st.lists(st.floats(-3, 3).map(lambda x: round(x, 3)), min_size=2, max_size=12)


def test_asking_through_the_curve_gives_what_was_asked():
    requested = np.linspace(-2, 2, 11)
    obtained = 0.4 * requested + 0.3  # a model that does less than half of what it is told
    curve = Curve.fit(requested, obtained)
    assert curve.reachable == pytest.approx((-0.5, 1.1))
    for z in (-0.5, 0.0, 0.7, 1.1):
        assert 0.4 * curve.request(z) + 0.3 == pytest.approx(z)
    assert (curve.request(9.0), curve.clamp(9.0)) == pytest.approx((2.0, 1.1))
    assert (curve.request(-9.0), curve.clamp(-9.0)) == pytest.approx((-2.0, -0.5))


@given(values, st.randoms())
def test_a_fit_rises_whatever_was_measured(obtained, random):
    requested = list(np.linspace(-2, 2, len(obtained)))
    pairs = list(zip(requested, obtained, strict=True))
    random.shuffle(pairs)
    curve = Curve.fit(*zip(*pairs, strict=True))
    if curve is None:
        return
    assert all(np.diff(curve.requested) > 0) and all(np.diff(curve.obtained) > 0)
    assert min(obtained) - 1e-9 <= curve.obtained[0] and curve.obtained[-1] <= max(obtained) + 1e-9
    asked = [curve.request(z) for z in np.linspace(-4, 4, 30)]
    assert all(np.diff(asked) >= 0)
    assert Curve.fit(requested, obtained) == curve  # the order given does not matter


def test_a_rising_sweep_is_kept_point_by_point():
    curve = Curve.fit([0, 1, 2], [0.0, 0.1, 0.9])
    assert curve.requested == (0, 1, 2) and curve.obtained == (0.0, 0.1, 0.9)


def test_two_points_are_enough():
    curve = Curve.fit([-1, 1], [-0.5, 0.25])
    assert curve.requested == (-1, 1) and curve.obtained == (-0.5, 0.25)


def test_points_that_fall_are_pooled():
    curve = Curve.fit([0, 1, 2, 3], [0.0, 1.0, 0.5, 2.0])
    assert curve.requested == (0, 1.5, 3) and curve.obtained == (0.0, 0.75, 2.0)


def test_a_slider_that_does_nothing_has_no_curve():
    assert Curve.fit([0, 1, 2], [0.5, 0.5, 0.5]) is None
    assert Curve.fit([0, 1, 2], [0.5, 0.3, 0.1]) is None


def test_points_that_are_not_known_are_left_out():
    nan = float("nan")
    curve = Curve.fit([0, 1, 2, 3], [0.0, nan, 0.5, 2.0])
    assert curve.requested == (0, 2, 3) and curve.obtained == (0.0, 0.5, 2.0)
    assert Curve.fit([0, 1, 2], [nan, 0.5, nan]) is None
    assert Curve.fit([0, 1], [nan, nan]) is None


def test_stored_and_read():
    curve = Curve.fit([0, 1, 2], [0.0, 0.1, 0.9])
    stored = json.loads(json.dumps({"x": curve.to_dict()}))
    assert curves(stored) == {"x": curve}


@pytest.mark.parametrize(
    "stored",
    [
        None,
        {"x": None},
        {"x": {"requested": [0, 1]}},
        {"x": {"requested": [0, 1], "obtained": [0, 1], "more": 1}},
        {"x": {"requested": [1, 0], "obtained": [0, 1]}},
        {"x": {"requested": [0, 1], "obtained": [1, 1]}},
        {"x": {"requested": [0], "obtained": [1]}},
        {"x": {"requested": [0, 1, 2], "obtained": [0, 1]}},
        {"x": {"requested": [0, "1"], "obtained": [0, 1]}},
        {"x": {"requested": [0, float("nan")], "obtained": [0, 1]}},
    ],
)
def test_what_is_no_curve_is_refused(stored):
    with pytest.raises(InputError, match="calibration"):
        curves(stored)
