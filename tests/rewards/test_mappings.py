from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ric_diffusion.io.errors import InputError
from ric_diffusion.rewards import MAPPINGS, RewardSpace, opposite, to_targets
from ric_diffusion.rewards.mappings import front, l2, linear, linf, quantile

LOWS, HIGHS = np.array([-2.0, -1]), np.array([2.0, 3])
CLOSE = 1e-9
WEIGHT = st.just(0.0) | st.floats(1e-3, 1e3)

untimed = settings(deadline=None)  # the first use of a space fits it
mappings = st.sampled_from(sorted(MAPPINGS))


@cache
def fitted(n, seed):
    """A space of n rewards that agree or conflict, some skewed, some in steps."""
    rng = np.random.default_rng([n, seed])
    scores = rng.normal(size=(300, n)) @ rng.normal(size=(n, n))
    scores /= scores.std(axis=0)
    shapes = [np.exp, np.round, np.negative, lambda x: np.maximum(x, np.median(x)), np.tanh]
    for column in range(n):
        scores[:, column] = shapes[rng.integers(len(shapes))](scores[:, column])
    return RewardSpace.fit({f"r{i}": scores[:, i] * 10**i + 7 for i in range(n)})


@st.composite
def cases(draw):
    """A space and a preference over all of its rewards."""
    n = draw(st.integers(1, 6))
    weights = draw(st.lists(WEIGHT, min_size=n, max_size=n).filter(any))
    space = fitted(n, draw(st.integers(0, 4)))
    return space, dict(zip(space.names, weights, strict=True))


def values(preference, space, mapping):
    return np.array(list(to_targets(preference, space, mapping).values()))


@untimed
@given(cases(), mappings)
def test_every_reward_gets_a_finite_target_within_its_range(case, mapping):
    space, preference = case
    targets = to_targets(preference, space, mapping)
    assert tuple(targets) == space.names
    for name, target in targets.items():
        low, high = space.range(name)
        assert low <= target <= high


@settings(max_examples=300, deadline=None)
@given(cases(), mappings, st.data())
def test_raising_a_weight_never_lowers_its_target(case, mapping, data):
    space, preference = case
    name = data.draw(st.sampled_from(space.names))
    more = {**preference, name: preference[name] + data.draw(st.floats(1e-3, 1e3))}
    before, after = (to_targets(p, space, mapping)[name] for p in (preference, more))
    assert after >= before - CLOSE


@untimed
@given(cases(), mappings, st.floats(1e-3, 1e3))
def test_only_the_ratios_of_the_weights_count(case, mapping, factor):
    space, preference = case
    scaled = {name: factor * weight for name, weight in preference.items()}
    np.testing.assert_allclose(
        values(scaled, space, mapping), values(preference, space, mapping), atol=CLOSE
    )


@untimed
@given(cases(), mappings, st.randoms(use_true_random=False))
def test_the_order_of_the_rewards_does_not_matter(case, mapping, random):
    space, preference = case
    order = random.sample(space.names, len(space.names))
    targets = to_targets(preference, space, mapping)
    shuffled = to_targets(preference, space.subset(order), mapping)
    assert list(shuffled) == order
    assert shuffled == pytest.approx(targets, abs=CLOSE)


@untimed
@given(cases(), mappings)
def test_a_reward_not_named_has_weight_zero(case, mapping):
    space, preference = case
    named = {name: weight for name, weight in preference.items() if weight}
    assert to_targets(named, space, mapping) == to_targets(preference, space, mapping)


@pytest.mark.parametrize("mapping", sorted(MAPPINGS))
def test_a_single_reward_gets_its_top(mapping):
    space = fitted(1, 0)
    top = space.quantile("r0", 0.95) if mapping == "front" else space.range("r0")[1]
    assert to_targets({"r0": 0.3}, space, mapping) == pytest.approx({"r0": top})


@pytest.mark.parametrize("mapping", sorted(MAPPINGS))
@pytest.mark.parametrize("weights", [(5e-324, 0, 0), (1e308, 1e308, 1e308), (1, 1e-310, 0)])
def test_extreme_weights_stay_finite(mapping, weights):
    space = fitted(3, 0)
    assert np.isfinite(values(dict(zip(space.names, weights, strict=True)), space, mapping)).all()


@pytest.mark.parametrize(
    ("mapping", "weights", "expected"),
    [  # upstream's formulas worked by hand
        (linear, (0.7, 0.3), (0.8, 0.2)),
        (linear, (1, 0), (2, -1)),
        (l2, (0.6, 0.8), (0.4, 2.2)),
        (l2, (0.5, 0.5), (-2 + 4 / 2**0.5, -1 + 4 / 2**0.5)),
        (linf, (0.7, 0.3), (2, 1.4)),
        (linf, (0.3, 0.7), (0.4, 3)),
        (linf, (0.5, 0.5), (2, 3)),
        (linf, (0, 1), (-2, 3)),
    ],
)
def test_two_rewards_by_upstreams_formula(mapping, weights, expected):
    np.testing.assert_allclose(mapping(np.array(weights), LOWS, HIGHS), expected)


@pytest.mark.parametrize("first", [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
def test_quantile_on_upstreams_eleven_preferences(first):
    """Upstream: the larger weight gets the top, the other the quantile at twice its weight."""
    scores = np.random.default_rng(0).gamma(2, size=(2, 1000))
    space = RewardSpace.fit({"a": scores[0], "b": scores[1]})
    weights = [first, 1 - first]
    levels = [1 if weight >= 0.5 else 2 * weight for weight in weights]
    expected = [
        (np.quantile(row, np.clip(level, 0.01, 0.99)) - row.mean()) / row.std()
        for row, level in zip(scores, levels, strict=True)
    ]
    got = values(dict(zip("ab", weights, strict=True)), space, "quantile")
    np.testing.assert_allclose(got, expected, atol=1e-9)


def test_largest_of_many_gets_the_top_and_nothing_jumps_at_a_tie():
    lows, highs = np.zeros(4), np.ones(4)
    levels = np.tile(np.linspace(0, 1, 101), (4, 1))
    for weights in np.random.default_rng(0).dirichlet(np.ones(4), 100):
        for targets, top in ((linf(weights, lows, highs), 1), (quantile(weights, levels), 0.99)):
            assert targets[weights.argmax()] == top
    near = [linf(np.array([0.45 + e, 0.45 - e, 0.06, 0.04]), lows, highs) for e in (-1e-9, 1e-9)]
    np.testing.assert_allclose(*near, atol=1e-7)


CURVE = np.array([[0.0, 1], [0.6, 0.9], [0.9, 0.5], [1, 0]])


def test_front_ends_at_the_ends_and_moves_along_the_line_between():
    curve = 4 * CURVE + LOWS
    np.testing.assert_allclose(front(np.array([1, 0]), curve), [2, -1])
    np.testing.assert_allclose(front(np.array([0, 1]), curve), [-2, 3])
    np.testing.assert_allclose(front(np.array([0.4, 0.6]), curve), [0.4, 2.6])  # a point of its own
    middle = (front(np.array([0.5, 0.5]), curve) - LOWS) / 4
    np.testing.assert_allclose(middle, [5.1 / 7, 5.1 / 7])  # between (0.6, 0.9) and (0.9, 0.5)
    assert front(np.array([1, 0]), CURVE[:1]).tolist() == [0, 1]
    near = front(np.array([1 - 1e-9, 1e-9]), curve)
    np.testing.assert_allclose(near, [2, -1], atol=1e-6)  # and no step at the end


def test_front_of_three_is_the_weighted_chebyshev_achievement():
    points = np.array([[0.0, 1, 1], [1, 0, 0.5], [0.5, 0.5, 0], [0.6, 0.4, 0.8]])
    third = np.ones(3) / 3
    np.testing.assert_allclose(front(third, points), [0.4, 0.4, 0.4])
    np.testing.assert_allclose(front(np.array([0.6, 0.4, 0]), points), [0.6, 0.4, 0])
    np.testing.assert_allclose(front(np.array([1.0, 0, 0]), points), [1, 0, 0])


@pytest.mark.parametrize("n", [2, 3, 6])
def test_front_asks_for_pictures_that_exist_where_linf_does_not(n):
    """Rewards that share a budget: equal weights cannot have every reward at its top."""
    z = np.random.default_rng(0).dirichlet(np.full(n, 3), 5000)
    space = RewardSpace.fit({f"r{i}": z[:, i] for i in range(n)})
    z = space.normalize(z)
    preference = dict.fromkeys(space.names, 1.0)
    shares = {m: (z >= values(preference, space, m)).all(axis=1).mean() for m in ("front", "linf")}
    assert shares["front"] == pytest.approx(0.05, abs=0.005)
    assert shares["linf"] == 0
    assert values(preference, space, "front").min() > space.lows.max() + 0.5  # not the nadir


def test_front_between_rewards_that_exclude_each_other_is_not_the_worst_of_both():
    either = np.random.default_rng(0).uniform(size=(2000, 2)) * np.repeat(np.eye(2), 1000, axis=0)
    space = RewardSpace.fit({"a": either[:, 0], "b": either[:, 1]})
    assert (values({"a": 1, "b": 1}, space, "front") > space.lows + 0.5).all()


def test_unknown_mapping_is_refused_with_a_hint():
    with pytest.raises(InputError, match="unknown 'front_'; did you mean 'front'"):
        to_targets({"r0": 1}, fitted(1, 0), "front_")


def test_the_opposite_keeps_to_common_values():
    space = fitted(3, 0)
    assert opposite({"r0": 0.25, "r2": -0.25}, space, 2) == {"r0": -0.5, "r2": 0.5}
    assert opposite({"r0": 1.0}, space, 0) == {}
    far = opposite(dict.fromkeys(space.names, 9.0), space, 1.5)
    assert far == {name: pytest.approx(space.quantile(name, 0.3)) for name in space.names}
    far = opposite(dict.fromkeys(space.names, -9.0), space, 1.5)
    assert far == {name: space.range(name)[1] for name in space.names}
