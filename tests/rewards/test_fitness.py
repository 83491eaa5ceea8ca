"""Scores that make no scale: a few that decide it, nearly all the same, a range that is too narrow,
two rewards that are one or exclude each other."""

import numpy as np
import pytest

from ric_diffusion.rewards import RewardSpace, alike, constant, exclusive, narrow, outliers


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("count", [10, 100, 3000])
def test_ordinary_scores_have_no_outliers(seed, count):
    rng = np.random.default_rng(seed)
    assert outliers(rng.normal(size=count)) == []
    assert outliers(rng.uniform(size=count)) == []
    assert outliers(np.arange(count) % 2) == []


def test_one_score_that_decides_the_scale():
    scores = np.random.default_rng(0).normal(size=31)
    scores[17] = -500.0
    assert outliers(scores) == [17]
    assert abs((np.delete(scores, 17) - scores.mean()) / scores.std()).max() < 0.25


def test_several_that_decide_it_together():
    scores = np.random.default_rng(0).normal(size=300)
    scores[[5, 90]] = 1e4, 1.1e4
    assert outliers(scores) == [90, 5]
    scores[[1, 2, 3, 4]] = 1.2e4  # 6 of 300 are a group of their own
    assert outliers(scores) == []


def test_too_few_to_say():
    assert outliers([*range(18), 1e9]) == []
    assert outliers([*range(19), 1e9]) == [19]


def test_narrow_ranges():
    rng = np.random.default_rng(0)
    wide = rng.normal(size=1000)
    tails = wide * 0.01
    tails[:8] = 100.0, -100.0, 90.0, -90.0, 80.0, -80.0, 110.0, -110.0
    space = RewardSpace.fit({"wide": wide, "tails": tails, "coin": np.arange(1000) % 2})
    assert narrow(space) == ["tails"]


def test_nearly_all_the_same():
    rng = np.random.default_rng(0)
    scores = np.where(np.arange(1000) < 60, rng.normal(size=1000), 3.0)
    assert constant(scores) == 940
    assert constant(np.where(np.arange(1000) < 150, rng.normal(size=1000), 3.0)) == 0
    assert constant(rng.normal(size=1000)) == 0


@pytest.mark.parametrize(
    ("correlation", "one", "apart"),
    [
        (-0.998, False, True),
        (-0.95, False, False),
        (0, False, False),
        (0.95, False, False),
        (0.998, True, False),
    ],
)
def test_two_that_are_one_or_exclude_each_other(correlation, one, apart):
    cov = [[1, correlation], [correlation, 1]]
    first, second = np.random.default_rng(0).multivariate_normal([0, 0], cov, 2000).T
    skewed = np.exp(2 * second)  # only the order counts
    assert (alike(first, skewed), exclusive(first, skewed)) == (one, apart)
    assert not alike(first[:19], second[:19]) and not exclusive(first[:19], second[:19])


def test_rewards_of_which_each_sample_has_one():
    first, second = np.random.default_rng(0).uniform(size=(2, 900)) * np.eye(3)[:2].repeat(300, 1)
    assert exclusive(first, second) and not alike(first, second)
    most = np.arange(900) % 5 > 0  # four in five have it in full: none is above the median
    assert not exclusive(most, second) and not alike(most, most[::-1])
