"""Figures of an evaluation against ones worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ric_diffusion.evaluation import metrics
from ric_diffusion.evaluation.metrics import interval, means_of, ratio_interval

numbers = st.floats(-5, 5).map(lambda value: round(value, 3))
shapes = st.tuples(st.integers(1, 5), st.integers(1, 3))
means = shapes.flatmap(lambda shape: arrays(float, shape, elements=numbers))


def mean(z):
    return z.mean()


def test_means_leave_out_what_is_not_there():
    z = np.array([[[1.0, 2.0], [3.0, np.nan]], [[np.nan] * 2] * 2])[..., None]
    assert means_of(z)[:, 0].tolist() == pytest.approx([2.0, np.nan], nan_ok=True)
    assert means_of(np.zeros((2, 3, 4, 0))).shape == (2, 0)


def test_volume_is_that_of_the_means_above_minus_two():
    z = np.zeros((2, 1, 2, 2))
    z[0, 0] = [[0.0, -2.0], [2.0, 0.0]]  # mean (1, -1): 3 x 1
    z[1, 0] = [[-1.0, 1.0], [-1.0, 1.0]]  # mean (-1, 1): 1 x 3, of which 1 is shared
    assert metrics.volume_of(z) == pytest.approx(5)
    z[1] = np.nan
    assert metrics.volume_of(z) == pytest.approx(3)


def test_front_and_near_front():
    points = np.array([[10.0, 0.0], [0.0, 10.0], [9.9, 9.9], [9.75, 9.75], [9.6, 9.95], [9, 9]])
    assert metrics.front_mask(points).tolist() == [True, True, True, False, True, False]
    # 9.75 is 0.15 behind in both, less than 2 % of the range of 10; 9 is 0.9 behind.
    assert metrics.near_front(points).tolist() == [True] * 5 + [False]
    assert metrics.near_front(points, tolerance=0.01).tolist() == [True] * 3 + [False, True, False]


def test_points_that_are_not_known_lie_on_no_front():
    points = np.array([[1.0, 2.0], [np.nan, 5.0], [0.0, 0.0]])
    assert metrics.front_mask(points).tolist() == [True, False, False]
    assert metrics.near_front(points).tolist() == [True, False, False]
    assert not metrics.front_mask(np.full((2, 2), np.nan)).any()
    assert not metrics.near_front(np.full((2, 2), np.nan)).any()


@given(means)
def test_the_front_is_near_the_front(points):
    near = metrics.near_front(points)
    assert near[metrics.front_mask(points)].all()
    assert near.any()
    assert (near <= metrics.near_front(points, tolerance=0.5)).all()


def test_interval_is_repeatable_and_holds_the_value():
    z = np.random.default_rng(0).normal(size=(3, 12, 5, 2))
    found = interval(z, means_of)
    assert found.value.shape == found.low.shape == found.high.shape == (3, 2)
    assert (found.low < found.value).all() and (found.value < found.high).all()
    again = interval(z, means_of)
    assert np.array_equal(found.low, again.low) and np.array_equal(found.high, again.high)
    assert not np.array_equal(found.low, interval(z, means_of, seed=1).low)


def test_interval_of_a_mean_over_prompts_is_the_textbook_one():
    values = np.random.default_rng(1).normal(size=200)
    found = interval(values[None, :, None, None], mean, draws=4000)
    half = 1.96 * values.std() / np.sqrt(200)
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)


@pytest.mark.parametrize("of", ["prompts", "seeds"])
def test_prompts_and_seeds_are_both_drawn(of):
    """Whichever of the two the scores depend on, the interval shows it; each prompt has seeds of
    its own, so what depends on seeds is known from all of the cells."""
    z = np.random.default_rng(2).normal(size=(1, 8, 8, 1))
    by_prompt = z.mean(axis=2, keepdims=True)
    if of == "prompts":
        z, independent = np.broadcast_to(by_prompt, z.shape), 8
    else:
        z, independent = z - by_prompt, 64
    found = interval(z, mean)
    expected = 2 * 1.96 * z.std() / np.sqrt(independent)
    assert found.high - found.low == pytest.approx(expected, rel=0.2)


def test_nothing_varies_in_a_single_cell():
    found = interval(np.full((2, 1, 1, 1), 3.0), mean)
    assert (found.value, found.low, found.high) == (3, 3, 3)


def test_interval_of_what_is_not_known():
    z = np.ones((2, 4, 3, 1))
    z[1] = np.nan
    found = interval(z, means_of)
    assert found.low[:, 0].tolist() == pytest.approx([1.0, np.nan], nan_ok=True)


def test_ratio_is_paired():
    """Twice as much for every prompt and seed is twice as much, however they vary."""
    z = np.random.default_rng(3).exponential(size=(2, 9, 4, 1))
    alone = interval(z, mean)
    assert alone.high - alone.low > 0.3 * alone.value
    found = ratio_interval(2 * z, z, mean)
    assert [found.value, found.low, found.high] == pytest.approx([2, 2, 2])


def test_ratio_of_models_with_other_numbers_of_points():
    rng = np.random.default_rng(4)
    found = ratio_interval(rng.random((5, 6, 3, 2)), rng.random((1, 6, 3, 2)), metrics.volume_of)
    assert found.low < found.value < found.high
    with pytest.raises(ValueError, match="not the same prompts and seeds"):
        ratio_interval(rng.random((5, 6, 3, 2)), rng.random((5, 6, 2, 2)), metrics.volume_of)


def test_ratio_to_nothing_is_not_known():
    z = np.ones((1, 3, 2, 1))
    found = ratio_interval(z, 0 * z, mean)
    assert np.isnan([found.value, found.low, found.high]).all()


REQUESTED = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])


def test_control_error_and_saturation_by_hand():
    obtained = np.array([-1.0, -1.0, 0.5, 1.0, 1.0])
    assert metrics.reached_range(obtained) == (-1.0, 1.0)
    assert metrics.control_error(REQUESTED, obtained, (-1.0, 1.0)) == pytest.approx(0.5 / 3)
    assert metrics.saturation(REQUESTED, obtained) == pytest.approx(0.5)


def test_errors_within_a_reach_that_is_given():
    """A model is judged by the requests in there, wherever what it obtains ends."""
    obtained = np.array([-1.0, -1.5, 0.5, 0.0, 9.0])
    assert metrics.control_error(REQUESTED, obtained, (-1.0, 1.5)) == pytest.approx(2 / 3)
    assert metrics.control_error(REQUESTED, obtained, (-0.5, 0.5)) == pytest.approx(0.5)
    assert np.isnan(metrics.control_error(REQUESTED, obtained, (0.2, 0.4)))
    assert np.isnan(metrics.control_error(REQUESTED, np.full(5, np.nan), (-1.0, 1.5)))
    z = obtained[:, None, None] + np.array([[-0.75, 0.75]])
    assert metrics.sample_error(REQUESTED, z, (-0.5, 0.5)) == pytest.approx(0.75)
    assert np.isnan(metrics.sample_error(REQUESTED, z, (0.2, 0.4)))


def test_a_model_that_reaches_further_than_asked_does_not_saturate():
    assert metrics.saturation(REQUESTED, 3 * REQUESTED) == 0
    assert metrics.control_error(REQUESTED, 3 * REQUESTED, (-6.0, 6.0)) == pytest.approx(12 / 5)


def test_a_slider_that_does_nothing():
    obtained = np.full(5, 0.3)
    reachable = metrics.reached_range(obtained)
    assert np.isnan(
        metrics.control_error(REQUESTED, obtained, reachable)
    )  # no request lies in there
    assert metrics.saturation(REQUESTED, obtained) == 1
    assert metrics.saturation(REQUESTED, np.full(5, 7.0)) == 1


def test_control_of_nothing_known():
    nothing = np.full(5, np.nan)
    reachable = metrics.reached_range(nothing)
    assert np.isnan(metrics.control_error(REQUESTED, nothing, reachable))
    assert np.isnan(metrics.saturation(REQUESTED, nothing))
    assert np.isnan(metrics.sample_error(REQUESTED, np.full((5, 2, 2), np.nan), reachable))
    assert np.isnan(metrics.rank_control(REQUESTED, np.full((5, 2, 2), np.nan))).all()


def test_samples_scatter_where_their_means_do_not():
    z = REQUESTED[:, None, None] + np.array([[-0.5, 0.5], [0.25, -0.25]])
    reachable = (-2.0, 2.0)
    assert metrics.control_error(
        REQUESTED, means_of(z[..., None])[:, 0], reachable
    ) == pytest.approx(0)
    assert metrics.sample_error(REQUESTED, z, reachable) == pytest.approx(0.375)


@given(st.lists(numbers, min_size=2, max_size=8, unique=True).map(sorted))
def test_what_is_asked_is_obtained(asked):
    requested = np.array(asked)
    assert metrics.control_error(requested, requested, metrics.reached_range(requested)) == 0
    assert metrics.saturation(requested, requested) == pytest.approx(0)


def test_rank_control_counts_only_whole_sweeps():
    z = np.stack([REQUESTED, -REQUESTED, REQUESTED], axis=1)[:, :, None]
    z[2, 2] = np.nan
    of_means, per_sample = metrics.rank_control(REQUESTED, z)
    assert per_sample == pytest.approx(0)  # the median of 1 and -1; the third has a gap
    assert of_means == pytest.approx(1)  # what is left of the third tips the balance
