"""Scores that make no scale: a few that decide it, a range that is too narrow."""

import numpy as np
import pytest

from ric_diffusion.rewards import RewardSpace, narrow, outliers


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
