"""Selection: fronts, crowding, quantiles."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ric_diffusion.rewards.front import nondominated
from ric_diffusion.rewards.selection import SELECTIONS, any_above, by_fronts, crowding

samples = st.integers(1, 4).flatmap(
    lambda n: arrays(
        float,
        st.tuples(st.integers(1, 30), st.just(n)),
        elements=st.floats(-5, 5, allow_nan=False).map(lambda x: round(x, 2)),
    )
)


def test_any_reward_above_its_quantile():
    reference = np.array([[0.0, 0], [1, 10], [2, 20], [3, 30], [4, 40]])
    z = np.array([[4.0, 0], [0, 40], [2, 20], [3.9, 39.9]])
    assert any_above(z, reference, 1.0).tolist() == [True, True, False, False]
    assert any_above(z, reference, 0.5).all()


@given(samples)
def test_fronts_come_one_after_the_other(z):
    order = by_fronts(z)
    assert sorted(order.tolist()) == list(range(len(z)))
    front = nondominated(z)
    best = z[front]
    # Equal points share a front, of which nondominated names only the first.
    first = np.array([(row == best).all(axis=1).any() for row in z])
    assert first[order[: first.sum()]].all()
    for earlier, later in itertools.pairwise(order):
        beats = (z[later] >= z[earlier]).all() and (z[later] > z[earlier]).any()
        assert not beats


def test_crowding_by_hand():
    z = np.array([[0.0, 4], [1, 3], [2, 2], [4, 0]])
    assert crowding(z).tolist() == [np.inf, 2 / 4 + 2 / 4, 3 / 4 + 3 / 4, np.inf]
    assert crowding(np.array([[1.0, 2.0]])).tolist() == [0.0]


def test_within_a_front_the_loneliest_come_first():
    z = np.array([[0.0, 4], [1, 3], [1.1, 2.9], [2, 2], [4, 0]])
    order = by_fronts(z).tolist()
    assert set(order[:2]) == {0, 4}  # the ends
    assert order[-1] == 2  # the one with the nearest neighbours


@pytest.mark.parametrize("name", SELECTIONS)
@given(z=samples, share=st.floats(0.05, 1))
def test_a_selection_is_some_of_the_samples(name, z, share):
    kept = SELECTIONS[name](z, z, share)
    assert kept.tolist() == sorted(set(kept.tolist()))
    assert 1 <= len(kept) <= len(z)


@pytest.mark.parametrize("name", SELECTIONS)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_about_the_share_is_kept_of_independent_rewards(name, n):
    z = np.random.default_rng(0).normal(size=(4000, n))
    for share in (0.2, 0.5):
        assert len(SELECTIONS[name](z, z, share)) / 4000 == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("name", SELECTIONS)
def test_the_best_of_each_reward_is_kept(name):
    z = np.random.default_rng(0).normal(size=(500, 3))
    assert set(z.argmax(axis=0)) <= set(SELECTIONS[name](z, z, 0.3).tolist())


def test_nothing_to_select_from():
    empty = np.empty((0, 2))
    reference = np.zeros((3, 2))
    for select in SELECTIONS.values():
        assert len(select(empty, reference, 0.5)) == 0


@pytest.mark.parametrize("n", [1, 2, 3])
def test_samples_that_are_all_equal(n):
    """No one is better: the first are taken for the fraction, and a quantile lets all through."""
    z = np.full((10, n), 0.7)
    assert crowding(z).tolist() == [0.0] * 10
    assert SELECTIONS["fronts"](z, z, 0.5).tolist() == [0, 1, 2, 3, 4]
    assert SELECTIONS["quantile"](z, z, 0.5).tolist() == list(range(10))


@pytest.mark.parametrize("best", SELECTIONS.values())
def test_one_sample_is_the_best_there_is(best):
    alone = np.array([[1.0, -2.0]])
    assert best(alone, alone, 0.1).tolist() == [0]
