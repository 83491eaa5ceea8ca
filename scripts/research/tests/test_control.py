"""Control figures against ones worked out by hand."""

import numpy as np
import pytest

from control import control_of, tradeoff_of
from ric_diffusion.evaluation.grid import Point
from ric_diffusion.evaluation.metrics import spearman
from ric_diffusion.evaluation.runner import Sweep

REQUESTED = [-1.0, 0.0, 1.0, 2.0]


def sweep_of(z, name="a"):
    """A sweep with these z, (P, Q, S, n), that asked REQUESTED of one reward."""
    z = np.asarray(z, float)
    return Sweep(
        points=[Point(targets={name: value}, along=name) for value in REQUESTED[: len(z)]],
        prompts=["p"] * z.shape[1],
        seeds=list(range(z.shape[2])),
        samples=[],
        scores=z,
        z=z,
    )


def grid(*pictures):
    """One column of z from each picture's values along the sweep, (P, Q = pictures, 1, 1)."""
    return np.array(pictures, float).T[:, :, None, None]


def test_perfect():
    control = control_of(sweep_of(grid(REQUESTED, [10, 11, 12, 13])), "a", 0)
    assert control.requested == REQUESTED
    assert control.means == [4.5, 5.5, 6.5, 7.5]
    assert control.of_means == control.per_picture == pytest.approx(1.0)
    assert control.span == pytest.approx(3.0)


def test_reversed():
    control = control_of(sweep_of(grid(REQUESTED[::-1])), "a", 0)
    assert control.of_means == control.per_picture == pytest.approx(-1.0)
    assert control.span == pytest.approx(-3.0)


def test_constant_controls_nothing():
    control = control_of(sweep_of(grid([2, 2, 2, 2])), "a", 0)
    assert (control.of_means, control.per_picture, control.span) == (0.0, 0.0, 0.0)


def test_by_hand():
    # Ranks 1 3 2 4 against 1 2 3 4: 1 - 6·(0 + 1 + 1 + 0) / (4·15) = 0.8.
    swapped = [0.0, 2.0, 1.0, 3.0]
    # Ranks 4 1 2 3: 1 - 6·(9 + 1 + 1 + 1) / 60 = -0.2.
    rotated = [3.0, 0.0, 1.0, 2.0]
    rising = [0.0, 1.0, 5.0, 6.0]
    control = control_of(sweep_of(grid(swapped, rotated, rising)), "a", 0)
    assert control.per_picture == pytest.approx(0.8)  # the median of 0.8, -0.2 and 1
    assert control.means == pytest.approx([1.0, 1.0, 7 / 3, 11 / 3])
    # Ranks of the means 1.5 1.5 3 4, against 1 2 3 4: Pearson of the ranks.
    assert control.of_means == pytest.approx(4.5 / np.sqrt(5 * 4.5))
    assert control.span == pytest.approx(8 / 3)


def test_pictures_are_prompts_times_seeds_and_columns_are_rewards():
    z = np.zeros((3, 2, 2, 2))
    z[..., 1] = np.array([-1.0, 0.0, 1.0])[:, None, None]
    z[:, 1, 1, 1] = [5.0, 0.0, -5.0]  # one of the four pictures goes the other way
    control = control_of(sweep_of(z, "b"), "b", 1)
    assert control.per_picture == pytest.approx(1.0)
    assert control.means == pytest.approx([0.5, 0.0, -0.5])
    assert control.of_means == pytest.approx(-1.0)
    assert control_of(sweep_of(z, "b"), "b", 0).span == 0.0


def test_spearman_reads_ranks_alone():
    x = np.array([0.0, 1.0, 2.0, 3.0])
    assert spearman(x, np.exp(10 * x)) == pytest.approx(1.0)
    assert spearman(np.ones(4), x) == 0.0
    assert spearman(x, np.ones(4)) == 0.0


def line(*weights):
    first = np.array(weights)
    return np.stack([first, 1 - first], axis=1)


def test_tradeoff_of_two():
    # Reward 0 loses weight along the sweep, so it must fall; from 0.9 to 1.2 it rises instead.
    z = np.array([[2.0, -1.0], [0.9, 0.0], [1.2, 0.5], [-1.0, 0.25]])[:, None, None, :]
    tradeoff = tradeoff_of(sweep_of(z), line(1.0, 0.6, 0.3, 0.0))
    assert tradeoff.means == z[:, 0, 0, :].tolist()
    assert tradeoff.deepest_fall == pytest.approx([0.3, 0.25])
    assert tradeoff.span == pytest.approx([3.0, 1.25])


def test_tradeoff_without_a_fall():
    z = np.array([[2.0, -1.0], [1.0, 0.0], [0.0, 1.0]])[:, None, None, :]
    tradeoff = tradeoff_of(sweep_of(z), line(1.0, 0.5, 0.0))
    assert tradeoff.deepest_fall == [0.0, 0.0]
    assert tradeoff.span == [2.0, 2.0]


def test_deepest_fall_is_from_the_highest_before():
    z = np.array([[0.0], [1.0], [0.7], [0.4]])[:, None, None, :]
    tradeoff = tradeoff_of(sweep_of(z), np.array([[0.0], [0.1], [0.2], [0.3]]))
    assert tradeoff.deepest_fall == pytest.approx([0.6])
    assert tradeoff.span == pytest.approx([0.4])


def test_means_are_over_prompts_and_seeds():
    z = np.zeros((2, 2, 2, 1))
    z[1, ..., 0] = [[1.0, 2.0], [3.0, 6.0]]
    assert tradeoff_of(sweep_of(z), np.array([[0.0], [1.0]])).span == [3.0]


def test_points_of_one_weight_do_not_count_as_a_fall():
    # Three rewards, corner to corner: reward 0 has no weight in the second half, and its weight
    # does not rise there, whatever the other two do to it.
    weights = np.array([[1.0, 0, 0], [0.5, 0.5, 0], [0, 1.0, 0], [0, 0.5, 0.5], [0, 0, 1.0]])
    z = np.zeros((5, 1, 1, 3))
    z[:, 0, 0, 0] = [2.0, 1.0, -1.0, 0.5, -0.5]
    tradeoff = tradeoff_of(
        Sweep(points=[], prompts=[], seeds=[], samples=[], scores=z, z=z), weights
    )
    assert tradeoff.deepest_fall[0] == 0.0
    assert tradeoff.span[0] == pytest.approx(2.0 + 1 / 3)  # from the mean of the three
