"""The steps of a round on their own: requests, scored samples, selection, what is stored once."""

import dataclasses
import json

import numpy as np
import pytest

from ric_diffusion.data.records import Record
from ric_diffusion.data.standard import records_groups, records_z
from ric_diffusion.io.errors import InputError
from ric_diffusion.rewards import Centring, to_targets
from ric_diffusion.rewards.selection import best_by_quantile
from ric_diffusion.training import stored
from ric_diffusion.training.requests import SampleRequest, draw_requests
from ric_diffusion.training.sampling import (
    RoundSample,
    ScoredSample,
    in_standard_units,
    judge_samples,
    without_duplicates,
)
from ric_diffusion.training.selection import Selection, report, select
from support import points
from support.points import NAMES, Points

SPACE = points.space()


def draw(count, exploration=0.0, prompts=("a", "b", "c"), seed=0):
    rng = np.random.default_rng(seed)
    return draw_requests(prompts, SPACE, "front", count=count, exploration=exploration, rng=rng)


def test_requests_are_drawn_from_the_generator_alone():
    assert draw(20) == draw(20) != draw(20, seed=1)
    np.random.seed(3)
    assert draw(20) == draw(20)


@pytest.mark.parametrize("count", [1, 3, 7])
def test_prompts_come_in_turn(count):
    asked = [request.prompt for request in draw(count)]
    for first in range(0, count, 3):
        turn = asked[first : first + 3]
        assert len(set(turn)) == len(turn)


def test_without_exploration_a_request_is_on_the_front_and_with_it_beyond():
    plain, beyond = draw(50), draw(50, exploration=0.5)
    for request, further in zip(plain, beyond, strict=True):
        assert (request.prompt, request.seed) == (further.prompt, further.seed)
        for name in NAMES:
            assert 0 <= further.targets[name] - request.targets[name] <= 0.5
    line = np.linspace(0, 1, 401).tolist()
    front = np.array([[*to_targets({"x": 1 - w, "y": w}, SPACE).values()] for w in line])
    asked = np.array([[request.targets[name] for name in NAMES] for request in plain])
    assert np.abs(asked[:, None] - front[None]).max(axis=2).min(axis=1).max() < 0.02


NO_GROUPS = SPACE.groups(np.zeros((0, 2)), [])


def judge(samples):
    return judge_samples(
        Points(), samples, np.array(samples, dtype=float), np.ones(len(samples), bool)
    )


def test_what_cannot_be_used_has_a_reason_and_no_scores():
    batches = [(0.5, 1.0), (float("nan"), 0.0), (50.0, 0.0), (0.5, 1.0)], [(0.5, 1.0), (0.0, 0.0)]
    drawn = without_duplicates([sample for batch in batches for sample in judge(batch)])
    found, _ = in_standard_units(drawn, ["a"] * 6, SPACE, NO_GROUPS)
    reasons = [sample.reject_reason for sample in found]
    assert reasons == [None, "not a number", "out of range", "duplicate", "duplicate", None]
    assert found[0].scores == (0.5, 1.0)
    assert found[0].z == tuple(SPACE.normalize(np.array([[0.5, 1.0]]))[0].tolist())
    assert all(sample.scores is sample.z is None for sample in found[1:-1])


def test_a_score_that_is_not_finite_is_a_reason():
    scores = np.array([[0.5, np.inf]])
    (sample,) = judge_samples(Points(), [(0.5, 1.0)], scores, np.ones(1, bool))
    assert sample.reject_reason == "score is not finite" and sample.scores is None


def scored(z):
    return [RoundSample(digest=str(i), scores=tuple(row), z=tuple(row)) for i, row in enumerate(z)]


def records(z):
    return [
        Record(file=f"{i}.json", scores=dict(zip(NAMES, row, strict=True)))
        for i, row in enumerate(SPACE.normalize(np.array(z)).tolist())
    ]


def choose(samples, replay, seed=0, **settings):
    given = {"criterion": "fronts", "keep_fraction": 0.5, "replay_fraction": 0.5, **settings}
    return select(samples, replay, SPACE, NO_GROUPS, rng=np.random.default_rng(seed), **given)


def test_the_best_of_what_can_be_used_is_selected():
    samples = scored([(0, 0), (2, 1), (1, 2), (-1, -1)])
    samples.insert(1, RoundSample(digest="x", reject_reason="blank"))
    found = choose(samples, [], replay_fraction=0.0)
    assert found == Selection(samples=(2, 3), replay=())
    told = report(found, samples, [], "fronts")
    assert told.samples == ("not selected", "blank", "selected", "selected", "not selected")


@pytest.mark.parametrize(("fraction", "count"), [(0.0, 0), (0.2, 5), (0.5, 20), (0.9, 20)])
def test_as_many_records_are_replayed_as_make_up_their_fraction(fraction, count):
    rng = np.random.default_rng(0)
    replay = records(rng.normal(size=(40, 2)))
    found = choose(scored(rng.normal(size=(40, 2)).tolist()), replay, replay_fraction=fraction)
    assert (len(found.samples), len(found.replay)) == (20, count)  # the best half has 20
    assert len(set(found.replay)) == count and list(found.replay) == sorted(found.replay)
    files = report(found, scored(np.zeros((40, 2)).tolist()), replay, "fronts").replay
    assert files == tuple(replay[i].file for i in found.replay)


def test_the_generator_draws_which_records_are_replayed():
    rng = np.random.default_rng(0)
    samples, replay = scored(rng.normal(size=(40, 2)).tolist()), records(rng.normal(size=(40, 2)))
    found = [choose(samples, replay, seed, replay_fraction=0.2).replay for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


def test_the_quantile_criterion_compares_with_the_records():
    rng = np.random.default_rng(0)
    z, replay = rng.normal(size=(30, 2)), records(rng.normal(size=(40, 2)))
    reference = SPACE.normalize(np.array([[r.scores[name] for name in NAMES] for r in replay]))
    found = choose(scored(z.tolist()), replay, criterion="quantile", keep_fraction=0.3)
    assert found.samples == tuple(best_by_quantile(z, reference, 0.3).tolist())


def test_what_is_stored_is_made_once(tmp_path):
    path = tmp_path / "round" / "requests.json"
    made = []

    def make():
        made.append(1)
        return draw(4, exploration=0.3)

    first = stored.once(path, list[SampleRequest], make)
    assert stored.once(path, list[SampleRequest], make) == first == draw(4, exploration=0.3)
    assert made == [1]
    assert json.loads(path.read_text())[0] == dataclasses.asdict(first[0])


def test_a_stored_file_of_another_shape_is_named(tmp_path):
    (tmp_path / "requests.json").write_text('[{"prompt": "a", "targets": {}, "seeds": 1}]')
    with pytest.raises(InputError, match=r"requests\.json: .*seeds: unknown field"):
        stored.read(tmp_path / "requests.json", list[SampleRequest])


# Prompts differ by far more than samples of one, whose z is the coordinate itself.
CENTRED = dataclasses.replace(
    SPACE,
    rewards=(
        dataclasses.replace(
            SPACE.rewards[0],
            mean=0.0,
            std=1.0,
            centring=Centring(mean=0.0, between=1e6, within=1.0, variation=0.0),
        ),
        SPACE.rewards[1],
    ),
)


def test_a_round_is_compared_with_the_records_of_its_prompts_and_with_itself():
    drawn = [ScoredSample(digest=str(i), scores=(x, 0.0)) for i, x in enumerate([5, 9, 103, 200])]
    drawn[3] = ScoredSample(digest="3", reject_reason="blank")
    labelled = [
        Record(file=f"{i}", captions=(prompt, "another"), scores={"x": x, "y": 0.0})
        for i, (prompt, x) in enumerate([("a", 1.0), ("a", 1.0), ("c", 50.0)])
    ]
    prompts = ["a", "a", "b", "b"]
    found, groups = in_standard_units(drawn, prompts, CENTRED, records_groups(labelled, CENTRED))
    assert [one.reject_reason for one in found] == [None, None, None, "blank"]
    assert [one.z[0] for one in found[:3]] == pytest.approx([5 - 4, 9 - 4, 0], abs=1e-6)
    assert records_z(labelled, CENTRED, groups)[:, 0] == pytest.approx([-3, -3, 0], abs=1e-6)
    # What is far from all prompts is not out of range, what is far from its own is.
    far, _ = in_standard_units(
        [ScoredSample(digest="0", scores=(1000.0 + x, 0.0)) for x in (-7, 0, 7)],
        ["d"] * 3, CENTRED, records_groups(labelled, CENTRED),
    )  # fmt: skip
    assert [one.reject_reason for one in far] == ["out of range", None, "out of range"]


def test_records_are_replayed_by_their_z_within_their_prompts():
    worth = {"a": 0.0, "b": 1000.0}
    rng = np.random.default_rng(0)
    replay = [
        Record(file=str(i), captions=(p,), scores={"x": worth[p] + x, "y": x})
        for i, (p, x) in enumerate(zip("ab" * 20, rng.normal(size=40).tolist(), strict=True))
    ]
    groups = records_groups(replay, CENTRED)
    settings = {"criterion": "quantile", "keep_fraction": 0.25, "replay_fraction": 0.9}
    samples = scored(rng.normal(2, 1, size=(40, 2)).tolist())
    found = select(samples, replay, CENTRED, groups, rng=np.random.default_rng(0), **settings)
    both = [replay[i].captions[0] for i in found.replay]
    assert 0.3 < both.count("a") / len(both) < 0.7
