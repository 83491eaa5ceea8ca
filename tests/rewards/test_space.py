import html
import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ric_diffusion.io.errors import InputError
from ric_diffusion.rewards import Reward, RewardSpace

RNG = np.random.default_rng(0)
SCORES = {
    "compressibility": -RNG.gamma(9, 0.3, 400).astype(np.float32),
    "colorfulness": 60 + 20 * RNG.normal(size=400),
    "aesthetic": RNG.uniform(3, 7, 400),
}
SPACE = RewardSpace.fit(
    SCORES,
    units={"compressibility": "kB"},
    scorers={"compressibility": {"name": "compressibility", "options": {"quality": 95}}},
    fingerprints={"compressibility": "pillow-12.3"},
)
MATRIX = np.stack(list(SCORES.values()), axis=1)
QUANTILES = tuple(np.linspace(-1, 1, 101).tolist())


def changed(**changes):
    """SPACE as a file holds it, with some fields replaced."""
    return {**SPACE.to_dict(), **changes}


def test_fit_keeps_order_statistics_and_what_it_was_given():
    assert SPACE.names == ("compressibility", "colorfulness", "aesthetic")
    assert SPACE.units == ("kB", "", "")
    assert SPACE.count == 400
    first = SPACE.rewards[0]
    assert first.scorer == {"name": "compressibility", "options": {"quality": 95}}
    assert (first.fingerprint, SPACE.rewards[1].fingerprint) == ("pillow-12.3", "")
    np.testing.assert_allclose(SPACE.means, MATRIX.mean(axis=0))
    np.testing.assert_allclose(SPACE.stds, MATRIX.std(axis=0))
    assert len(first.quantiles) == 101
    assert first.quantiles[0] == MATRIX[:, 0].min()
    assert first.quantiles[100] == MATRIX[:, 0].max()
    assert hash(SPACE) == hash(RewardSpace.from_dict(SPACE.to_dict()))


def test_normalize_gives_standard_units_and_back():
    z = SPACE.normalize(MATRIX)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(z.std(axis=0), 1)
    np.testing.assert_allclose(SPACE.denormalize(z), MATRIX)
    assert np.isnan(SPACE.normalize([[np.nan, 1, 1]])).tolist() == [[True, False, False]]
    with pytest.raises(InputError, match=r"shape \(2,\) given; expected \(N, 3\)"):
        SPACE.normalize([1.0, 2.0])


def test_what_samples_reach_extends_the_front_and_nothing_else():
    z = SPACE.normalize(MATRIX)
    assert SPACE.reaching(z - 1, 0.98) == SPACE  # nothing new
    further = SPACE.reaching(z + 0.3, 0.98)
    assert further.rewards == SPACE.rewards and further.count == SPACE.count
    old, new = np.array(SPACE.front), np.array(further.front)
    assert (new <= SPACE.highs + 1e-9).all()
    for point in old:  # every old point is there still, or beaten
        assert (new >= point - 1e-9).all(axis=1).any()
    assert any((new > point + 0.1).all(axis=1).any() for point in old)


def test_what_samples_reach_moves_the_corners_they_are_better_at():
    z = SPACE.normalize(MATRIX)
    further = np.array(SPACE.reaching(z + np.array([0.3, -1, -1]), 0.95).corners)
    np.testing.assert_array_equal(further[1:], SPACE.corners[1:])
    assert further[0, 0] == pytest.approx(SPACE.corners[0][0] + 0.3)
    assert (further[0, 1:] < np.array(SPACE.corners)[0, 1:] - 0.5).all()  # as those samples have it
    assert replace(SPACE, corners=None).reaching(z + 0.3, 0.95).corners is None


def test_range_and_quantile_are_percentiles_in_z():
    z = SPACE.normalize(MATRIX)
    np.testing.assert_allclose([SPACE.lows, SPACE.highs], np.percentile(z, [1, 99], axis=0))
    for i, name in enumerate(SPACE.names):
        assert SPACE.range(name) == (SPACE.lows[i], SPACE.highs[i])
        assert SPACE.range(name) == (SPACE.quantile(name, 0.01), SPACE.quantile(name, 0.99))
        np.testing.assert_allclose(SPACE.quantile(name, 0.3), np.quantile(z[:, i], 0.3))
    with pytest.raises(InputError, match=r"level must lie in \[0, 1\], not nan"):
        SPACE.quantile("aesthetic", float("nan"))
    with pytest.raises(InputError, match="unknown reward 'astetic'; did you mean 'aesthetic'"):
        SPACE.range("astetic")


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({}, "no scores given"),
        ({"a": []}, "a: no scores given"),
        ({"a": [1.0, np.nan, np.inf]}, "a: 2 of 3 scores are not finite"),
        ({"a": [1.0, 1, 1]}, "a: nearly every sample scores 1.0"),
        ({"a": [0.1] * 7}, "a: nearly every sample scores 0.1"),
        ({"a": [5.0]}, "a: nearly every sample scores 5.0"),
        ({"a": [0.0] * 9999 + [1.0]}, "a: nearly every sample scores 0.0"),
        ({"a": [-1e308, 1e308]}, "a: .* must be finite"),
        ({"a": [1, 2], "b": [1, 2, 3]}, "differ in their number of scores: {'a': 2, 'b': 3}"),
        ({"a": [[1, 2], [3, 4]]}, "a: scores must be one list of numbers"),
        ({"a": [[1, 2], [3]]}, "a: scores must be one list of numbers"),
        ({"a": ["1", "2"]}, "a: scores must be one list of numbers"),
        ({"a": [1.0, None]}, "a: scores must be one list of numbers"),
        ({"A": [1, 2]}, "reward name 'A'"),
        ({"1a": [1, 2]}, "reward name '1a'"),
        ({"a b": [1, 2]}, "reward name 'a b'"),
        ({"a\n": [1, 2]}, "reward name"),
        ({"": [1, 2]}, "reward name ''"),
    ],
)
def test_fit_refuses(scores, message):
    with pytest.raises(InputError, match=message) as error:
        RewardSpace.fit(scores)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["units", "scorers", "fingerprints"])
def test_fit_refuses_extras_for_unknown_rewards(key):
    with pytest.raises(InputError, match="unknown reward 'b'"):
        RewardSpace.fit({"a": [1, 2, 3]}, **{key: {"b": {}}})


def test_rewards_must_differ_in_name_and_scorers_be_json():
    reward = Reward(name="a", unit="", mean=0, std=1, quantiles=QUANTILES)
    with pytest.raises(InputError, match="'a' is there twice"):
        RewardSpace(rewards=(reward, reward), front=((0, 0),), count=3)
    with pytest.raises(InputError, match="at least one reward"):
        RewardSpace(rewards=(), front=(), count=3)
    with pytest.raises(InputError, match="a: scorer must be a plain JSON object"):
        Reward(name="a", unit="", mean=0, std=1, quantiles=QUANTILES, scorer={"name": print})
    options = {"size": (4, 4)}
    copied = Reward(name="a", unit="", mean=0, std=1, quantiles=QUANTILES, scorer=options)
    options["size"] = None
    assert copied.scorer == {"size": [4, 4]}


NUMBERS = st.floats(-1e6, 1e6)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=3, max_size=30))
def test_round_trip_is_exact_for_whatever_can_be_fitted(rows):
    try:
        space = RewardSpace.fit({"a": [a for a, _ in rows], "b": [b for _, b in rows]})
    except InputError as error:
        assert "nearly every sample" in str(error)
        return
    again = RewardSpace.from_dict(json.loads(json.dumps(space.to_dict())))
    assert again == space
    assert again.to_dict() == space.to_dict()


def test_save_and_load(tmp_path):
    path = tmp_path / "new" / "reward_space.json"
    SPACE.save(path)
    assert RewardSpace.load(path) == SPACE
    assert [file.name for file in path.parent.iterdir()] == ["reward_space.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", "reward space must map names to values"),
        (b"{}", "format_version None is unknown; this release reads 1"),
    ],
)
def test_load_refuses_files_of_another_kind(tmp_path, content, message):
    path = tmp_path / "reward_space.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        RewardSpace.load(path)
    assert str(path) in str(error.value)


def test_load_refuses_a_missing_file(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        RewardSpace.load(tmp_path / "none.json")


REWARD = SPACE.to_dict()["rewards"][0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (changed(format_version=2), "format_version 2 is unknown"),
        (changed(fronts=[]), "unknown field 'fronts'; did you mean 'front'"),
        ({"format_version": 1, "rewards": []}, "field front, count is missing"),
        (changed(rewards={}), "rewards must be a list"),
        (changed(rewards=[]), "at least one reward"),
        (changed(rewards=[3]), "reward must map names to values"),
        (changed(rewards=[{**REWARD, "std": 0.0}]), "compressibility: nearly every sample"),
        (changed(rewards=[{**REWARD, "std": -1}]), "compressibility: nearly every sample"),
        (changed(rewards=[{**REWARD, "mean": "0"}]), "compressibility: mean must be a number"),
        (changed(rewards=[{**REWARD, "mean": float("nan")}]), "mean must be finite"),
        (changed(rewards=[{**REWARD, "mean": 10**400}]), "mean must be a number"),
        (changed(rewards=[{**REWARD, "unit": None}]), "unit must be text"),
        (changed(rewards=[{**REWARD, "more": 1}]), "reward: unknown field 'more'"),
        (changed(rewards=[3]), "reward must map names"),
        (changed(rewards=[{**REWARD, "name": ["a"]}]), "reward name"),
        (changed(rewards=[{**REWARD, "scorer": 3}]), "scorer must map names to values"),
        (changed(rewards=[{**REWARD, "scorer": {"name": 3}}]), "scorer: name must be text"),
        (changed(rewards=[{**REWARD, "scorer": {"options": {}}}]), "field name is missing"),
        (changed(rewards=[{**REWARD, "scorer": {"name": "a", "path": "b"}}]), "unknown field 'pa"),
        (changed(rewards=[{**REWARD, "scorer": {"name": "a", "options": [1]}}]), "options must m"),
        (changed(rewards=[{**REWARD, "unit": "\x1b[2J"}]), "without control characters"),
        (changed(rewards=[{**REWARD, "fingerprint": "x" * 10_001}]), "10000 is the most"),
        (changed(rewards=[{**REWARD, "mean": 2e12}]), "mean is 2.* is the most"),
        (changed(rewards=[{**REWARD, "std": 1e-9}]), "z; give the scores' own std"),
        (changed(rewards=[REWARD] * 101), "101 rewards; 100 is the most"),
        (changed(front=[[0, 0, 0]] * 20_001), "20001 points; 20000 is the most"),
        (changed(front=[[0, 0, 1e7]]), "front is 1.* is the most"),
        (changed(count=10**16), "count must be a whole number above 0"),
        (changed(rewards=[{**REWARD, "quantiles": [1, 2]}]), "101 numbers that never fall"),
        (changed(rewards=[{**REWARD, "quantiles": QUANTILES[::-1]}]), "that never fall"),
        (changed(count=True), "count must be a whole number above 0, not True"),
        (changed(count=0), "count must be a whole number above 0, not 0"),
        (changed(front=[]), "points of 3 numbers"),
        (changed(front=[[1, 2]]), "points of 3 numbers"),
        (changed(front=[[0, 0, 0], [1, 1, 1]]), "do not dominate each other"),
        (changed(front=[[0, 0, None]]), "front must be a number"),
        (changed(corners=[[1, 0, 0]]), "corners must be 3 points of 3 numbers"),
        (changed(corners=[[1, 0], [0, 1], [0, 0]]), "corners must be 3 points of 3 numbers"),
        (changed(corners=[[1e7, 0, 0], [0, 1, 0], [0, 0, 1]]), "corners is 1.* is the most"),
        (changed(corners=[[1, 0, 0], [2, 1, 0], [0, 0, 1]]), "highest at its own corner"),
    ],
)
def test_from_dict_refuses_what_to_dict_never_wrote(data, message):
    with pytest.raises(InputError, match=message) as error:
        RewardSpace.from_dict(data)
    assert "\n" not in str(error.value)


def test_scores_of_another_shape_are_refused():
    expected = (
        r"shape \(2, 2\) given; expected \(N, 3\), columns compressibility, colorfulness, aesthetic"
    )
    for method in (SPACE.normalize, SPACE.denormalize):
        with pytest.raises(InputError, match=expected):
            method(np.zeros((2, 2)))


def test_subset_reorders_and_projects():
    part = SPACE.subset(["aesthetic", "compressibility"])
    assert part.names == ("aesthetic", "compressibility")
    assert part.rewards == (SPACE.rewards[2], SPACE.rewards[0])
    fitted = RewardSpace.fit({name: SCORES[name] for name in part.names})
    np.testing.assert_allclose(np.max(part.front, axis=0), np.max(fitted.front, axis=0), atol=0.15)
    for names, message in (([], "at least one"), (["b"], "unknown"), (["aesthetic"] * 2, "twice")):
        with pytest.raises(InputError, match=message):
            SPACE.subset(names)


def test_check_targets_orders_and_clamp_clips():
    given = {"aesthetic": np.float32(9), "compressibility": -9}
    checked = SPACE.check_targets(given)
    assert list(checked.items()) == [("compressibility", -9.0), ("aesthetic", 9.0)]
    assert all(type(value) is float for value in checked.values())
    low, high = SPACE.range("compressibility")[0], SPACE.range("aesthetic")[1]
    assert SPACE.clamp(given) == {"compressibility": low, "aesthetic": high}
    assert SPACE.clamp({"aesthetic": 0.25}) == {"aesthetic": 0.25}
    assert SPACE.check_targets({}) == {}


@pytest.mark.parametrize("method", ["check_targets", "check_preference"])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"colourfulness": 1}, "unknown reward 'colourfulness'; did you mean 'colorfulness'"),
        ({"aesthetic": float("nan")}, "aesthetic must be finite, not nan"),
        ({"aesthetic": float("inf")}, "aesthetic must be finite, not inf"),
        ({"aesthetic": "1"}, "aesthetic must be a number, not '1'"),
        ({"aesthetic": True}, "aesthetic must be a number, not True"),
        ({"aesthetic": None}, "aesthetic must be a number, not None"),
        ({3: 1.0}, "unknown reward 3"),
        ([("aesthetic", 1)], "must map names to values"),
    ],
)
def test_checks_refuse(method, given, message):
    with pytest.raises(InputError, match=message):
        getattr(SPACE, method)(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "no weights given"),
        ({"aesthetic": 0, "colorfulness": 0.0}, "every weight is 0"),
        ({"aesthetic": 1, "colorfulness": -0.1}, "colorfulness must be 0 or above, not -0.1"),
    ],
)
def test_check_preference_refuses(given, message):
    with pytest.raises(InputError, match=message):
        SPACE.check_preference(given)


def test_check_preference_gives_floats_in_order():
    checked = SPACE.check_preference({"aesthetic": 2, "compressibility": 0})
    assert list(checked.items()) == [("compressibility", 0.0), ("aesthetic", 2.0)]


def test_the_room_imports_no_torch():
    code = "import sys, ric_diffusion.rewards; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# What a person reads.


def test_printed_it_is_a_small_table():
    header, *rows, footer = str(SPACE).splitlines()
    assert header.split("  ")[0] == "reward" and len(str(SPACE)) < 600
    assert [row.split()[0] for row in rows] == list(SPACE.names)
    assert "400 samples" in footer
    reward = SPACE.rewards[0]
    low, high = SPACE.range("compressibility")
    for shown in (
        " kB ",
        f" {reward.mean:.4g} ",
        f" {reward.std:.4g} ",
        f" {low:+.2f} to {high:+.2f} ",
        f" {reward.quantiles[1]:.4g} to {reward.quantiles[99]:.4g}",
    ):
        assert shown in rows[0]
    assert len({row.index(" to ") for row in rows}) == 1  # columns stand below each other


def test_its_repr_is_one_short_line():
    assert repr(SPACE) == "RewardSpace(compressibility, colorfulness, aesthetic; 400 samples)"
    assert len(repr(SPACE.rewards[0])) < 300


def test_in_a_notebook_the_table_is_html_and_escaped():
    scores = {"a": RNG.normal(size=50), "b": RNG.normal(size=50)}
    unit = "<script>alert('x')</script> & more"
    shown = RewardSpace.fit(scores, units={"a": unit})._repr_html_()
    assert "<script>" not in shown and html.escape(unit) in shown
    assert shown.count("<tr>") == 3 and shown.count("<th>") == 6 and shown.count("<td>") == 12
    table = SPACE._repr_html_()
    for line in str(SPACE).splitlines()[1:-1]:
        for cell in filter(None, line.split("  ")):
            assert f"<td>{cell.strip()}</td>" in table


def test_a_name_without_a_unit_leaves_its_place_empty():
    line = str(SPACE.subset(["aesthetic", "compressibility"])).splitlines()[1]
    assert line.startswith("aesthetic         ")


def test_means_and_deviations_alone_make_normal_independent_rewards():
    given = {"aesthetic": (5, 0.5), "compressibility": (-90.0, 30.0)}
    about = {
        "units": {"aesthetic": "points", "compressibility": "kB"},
        "scorers": {name: {"name": "x"} for name in given},
        "fingerprints": dict.fromkeys(given, ""),
    }
    space = RewardSpace.normal(given, **about)
    assert (space.count, space.units) == (None, ("points", "kB"))
    assert space.rewards[0].scorer == {"name": "x"}
    assert (space.means.tolist(), space.stds.tolist()) == ([5, -90], [0.5, 30])
    z = np.random.default_rng(1).normal(size=200_000)
    levels = [0.01, 0.1, 0.5, 0.8, 0.99]
    for name in space.names:
        found = [space.quantile(name, level) for level in levels]
        np.testing.assert_allclose(found, np.quantile(z, levels), atol=0.03)
    # In each direction 5 % of independent samples reach the front: of both together, at z each.
    front = np.array(space.front)
    middle = front[np.abs(front[:, 0] - front[:, 1]).argmin()].mean()
    assert (math.erfc(middle / math.sqrt(2)) / 2) ** 2 == pytest.approx(0.05, abs=0.01)
    assert RewardSpace.from_dict(space.to_dict()) == space
    assert RewardSpace.normal(given, **about) == space
    assert "no samples, taken to be normal" in repr(space) and "no samples" in str(space)
    for std, said in ((0, "std must be above 0, not 0"), (-1.5, "not -1.5"), (np.nan, "finite")):
        with pytest.raises(InputError, match=f"aesthetic: .*{said}"):
            RewardSpace.normal({**given, "aesthetic": (5, std)}, **about)


def test_joined_spaces_keep_their_rewards_and_their_own_fronts():
    rng = np.random.default_rng(3)
    a = RewardSpace.fit({"a": rng.normal(size=300), "b": rng.normal(size=300)})
    b = RewardSpace.fit({name: rng.normal(size=200) for name in "cde"})
    c = RewardSpace.fit({"f": rng.normal(size=400)})
    joined = RewardSpace.joined([a, b, c])
    assert joined.names == tuple("abcdef") and joined.count == 200
    assert joined.rewards == a.rewards + b.rewards + c.rewards
    np.testing.assert_array_equal(joined.lows, np.concatenate([a.lows, b.lows, c.lows]))
    assert RewardSpace.from_dict(joined.to_dict()) == joined
    for part, columns in ((a, slice(0, 2)), (b, slice(2, 5)), (c, slice(5, 6))):
        points = {point[columns] for point in joined.front}
        assert points <= set(part.front)  # none but its own
        best = np.array(part.front).max(axis=0)
        np.testing.assert_array_equal(np.array(list(points)).max(axis=0), best)
    # What one space has takes nothing from another: all of them at their middle at once.
    middles = [np.array(part.front)[:, 0].max() for part in (b, c)]
    assert any(point[2] == middles[0] and point[5] == middles[1] for point in joined.front)
    with pytest.raises(InputError, match="reward 'a' is there twice"):
        RewardSpace.joined([a, a])
    assert RewardSpace.joined([a, replace(c, count=None)]).count is None
    assert RewardSpace.joined([a, replace(c, corners=None)]).corners is None


def test_corners_of_joined_spaces_and_of_a_part():
    a, b = SPACE.subset(["compressibility", "aesthetic"]), SPACE.subset(["colorfulness"])
    whole = np.array(SPACE.corners)
    np.testing.assert_array_equal(a.corners, whole[np.ix_([0, 2], [0, 2])])
    joined = np.array(RewardSpace.joined([a, b]).corners)
    np.testing.assert_array_equal(joined[:2, :2], a.corners)
    assert joined[2, 2] == whole[1, 1]
    assert (joined[2, :2] == np.array(a.front).min(axis=0)).all()  # of b's nothing is given up
    np.testing.assert_allclose(joined[:2, 2], np.array(b.front).min())
    two = [RewardSpace.fit({name: [0.0, 1.0]}) for name in "ab"]  # their front is above the corner
    assert np.array(RewardSpace.joined(two).corners)[0, 1] == pytest.approx(0.9)
