"""What a picture can show, and how far pictures are from what was asked, by hand."""

import numpy as np
import pytest

from accuracy import AWARE, accuracy_of, is_inside, jumps, pieces, scatter

nan = float("nan")


def test_a_jump_is_outside_reach():
    reach = pieces([-1.3, -1.2, 0.3, 0.7, 0.6, nan, 0.9])
    assert reach == [(-1.3, -1.2), (0.3, 0.7), (0.6, 0.7)]
    assert [is_inside(reach, z) for z in (-1.25, 0.0, 0.3, 0.65, 0.8)] == [
        True, False, True, True, False,
    ]  # fmt: skip


def test_steps_are_halved_where_the_picture_jumps():
    assert jumps({0.0: -1.3, 1.0: -1.2, 2.0: 0.3, 0.5: -1.25}) == [1.5]
    assert jumps({0.0: nan, 1.0: 2.0}) == []


def test_errors_are_means_over_pictures_inside_and_outside_apart():
    asked = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]])
    found = accuracy_of(
        "both",
        asked,
        np.array([True, True, False]),
        {
            "open loop": asked + np.array([[0.5, -0.1], [0.2, 0.0], [-1.0, -2.0]]),
            AWARE: asked,
            "refine=3": asked + np.array([[0.1, 0.1], [nan, 0.0], [nan, 0.0]]),
        },
        [3, 1, 2],
        1,
    )
    assert found.inside == pytest.approx(2 / 3) and found.passes == 2 and found.pictures == 3
    assert found.errors == pytest.approx({"open loop": 0.2, AWARE: 0.0, "refine=3": 0.1})
    assert found.outside == {
        "open loop": pytest.approx(1.5),
        AWARE: 0.0,
        "refine=3": None,
    }
    assert found.scatter is None  # of one seed


def test_what_is_left_to_who_knows_the_prompt_alone():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(4000, 1, 1)) + 0.5 * rng.normal(size=(4000, 2, 1))
    inside = np.ones(8000, bool)
    error = np.abs(0.5 * rng.normal(size=100_000)).mean()
    assert scatter(z.reshape(8000, 1), inside, 2) == pytest.approx(error, rel=0.03)
    # What one picture cannot show, or was rejected, counts for none of the prompt's.
    z[1:] = 7.0
    z[1, 0], inside[3] = nan, False
    z[0] = [[0.0], [1.0]]
    inside[4:] = False
    assert scatter(z.reshape(8000, 1), inside, 2) == pytest.approx(0.5**0.5 * 0.7979, rel=1e-3)
    assert scatter(z.reshape(8000, 1), np.zeros(8000, bool), 2) is None
