"""What the default mapping asks for where rewards conflict, agree, or have few samples."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ric_diffusion.rewards import RewardSpace, to_targets
from ric_diffusion.rewards.front import FLOOR, fit_corners
from ric_diffusion.rewards.mappings import front, leave

MOVED = 0.05  # z
CLOSE = 1e-9

untimed = settings(deadline=None, max_examples=60)  # the first use of a space fits it


def space_of(z):
    """A space of the columns of z (N, n)."""
    return RewardSpace.fit({f"r{i}": column for i, column in enumerate(z.T)})


@cache
def pair(correlation, count, seed=0):
    """Two rewards as samples in z (N, 2), and their space."""
    cov = [[1, correlation], [correlation, 1]]
    scores = np.random.default_rng(seed).multivariate_normal([0, 0], cov, count)
    space = space_of(scores)
    return space.normalize(scores), space


@cache
def several(n, count, seed):
    """(N, n) and their space: rewards that all depend on one thing, each for or against it."""
    rng = np.random.default_rng([n, count, seed])
    shared = rng.choice([-0.995, -0.9, -0.5, 0, 0.5, 0.9, 0.995], n)
    own = rng.normal(size=(count, n))
    scores = shared * rng.normal(size=(count, 1)) + np.sqrt(1 - shared**2) * own
    space = space_of(scores)
    return space.normalize(scores), space


pairs = st.builds(pair, st.floats(-0.99, 0.99), st.integers(2, 500), st.integers(0, 2))
groups = st.builds(
    several, st.integers(1, 6), st.sampled_from([2, 3, 5, 20, 300]), st.integers(0, 1)
)


def targets(space, *weights):
    return np.array(list(to_targets(dict(zip(space.names, weights, strict=True)), space).values()))


def weights_of(n):
    weight = st.just(0.0) | st.floats(1e-3, 1.0)
    return st.lists(weight, min_size=n, max_size=n).filter(any).map(np.array)


@untimed
@given(pairs | groups)
@example(pair(-0.99, 5000))
@example(pair(-0.9, 5000))
@example(pair(0.99, 5000))
def test_all_weight_on_one_reward_asks_for_the_best_of_it(case):
    z, space = case
    best = np.quantile(z, 0.95, axis=0)  # the 90th percentile is the least that is asked for
    for i, weights in enumerate(np.eye(z.shape[1])):
        assert best[i] - CLOSE <= targets(space, *weights)[i] <= space.highs[i]


@untimed
@given(pairs | groups, st.data())
def test_every_slider_moves_its_reward(case, data):
    z, space = case
    n = z.shape[1]
    i = data.draw(st.integers(0, n - 1))
    others = data.draw(weights_of(n))
    others[i] = 0
    if others.any():
        ends = targets(space, *others)[i], targets(space, *np.eye(n)[i])[i]
        best, middle = np.quantile(z[:, i], [0.95, 0.5])  # of three, two can be all but equal
        assert ends[1] - ends[0] > min(MOVED, 0.5 * (best - middle))


@settings(deadline=None, max_examples=100)
@given(pairs | groups, st.data())
def test_a_target_stays_in_range_and_never_falls_as_its_weight_rises(case, data):
    z, space = case
    weights = data.draw(weights_of(z.shape[1]))
    i = data.draw(st.integers(0, z.shape[1] - 1))
    more = weights.copy()
    more[i] += data.draw(st.floats(1e-3, 10))
    before, after = targets(space, *weights), targets(space, *more)
    assert after[i] >= before[i] - CLOSE
    assert ((before >= space.lows) & (before <= space.highs)).all()


@settings(deadline=None, max_examples=100)
@given(pairs | groups, st.data())
def test_no_target_jumps(case, data):
    z, space = case
    weights = data.draw(weights_of(z.shape[1]))
    # Some of them no longer 0. Weights count by their shares, so the step is one of the sum.
    near = weights + 1e-9 * weights.sum() * data.draw(weights_of(z.shape[1]))
    np.testing.assert_allclose(targets(space, *near), targets(space, *weights), atol=1e-5)


@pytest.mark.parametrize("correlation", [-0.99, -0.9, -0.5, 0, 0.5, 0.9, 0.99])
def test_the_whole_sweep_asks_for_what_samples_have(correlation):
    """A corner is the middle of the best tenth, and all between is among samples, and reached."""
    z, space = pair(correlation, 5000)
    sweep = np.array([targets(space, w, 1 - w) for w in np.linspace(0, 1, 11)])
    for target in sweep:
        assert (z >= target).all(axis=1).mean() > 0.003
        assert np.sort(np.linalg.norm(z - target, axis=1))[25] < 0.45
    steps = np.diff(sweep[:, 0])
    assert steps.min() > 0 and steps.max() < 0.4


def test_five_pictures():
    rng = np.random.default_rng(0)
    for _ in range(50):  # in 10 of these one picture is the best in both
        space = space_of(rng.normal(size=(5, 2)))
        assert (np.abs(targets(space, 1, 0) - targets(space, 0, 1)) > MOVED).all()


def test_corners_by_hand():
    """Ten samples, the best five in the first reward with 0 to 4 in the second."""
    first = np.array([9.0, 8, 7, 6, 5, 4, 3, 2, 1, 0])
    second = np.array([0.0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    z = np.stack([first, second], axis=1)
    corners = fit_corners(z, np.zeros(2), np.full(2, 9.0))
    np.testing.assert_allclose(corners, [[8.55, 2], [2, 8.55]])
    within = fit_corners(z, np.full(2, 3.0), np.full(2, 8.0))
    np.testing.assert_allclose(within, [[8, 3], [3, 8]])


def test_what_comes_with_a_reward_is_not_given_up_for_a_third():
    """The first two agree and the third is against both: all for the first leaves the second where
    the best in the first have it, and not where the best in the third do."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(4000, 1)) * [0.95, 0.95, -0.95] + 0.3 * rng.normal(size=(4000, 3))
    space = space_of(scores)
    only_first, only_third = targets(space, 1, 0, 0), targets(space, 0, 0, 1)
    assert only_first[1] > 0.7 and only_first[2] < -1.3
    assert (only_third[:2] < -1.3).all()
    np.testing.assert_allclose(targets(space, 0, 1, 0)[0], only_first[1], atol=0.2)


def style_apart():
    """Drawings in black and white: a tenth at -3 in colour, and best in the first reward."""
    rng = np.random.default_rng(0)
    plain = rng.normal(0.75, 0.6, (7200, 2))
    odd = np.stack([rng.normal(2.2, 0.3, 800), np.full(800, -3.0)], axis=1)
    return np.concatenate([plain, odd])


def test_between_the_corners_a_style_apart_is_left_alone():
    """What only the whole weight of the first reward is worth is hardly asked for by less."""
    space = space_of(style_apart())
    floor, style = space.quantile("r1", FLOOR), space.range("r1")[0]
    for weight in (0.1, 0.3, 0.5, 0.6, 0.7):
        assert targets(space, weight, 1 - weight)[1] > floor
    assert targets(space, 0.8, 0.2)[1] > floor - 0.5
    np.testing.assert_allclose(targets(space, 1, 0), [space.quantile("r0", 0.95), style], atol=1e-3)


def test_a_space_stored_without_corners_maps_as_it_did():
    for case in (pair(-0.9, 500), several(3, 300, 0)):
        old = replace(case[1], corners=None)
        assert RewardSpace.from_dict(old.to_dict()) == old and "corners" not in old.to_dict()
        points = np.array(old.front)
        for weights in np.random.default_rng(0).dirichlet(np.ones(points.shape[1]), 20):
            np.testing.assert_array_equal(front(weights, points), leave(weights, points))
            np.testing.assert_allclose(targets(old, *weights), leave(weights, points))
