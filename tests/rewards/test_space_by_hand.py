"""A reward space written out: its table, its lines of refusal word for word, its numbers."""

import math
from dataclasses import replace

import numpy as np
import pytest

from ric_diffusion.io.errors import InputError
from ric_diffusion.rewards import RewardSpace
from ric_diffusion.rewards.mappings import MARGIN, alone, front, leave
from ric_diffusion.rewards.space import MOST_COUNT, Reward

A = Reward(
    name="a", unit="kB", mean=50.0, std=25.0, quantiles=tuple(float(q) for q in range(101)),
    scorer={"name": "a", "options": {}}, fingerprint="f",
)  # fmt: skip
B = replace(A, name="b", unit="", mean=0.5, std=0.25, quantiles=tuple(q / 100 for q in range(101)))
SPACE = RewardSpace(
    rewards=(A, B), front=((1.5, -1.0), (-1.0, 1.5)), count=1000, corners=((1.9, -1.5), (-1.5, 1.8))
)


def said_of(make):
    with pytest.raises(InputError) as error:
        make()
    return str(error.value)


def test_the_table():
    assert str(SPACE).splitlines() == [
        "reward  unit  mean   std      range in z  range in the unit",
        "a       kB      50    25  -1.96 to +1.96            1 to 99",
        "b              0.5  0.25  -1.96 to +1.96       0.01 to 0.99",
        "1000 samples; z = (score - mean) / std",
    ]
    assert repr(SPACE) == "RewardSpace(a, b; 1000 samples)"
    assert repr(replace(SPACE, count=None)) == "RewardSpace(a, b; no samples, taken to be normal)"
    page = SPACE._repr_html_()
    assert page.startswith("<table><tr><th>reward</th><th>unit</th><th>mean</th>")
    assert "<tr><td>a</td><td>kB</td><td>50</td><td>25</td><td>-1.96 to +1.96</td>" in page
    assert page.endswith("</table><p>1000 samples; z = (score - mean) / std</p>")


def test_its_numbers():
    assert SPACE.means.tolist() == [50.0, 0.5] and SPACE.stds.tolist() == [25.0, 0.25]
    assert SPACE.lows == pytest.approx([-1.96, -1.96])
    assert SPACE.highs == pytest.approx([1.96, 1.96])
    assert SPACE.range("b") == pytest.approx((-1.96, 1.96))
    assert SPACE.quantile("a", 0.255) == pytest.approx((25.5 - 50) / 25)
    assert SPACE.quantile("a", 0) == -2.0 and SPACE.quantile("a", 1) == 2.0
    assert SPACE.normalize([[75.0, 0.0]]).tolist() == [[1.0, -2.0]]
    assert SPACE.denormalize([[1.0, -2.0]]).tolist() == [[75.0, 0.0]]
    assert SPACE.clamp({"b": 9.0, "a": -9.0}) == pytest.approx({"a": -1.96, "b": 1.96})
    assert list(SPACE.clamp({"b": 1.0, "a": 1.0})) == ["a", "b"]
    assert SPACE.subset(["b"]).corners == ((1.8,),) and SPACE.subset(["b"]).front == ((1.5,),)
    turned = SPACE.subset(["b", "a"])
    assert turned.names == ("b", "a") and turned.corners == ((1.8, -1.5), (-1.5, 1.9))
    assert turned.units == ("", "kB")


def test_normal_rewards_by_hand():
    space = RewardSpace.normal(
        {"a": (10.0, 2.0)}, units={"a": "kB"}, scorers={"a": {}}, fingerprints={"a": "f"}
    )
    (reward,) = space.rewards
    assert reward.quantiles[50] == pytest.approx(10.0)
    assert reward.quantiles[84] == pytest.approx(10 + 2 * 0.99446, abs=1e-4)
    assert reward.quantiles[0] == pytest.approx(10 - 2 * 3.09023, abs=1e-4)  # of a thousandth
    assert reward.quantiles[100] == pytest.approx(10 + 2 * 3.09023, abs=1e-4)
    assert (reward.unit, reward.fingerprint, space.count) == ("kB", "f", None)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "A"}, "reward name 'A': use small letters, digits and _, a letter first"),
        ({"name": "a" * 101},
         f"reward name {'a' * 101!r}: use small letters, digits and _, a letter first"),
        ({"name": 3}, "reward name 3: use small letters, digits and _, a letter first"),
        ({"unit": 3}, "a: unit must be text, not 3"),
        ({"unit": "x" * 1001}, "a: unit has 1001 characters; 1000 is the most"),
        ({"fingerprint": None}, "a: fingerprint must be text, not None"),
        ({"fingerprint": "x" * 10_001}, "a: fingerprint has 10001 characters; 10000 is the most"),
        ({"mean": "x"}, "a: mean must be a number, not 'x'"),
        ({"mean": 2e12}, "a: mean is 2000000000000.0; 1e+12 is the most, either way"),
        ({"std": math.nan}, "a: std must be finite, not nan"),
        ({"std": 2e12}, "a: std is 2000000000000.0; 1e+12 is the most, either way"),
        ({"quantiles": (2e12,) * 101},
         "a: quantiles is 2000000000000.0; 1e+12 is the most, either way"),
        ({"quantiles": A.quantiles[:100]}, "a: quantiles must be 101 numbers that never fall"),
        ({"quantiles": A.quantiles[::-1]}, "a: quantiles must be 101 numbers that never fall"),
        ({"centring": 3}, "a: centring must be one, not 3"),
        ({"std": 0.0},
         "a: nearly every sample scores 1.0; a reward that does not vary cannot be steered, leave "
         "it out"),
        ({"quantiles": (0.0, *(5.0,) * 99, 9.0)},
         "a: nearly every sample scores 5.0; a reward that does not vary cannot be steered, leave "
         "it out"),
        ({"std": 1e-5}, "a: a quantile is at 5e+06 z; give the scores' own std"),
        ({"scorer": {"name": math.nan}},
         "a: scorer must be a plain JSON object (Out of range float values are not JSON compliant"),
    ],
)  # fmt: skip
def test_what_is_no_reward(changes, said):
    assert said_of(lambda: replace(A, **changes)).startswith(said)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rewards": ()}, "a reward space needs at least one reward"),
        ({"rewards": tuple(replace(A, name=f"a{i}") for i in range(101))},
         "reward space: 101 rewards; 100 is the most"),
        ({"rewards": (B, A, A, B)}, "reward 'a' is there twice; names must differ"),
        ({"count": 0}, "count must be a whole number above 0, not 0"),
        ({"count": True}, "count must be a whole number above 0, not True"),
        ({"count": 1.5}, "count must be a whole number above 0, not 1.5"),
        ({"count": MOST_COUNT + 1}, f"count must be a whole number above 0, not {MOST_COUNT + 1}"),
        ({"front": 3}, "front must be a list, not 3"),
        ({"front": ((0.0, 0.0),) * 20_001},
         "reward space: front has 20001 points; 20000 is the most"),
        ({"front": ((0.0, "x"),)}, "front must be a number, not 'x'"),
        ({"front": ((0.0, 2e6),)}, "front is 2000000.0; 1e+06 is the most, either way"),
        ({"front": ()}, "reward space: front must hold points of 2 numbers each"),
        ({"front": ((0.0,),)}, "reward space: front must hold points of 2 numbers each"),
        ({"front": ((0.0, 0.0), (1.0, 0.0))},
         "reward space: front must hold only points that do not dominate each other"),
        ({"corners": 3}, "corners must be a list, not 3"),
        ({"corners": (3,)}, "corners must be a list, not 3"),
        ({"corners": ((1.0, "x"), (0.0, 1.0))}, "corners must be a number, not 'x'"),
        ({"corners": ((2e6, 0.0), (0.0, 1.0))},
         "corners is 2000000.0; 1e+06 is the most, either way"),
        ({"corners": ((1.0, 0.0),)},
         "reward space: corners must be 2 points of 2 numbers each"),
        ({"corners": ((1.0, 0.0), (1.0,))},
         "reward space: corners must be 2 points of 2 numbers each"),
        ({"corners": ((1.0, 0.0), (1.5, 1.0))},
         "reward space: each reward must be highest at its own corner"),
    ],
)  # fmt: skip
def test_what_is_no_space(changes, said):
    assert said_of(lambda: replace(SPACE, **changes)) == said
    assert replace(SPACE, count=MOST_COUNT).count == MOST_COUNT
    assert replace(SPACE, corners=((1.0, 1.0), (1.0, 1.0))).corners[0] == (1.0, 1.0)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda: SPACE.quantile("a", 1.5), "a: quantile level must lie in [0, 1], not 1.5"),
        (lambda: SPACE.range("c"), "reward space: unknown reward 'c'; one of: a, b"),
        (lambda: SPACE.subset([]), "no rewards given; a reward space needs at least one"),
        (lambda: SPACE.check_targets({"c": 1.0}), "targets: unknown reward 'c'; one of: a, b"),
        (lambda: SPACE.check_targets({"a": "x"}, "--z"), "--z: a must be a number, not 'x'"),
        (lambda: SPACE.check_targets(3), "targets must map names to values, not 3"),
        (lambda: SPACE.check_preference({"a": -1}), "preference: a must be 0 or above, not -1.0"),
        (lambda: SPACE.check_preference({"a": 0}),
         "preference: every weight is 0; give one of a, b above 0"),
        (lambda: SPACE.check_preference({}),
         "preference: no weights given; give one of a, b above 0"),
        (lambda: SPACE.normalize([1.0, 2.0]),
         "an array of shape (2,) given; expected (N, 2), columns a, b"),
        (lambda: SPACE.denormalize([[1.0]]),
         "an array of shape (1, 1) given; expected (N, 2), columns a, b"),
        (lambda: RewardSpace.fit({}), "no scores given; give at least one reward"),
        (lambda: RewardSpace.fit({"a": [1, 2], "b": [1]}),
         "rewards differ in their number of scores: {'a': 2, 'b': 1}"),
        (lambda: RewardSpace.fit({"a": [1, 2]}, units={"b": "kB"}),
         "reward space: unknown reward 'b'; one of: a"),
        (lambda: RewardSpace.from_dict(3), "reward space must map names to values, not 3"),
        (lambda: RewardSpace.from_dict({}),
         "reward space: format_version None is unknown; this release reads 1"),
        (lambda: RewardSpace.from_dict({"format_version": 1}),
         "reward space: field rewards, front, count is missing"),
        (lambda: RewardSpace.from_dict({**SPACE.to_dict(), "rewards": 3}),
         "reward space: rewards must be a list, not 3"),
        (lambda: RewardSpace.from_dict({**SPACE.to_dict(), "rewards": [3]}),
         "reward must map names to values, not 3"),
        (lambda: Reward.from_dict({**A.to_dict(), "x": 1}),
         "reward: unknown field 'x'; one of: name, unit, mean, std, quantiles, scorer, "
         "fingerprint, centring"),
        (lambda: Reward.from_dict({**A.to_dict(), "scorer": {"name": 3}}),
         "a: scorer: name must be text, not 3"),
        (lambda: RewardSpace.normal({"a": (0, 0)}, units={}, scorers={}, fingerprints={}),
         "a: std must be above 0, not 0"),
        (lambda: RewardSpace.normal({"a": (0, "x")}, units={}, scorers={}, fingerprints={}),
         "a: std must be a number, not 'x'"),
        (lambda: RewardSpace.normal({"a": ("x", 1)}, units={}, scorers={}, fingerprints={}),
         "a: mean must be a number, not 'x'"),
    ],
)  # fmt: skip
def test_what_is_asked_wrongly(ask, said):
    assert said_of(ask) == said


def test_preferences_along_the_front_by_hand():
    """Two rewards: straight lines between the points, then on to the corners."""
    points, corners = np.array(SPACE.front), np.array(SPACE.corners)
    assert leave(np.array([0.5, 0.5]), points) == pytest.approx([0.25, 0.25])
    assert leave(np.array([0.8, 0.2]), points) == pytest.approx([1.0, -0.5])
    assert front(np.array([0.5, 0.5]), points, corners) == pytest.approx([0.25, 0.25])
    assert front(np.array([1.0, 0.0]), points, corners) == pytest.approx([1.9, -1.5])
    assert front(np.array([0.0, 1.0]), points, corners) == pytest.approx([-1.5, 1.8])
    # Price of the first corner: it takes 0.5 z for 0.4, so it is gone to with 1.25 as exponent.
    share = 0.6**1.25
    assert front(np.array([0.8, 0.2]), points, corners) == pytest.approx(
        [1.0 + share * 0.4, -0.5 - share * 0.5]
    )
    assert front(np.array([0.8, 0.2]), points) == pytest.approx([1.0, -0.5])


def test_how_far_corners_are_gone_to_by_hand():
    one, none = np.ones(2), np.zeros(2)
    assert alone(np.array([1.0]), np.zeros(1), np.zeros(1)).tolist() == [1.0]
    assert alone(np.array([0.75, 0.25]), one, none) == pytest.approx([0.5, 0.0])
    assert alone(np.array([0.75, 0.25]), one, 2 * one) == pytest.approx([0.25, 0.0])
    assert alone(np.array([0.75, 0.25]), one, 0.5 * one) == pytest.approx([0.5, 0.0])
    assert alone(np.array([0.75, 0.25]), one, 99 * one) == pytest.approx([0.5**8, 0.0])
    assert alone(np.array([0.75, 0.25]), none, none) == pytest.approx([0.5**8, 0.0])
    three = alone(np.array([0.5, 0.5, 0.0]), np.ones(3), np.zeros(3))
    assert three == pytest.approx([0.25, 0.25, 0.0])


def test_three_rewards_leave_their_front_by_hand():
    """The ray to the farthest point along it; with a margin it starts below the worst."""
    points = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.4, 0.4, 0.4]])
    assert leave(np.ones(3) / 3, points) == pytest.approx([0.4, 0.4, 0.4])
    assert leave(np.array([1.0, 0.0, 0.0]), points) == pytest.approx([1.0, 0.0, 0.0])
    assert leave(np.array([0.5, 0.5, 0.0]), points) == pytest.approx([0.4, 0.4, 0.0])
    low, t = -MARGIN, 0.5 / 0.5  # 0.4 + MARGIN over the weight, by which the ray is as long
    assert leave(np.array([0.5, 0.5, 0.0]), points, MARGIN) == pytest.approx(
        [low + t * 0.5, low + t * 0.5, 0.0]
    )
