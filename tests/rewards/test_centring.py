"""Scores compared within their prompts: what is estimated, and what is made of it."""

import numpy as np
import pytest

from ric_diffusion.io.errors import InputError
from ric_diffusion.rewards import Centring, PromptGroups, RewardSpace

CENTRING = Centring(mean=10.0, between=2.0, within=1.0, variation=0.5)


def drawn(rng, prompts, each, between=3.0, within=1.0):
    """Scores of ``each`` samples of every prompt, the prompts' own part, and the prompts."""
    own = between * rng.normal(size=prompts)
    names = [f"prompt {g}" for g in range(prompts) for _ in range(each)]
    parts = within * rng.normal(size=prompts * each)
    return 20 + np.repeat(own, each) + parts, parts, names


def centred(centring, scores, prompts):
    groups = PromptGroups.of(np.reshape(scores, (-1, 1)), prompts)
    known = (array[:, 0] for array in groups.at(prompts))
    return centring.centre(np.asarray(scores, float), *known)


def test_groups_by_hand():
    scores = [[1.0, 5.0], [3.0, np.nan], [10.0, 7.0], [np.nan, 9.0]]
    groups = PromptGroups.of(scores, ["a", "a", "b", "a"])
    counts, means, squares = groups.at(["b", "a", "never"])
    assert counts.tolist() == [[1, 1], [2, 2], [0, 0]]
    assert means.tolist() == [[10, 7], [2, 7], [0, 0]]
    assert squares.tolist() == [[0, 0], [2, 8], [0, 0]]


def test_groups_of_two_lots_of_samples_are_those_of_all():
    rng = np.random.default_rng(0)
    scores, names = rng.normal(5, 2, (60, 2)), [f"{i}" for i in rng.integers(9, size=60)]
    asked = [*sorted(set(names)), "never"]
    whole = PromptGroups.of(scores, names)
    nothing = PromptGroups.of(np.zeros((0, 2)), [])
    for cut in (1, 20, 59):
        parts = (
            PromptGroups.of(scores[:cut], names[:cut]),
            PromptGroups.of(scores[cut:], names[cut:]),
        )
        for groups in (parts[0] + parts[1], parts[1] + parts[0], whole + nothing, nothing + whole):
            for found, expected in zip(groups.at(asked), whole.at(asked), strict=True):
                np.testing.assert_allclose(found, expected)


def test_a_fit_by_hand():
    found = Centring.fit([1.0, 3.0, 5.0, 9.0], ["a", "a", "b", "b"])
    # Within (2 + 8) / 2; between the means 2 and 7 a square of 25, (25 - 5) / 2 beyond that.
    assert found.within == pytest.approx(5**0.5) and found.between == pytest.approx(10**0.5)
    assert (found.mean, found.variation) == (4.5, 0)


def test_a_fit_to_groups_of_unequal_sizes_by_hand():
    groups = {"a": [0.0, 4.0], "b": [1.0, 25.0, -7.0, 9.0], "c": [90.0], "d": [-40.0, -39.5, -38.0]}
    scores = [score for own in groups.values() for score in own]
    found = Centring.fit(scores, [name for name, own in groups.items() for _ in own])
    total, means = len(scores), {name: sum(own) / len(own) for name, own in groups.items()}
    squares = {name: sum((x - means[name]) ** 2 for x in own) for name, own in groups.items()}
    freedom = {name: len(own) - 1 for name, own in groups.items() if len(own) > 1}
    within = sum(squares.values()) / sum(freedom.values())
    fourth = sum(d * (squares[g] / d) ** 2 / (1 + 2 / d) for g, d in freedom.items())
    overall = sum(scores) / total
    square = sum(len(own) * (means[g] - overall) ** 2 for g, own in groups.items()) / 3
    size = (total - sum(len(own) ** 2 for own in groups.values()) / total) / 3
    between = (square - within) / size
    weights = {g: len(own) / (within + len(own) * between) for g, own in groups.items()}
    assert found.within == pytest.approx(within**0.5)
    assert found.between == pytest.approx(between**0.5)
    assert found.variation == pytest.approx(fourth / sum(freedom.values()) / within**2 - 1)
    assert found.variation > 0.1
    assert found.mean == pytest.approx(
        sum(weights[g] * means[g] for g in groups) / sum(weights.values())
    )


@pytest.mark.parametrize("each", [2, 6])
def test_a_fit_finds_what_scores_were_drawn_with(each):
    scores, _, names = drawn(np.random.default_rng(0), 2000, each, between=3.0, within=0.5)
    found = Centring.fit(scores, names)
    assert found.mean == pytest.approx(20, abs=0.2)
    assert found.between == pytest.approx(3, rel=0.05)
    assert found.within == pytest.approx(0.5, rel=0.05)
    assert found.variation < 0.1


def test_a_fit_sees_that_prompts_differ_in_spread():
    rng = np.random.default_rng(1)
    variances = 6 / rng.gamma(4, size=4000)  # inverse gamma, shape 4: mean 2, variation 1 / 2
    scores = np.concatenate([rng.normal(0, v**0.5, 8) for v in variances])
    found = Centring.fit(scores, [f"{g}" for g in range(4000) for _ in range(8)])
    assert found.within == pytest.approx(2**0.5, rel=0.03)
    assert found.variation == pytest.approx(0.5, rel=0.35)


def test_what_does_not_differ_between_prompts_is_not_centred():
    scores = [1.0, 2.0, 3.0, 3.0, 2.0, 1.0]
    found = Centring.fit(scores, ["a", "a", "a", "b", "b", "b"])
    assert found.between == 0
    assert centred(found, scores, ["a", "a", "a", "b", "b", "b"]) == pytest.approx(
        np.array(scores) - 2
    )


def test_a_sample_alone_is_drawn_to_the_mean_and_has_the_spread_of_all():
    # It is to 1 part in 5 its own, as far as anybody knows: σ² / (τ² + σ²).
    assert centred(CENTRING, [15.0], ["a"]) == pytest.approx([(15 - 10) / 5])


def test_a_large_group_has_its_own_mean_and_spread():
    rng = np.random.default_rng(0)
    scores = rng.normal(-50, 7, 20_000)
    found = centred(CENTRING, scores, ["a"] * len(scores))
    assert found == pytest.approx((scores - scores.mean()) / scores.std(), abs=2e-2)


def test_a_small_group_lies_between():
    found = centred(CENTRING, [14.0, 18.0], ["a", "a"])
    usual = 10 + (16 - 10) * 2 * 4 / (2 * 4 + 1)
    # k is 2 + 2 / 0.5, and the group's variance 8.
    spread = ((6 * 1 + 1 * 8) / (6 + 1)) ** 0.5
    assert found == pytest.approx([(14 - usual) / spread, (18 - usual) / spread])


def test_a_prompt_without_samples_is_like_all():
    assert CENTRING.centre(np.array([12.0]), *np.zeros((3, 1))) == pytest.approx([2.0])


def test_the_order_of_groups_and_their_names_do_not_matter():
    scores, _, names = drawn(np.random.default_rng(2), 30, 4)
    turned = np.random.default_rng(3).permutation(len(scores))
    other = Centring.fit(scores[turned], [names[i] for i in turned])
    found = Centring.fit(scores, names)
    for key, value in found.to_dict().items():
        assert other.to_dict()[key] == pytest.approx(value)
    again = Centring.fit(scores.copy(), [f"x{name}" for name in names])
    assert again == found  # to the bit


@pytest.mark.parametrize(
    ("scores", "prompts", "said"),
    [
        ([1.0, 2.0], ["a", "b"], "no prompt has two samples to compare; `ric sample-prompts`"),
        ([1.0, 1.0, 2.0, 2.0], ["a", "a", "b", "b"], "the samples of each prompt all score the"),
        ([0.1, 0.3, 0.3 + 1e-17, 0.1], ["a", "b", "b", "a"], "the samples of each prompt all"),
    ],
)
def test_nothing_to_compare(scores, prompts, said):
    with pytest.raises(InputError, match=said):
        Centring.fit(scores, prompts)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"within": 0}, "within must be above 0"),
        ({"between": -1.0}, "between must not be negative"),
        ({"variation": float("nan")}, "variation must be finite"),
        ({"mean": "x"}, "mean must be a number"),
        ({"more": 1}, "unknown field 'more'"),
    ],
)
def test_what_a_file_may_not_hold(changes, said):
    with pytest.raises(InputError, match=f"centring: {said}"):
        Centring.from_dict({**CENTRING.to_dict(), **changes})


@pytest.fixture(scope="module")
def toy():
    """A space of one reward compared within prompts and one that is not, with its scores, the part
    of them that is the picture's, and the prompts."""
    rng = np.random.default_rng(0)
    scores, parts, names = drawn(rng, 50, 6)
    columns = {"liked": scores, "bright": rng.normal(100, 20, 300)}
    units = {"liked": "points", "bright": "%"}
    space = RewardSpace.fit(columns, prompts=names, within=["liked"], units=units)
    return space, np.stack([*columns.values()], axis=1), parts, names


def test_z_measures_the_picture_and_not_the_prompt(toy):
    space, scores, parts, names = toy
    plain = RewardSpace.fit({"liked": scores[:, 0]})
    over_all = plain.normalize(scores[:, :1])[:, 0]
    within = space.normalize(scores, names)[:, 0]
    assert np.corrcoef(over_all, parts)[0, 1] < 0.4
    assert np.corrcoef(within, parts)[0, 1] > 0.9
    assert (within.mean(), within.std()) == pytest.approx((0, 1), abs=1e-9)
    by_prompt = within.reshape(50, 6).mean(axis=1)
    assert np.abs(by_prompt).max() < 0.2 < np.abs(over_all.reshape(50, 6).mean(axis=1)).mean()


def test_the_other_reward_is_as_ever(toy):
    space, scores, _, names = toy
    alone = RewardSpace.fit({"bright": scores[:, 1]}, units={"bright": "%"})
    assert space.rewards[1] == alone.rewards[0]
    assert space.centred == ("liked",)
    z = space.normalize(scores, names)[:, 1]
    assert z.tolist() == alone.normalize(scores[:, 1:])[:, 0].tolist()
    assert alone.groups(scores[:, 1:], names).rows == {}  # nobody asks


def test_samples_are_compared_with_the_groups_that_are_given(toy):
    space, scores, _, names = toy
    whole, z = space.groups(scores, names), space.normalize(scores, names)
    some = [4, 100, 101]
    few = space.normalize(scores[some], [names[i] for i in some], whole)
    assert few == pytest.approx(z[some])
    alone = space.normalize(scores[some], [names[i] for i in some])
    assert np.abs(alone[:, 0] - z[some, 0]).max() > 0.1
    with pytest.raises(ValueError, match="liked is compared within prompts; give the prompts"):
        space.normalize(scores)


def test_a_score_that_is_missing_changes_no_other(toy):
    space, scores, _, names = toy
    holed = np.concatenate([scores, [[np.nan, 100.0]]])
    z = space.normalize(holed, [*names, names[0]])
    assert np.isnan(z[-1, 0]) and np.array_equal(z[:-1], space.normalize(scores, names))


def test_it_is_kept_in_the_file_and_a_file_without_it_is_read(toy, tmp_path):
    space = toy[0]
    space.save(tmp_path / "space.json")
    assert RewardSpace.load(tmp_path / "space.json") == space
    plain = space.to_dict()
    assert set(plain["rewards"][0]["centring"]) == {"mean", "between", "within", "variation"}
    assert "centring" not in plain["rewards"][1]  # the file of a space without is as before
    del plain["rewards"][0]["centring"]
    assert RewardSpace.from_dict(plain).centred == ()


def test_people_are_told(toy):
    space = toy[0]
    assert [reward.scale for reward in space.rewards] == ["points, within its prompt", "%"]
    lines = str(space).splitlines()
    assert "points, within its prompt      0 " in lines[1] and "within" not in lines[2]
    assert lines[-1].endswith("within its prompt: of scores less what is usual there")
    assert "within" not in str(space.subset(["bright"]))
