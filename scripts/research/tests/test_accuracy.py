"""What a picture can show, and how far pictures are from what was asked, by hand."""

import numpy as np
import pytest

from accuracy import accuracy_of, is_inside, jumps, pieces

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
            "refine=3": asked + np.array([[0.1, 0.1], [nan, 0.0], [nan, 0.0]]),
        },
        [3, 1, 2],
    )
    assert found.inside == pytest.approx(2 / 3) and found.passes == 2 and found.pictures == 3
    assert found.errors == pytest.approx({"open loop": 0.2, "refine=3": 0.1})
    assert found.outside == {"open loop": pytest.approx(1.5), "refine=3": None}
