import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ric_diffusion.rewards.front import (
    directions,
    farthest,
    fit_front,
    hypervolume,
    nondominated,
)


def normal(correlation, count=8000, seed=0):
    """Two rewards in z, (N, 2), and their reachable range."""
    cov = [[1, correlation], [correlation, 1]]
    return with_range(np.random.default_rng(seed).multivariate_normal([0, 0], cov, count))


def with_range(z):
    return z, *np.percentile(z, [1, 99], axis=0)


def test_nondominated_maximises_and_keeps_one_of_equals():
    points = np.array([[1.0, 1], [0, 2], [1, 0], [0, 2], [2, 0], [-1, -1]])
    assert nondominated(points).tolist() == [True, True, False, False, True, False]
    assert nondominated(np.array([[1.0], [3], [2], [3]])).tolist() == [False, True, False, False]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 6, 9])
def test_directions_lie_on_the_simplex_and_reach_every_corner(n):
    found = directions(n)
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert len(found) <= 200
    for corner in np.eye(n):
        assert (found == corner).all(axis=1).any()
    assert (found.min(axis=1) > 0).any()  # with every reward wanted
    for column in np.sort(found, axis=0).T:  # no reward is special
        np.testing.assert_allclose(column, np.sort(found[:, 0]))


def test_directions_for_two_rewards_are_33_evenly_spaced():
    found = np.sort(directions(2)[:, 0])
    np.testing.assert_array_equal(found, np.linspace(0, 1, 33))


def test_one_reward_has_its_top_quantile_for_a_front():
    z, lows, highs = with_range(np.random.default_rng(0).normal(size=(500, 1)))
    np.testing.assert_allclose(fit_front(z, lows, highs), [[np.quantile(z, 0.95)]])


@pytest.mark.parametrize("correlation", [-0.9, -0.2, 0, 0.5, 0.95])
def test_every_front_point_is_reached_by_five_percent(correlation):
    z, lows, highs = normal(correlation)
    front = fit_front(z, lows, highs)
    assert nondominated(front).all()
    assert ((front >= lows) & (front <= highs)).all()
    share = [(z >= point - 1e-9).all(axis=1).mean() for point in front]
    np.testing.assert_allclose(share[1:-1], 0.05, atol=0.002)
    assert min(share) > 0.03  # an end asks nothing of the other reward


def test_no_reward_is_given_up_below_the_floor():
    """A fifth of the samples lies at -3 in the second reward and is best in the first: drawings
    in black and white, say, that nobody asked for by not asking for colour."""
    rng = np.random.default_rng(0)
    plain = rng.normal(0.75, 0.6, (8000, 2))
    odd = np.stack([rng.normal(2.5, 0.3, 2000), np.full(2000, -3.0)], axis=1)
    z, lows, highs = with_range(np.concatenate([plain, odd]))
    front = fit_front(z, lows, highs)
    assert front[:, 1].min() >= np.quantile(z[:, 1], 0.3)
    assert front[:, 0].max() < 2.2
    assert ((z >= front[0] - 1e-9).all(axis=1) & (z[:, 1] > -1)).mean() > 0.01


def test_front_bends_with_the_conflict_between_rewards():
    middles = [fit_front(*normal(c)).min(axis=1).max() for c in (-0.9, -0.5, 0, 0.5, 0.9)]
    assert middles == sorted(middles)
    assert middles[0] < 0.2 < 1.2 < middles[-1]


def test_rewards_that_agree_leave_no_tail():
    """Highest in one is highest in the other: nothing low is worth asking for."""
    assert fit_front(*normal(0.95)).min() > 0.9
    z = np.random.default_rng(0).normal(size=(4000, 1)).repeat(2, axis=1)
    assert len(fit_front(*with_range(z))) == 1


def test_outliers_do_not_define_the_front():
    z, lows, highs = normal(-0.5)
    wild = np.concatenate([z, [[50, 50], [90, -90], [-90, 90], [8, 8]]])
    moved = fit_front(wild, lows, highs).max(axis=0) - fit_front(z, lows, highs).max(axis=0)
    assert (np.abs(moved) < 0.05).all()


@pytest.mark.parametrize("n", [2, 3, 6])
def test_the_order_of_the_rewards_does_not_matter(n):
    rng = np.random.default_rng(n)
    z, lows, highs = with_range(rng.normal(size=(1000, n)) @ rng.normal(size=(n, n)))
    order = rng.permutation(n)
    front = fit_front(z, lows, highs)[:, order]
    again = fit_front(z[:, order], lows[order], highs[order])
    assert len(front) == len(again)
    assert all(np.isclose(front, point).all(axis=1).any() for point in again)


def test_hypervolume_by_hand():
    points = np.array([[1.0, 2], [2, 1], [0.5, 0.5]])  # the last is dominated
    assert hypervolume(points, np.zeros(2)) == pytest.approx(3)
    assert hypervolume(points, np.array([-1.0, 0])) == pytest.approx(5)
    assert hypervolume(np.array([[2.0, 3, 4]]), np.array([1.0, 1, 1])) == pytest.approx(6)
    assert hypervolume(np.array([[2.0], [5]]), np.array([-2.0])) == pytest.approx(7)


def test_hypervolume_of_points_not_above_the_reference():
    reference = np.array([-2.0, -2])
    assert hypervolume(np.array([[-2.0, 5], [9, -3], [np.nan, 1]]), reference) == 0
    assert hypervolume(np.zeros((0, 2)), reference) == 0
    assert hypervolume(np.array([[-1.0, -1], [9, -3]]), reference) == pytest.approx(1)


@given(st.data(), st.integers(1, 3))
def test_hypervolume_counts_the_unit_cells_below(data, n):
    corners = st.lists(st.integers(-1, 4), min_size=n, max_size=n)
    points = np.array(data.draw(st.lists(corners, min_size=1, max_size=6)), float)
    cells = np.array(np.meshgrid(*[np.arange(4) + 0.5] * n)).reshape(n, -1).T
    inside = (cells[:, None, :] < points[None]).all(axis=2).any(axis=1)
    assert hypervolume(points, np.zeros(n)) == pytest.approx(inside.sum())


def test_a_reward_that_most_samples_have_in_full_still_has_a_front():
    z = np.stack([np.repeat([0.0, 1.0], [200, 800]), np.linspace(-1, 1, 1000)], axis=1)
    front = fit_front(*with_range(z))
    assert np.isfinite(front).all() and front.max(axis=0) == pytest.approx([1.0, 0.9], abs=0.02)


def test_the_farthest_point_along_a_direction():
    points = np.array([[0.0, 4.0], [1.0, 3.0], [2.0, 0.0]])
    for direction, index in (((1, 1), 1), ((1, 0), 2), ((0, 1), 0), ((0, 0), 0)):
        np.testing.assert_array_equal(farthest(points, np.array(direction)), points[index])
    single = np.array([[1.0, 2.0]])  # nothing to go along
    np.testing.assert_array_equal(farthest(single, np.array([0.5, 0.5])), single[0])


def test_the_farthest_counts_from_the_worst_of_each_reward():
    points = np.array([[0.0, 104.0], [5.0, 103.0], [10.0, 100.0]])
    np.testing.assert_array_equal(farthest(points, np.array([0.4, 0.6])), points[1])
    np.testing.assert_array_equal(farthest(points - [0, 100], np.array([0.4, 0.6])), [5.0, 3.0])


def test_the_farthest_point_is_measured_from_the_worst_of_each_reward():
    """Rewards whose zeros are far apart: moving all of one reward changes nothing."""
    points = np.array([[0.0, 3.0], [2.0, 2.5], [3.0, 0.0]])
    for shift in ([0, 0], [100, 0], [0, -50]):
        moved = points + shift
        for direction, nearest in (([1, 0], 2), ([0, 1], 0), ([0.5, 0.5], 1), ([0, 0], 0)):
            found = farthest(moved, np.array(direction, float))
            np.testing.assert_array_equal(found, moved[nearest])
