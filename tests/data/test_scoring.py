"""Scorers come back as they were when the data was labelled."""

import json
import logging
from importlib import resources

import numpy as np
import PIL
import pytest
from PIL import Image, features

import scorers
from ric_diffusion.data.scoring import (
    keeping_scorers,
    load_or_stand_in,
    load_scorers,
    scores_of,
)
from ric_diffusion.io.errors import InputError
from ric_diffusion.rewards import RewardSpace

SPECS = ["compressibility:quality=80,resize=none", "colorfulness"]


def space_of(using, **fingerprints):
    rng = np.random.default_rng(0)
    return RewardSpace.fit(
        {scorer.name: rng.normal(size=50) for scorer in using},
        scorers={scorer.name: {"name": scorer.name, "options": scorer.options} for scorer in using},
        fingerprints={scorer.name: scorer.fingerprint for scorer in using} | fingerprints,
    )


@pytest.fixture
def using():
    return [scorers.load(spec) for spec in SPECS]


@pytest.fixture
def images():
    rng = np.random.default_rng(1)
    return [Image.fromarray(rng.integers(0, 255, (9, 7, 3), dtype=np.uint8)) for _ in range(3)]


def test_rebuilt_with_their_options(using, images, caplog):
    found = load_scorers(space_of(using))
    assert [(s.name, s.options, s.fingerprint) for s in found] == [
        (s.name, s.options, s.fingerprint) for s in using
    ]
    assert found[0].options == {"quality": 80, "resize": None}
    prompts = ["x"] * 3
    assert np.array_equal(scores_of(images, prompts, found), scores_of(images, prompts, using))
    assert not caplog.records


def test_another_fingerprint_is_warned_of_once_and_by_name(using, caplog):
    old = "compressibility quality=80 resize=native pillow-1.0"
    with caplog.at_level(logging.WARNING):
        found = load_scorers(space_of(using, compressibility=old))
    assert [scorer.name for scorer in found] == ["compressibility", "colorfulness"]
    (record,) = caplog.records
    message = record.getMessage()
    assert message.startswith("compressibility: ") and old in message
    assert using[0].fingerprint in message and "\n" not in message


def test_space_that_does_not_know_its_scorers():
    space = RewardSpace.fit({"a": np.arange(50.0)})
    with pytest.raises(InputError, match=r"^a: "):
        load_scorers(space)


def test_scorer_that_is_not_installed(using):
    space = RewardSpace.fit({"gone": np.arange(50.0)}, scorers={"gone": {"name": "gone"}})
    with pytest.raises(InputError, match="gone: no scorer of that name is installed"):
        load_scorers(space)
    [stand_in] = load_scorers(space, required=False)
    assert stand_in.name == "gone" and scorers.is_stand_in(stand_in)


def test_weights_that_cannot_be_fetched(using, images, monkeypatch, caplog):
    def load(name, **options):
        if name == "colorfulness":
            raise scorers.WeightsError("colorfulness: cannot fetch it")
        return original(name, **options)

    original, space = scorers.load, space_of(using)
    monkeypatch.setattr(scorers, "load", load)
    with pytest.raises(scorers.WeightsError):
        load_scorers(space)
    found = load_scorers(space, required=False)
    assert found[1].options == using[1].options and np.isnan(found[1](images)).all()
    assert [found[0].fingerprint, found[1].fingerprint] == [using[0].fingerprint, ""]
    assert [r.getMessage() for r in caplog.records] == [
        "colorfulness: cannot fetch it; sliders work, scores are left out"
    ]


def test_a_scorer_that_is_named_and_cannot_be_fetched_has_a_stand_in(images, monkeypatch, caplog):
    found = load_or_stand_in("colorfulness")
    assert not scorers.is_stand_in(found) and not caplog.records

    def load(spec):
        raise scorers.WeightsError("compressibility: cannot fetch it")

    monkeypatch.setattr(scorers, "load_given", load)
    found = load_or_stand_in("compressibility:quality=80")
    assert scorers.is_stand_in(found) and np.isnan(found(images)).all()
    assert (found.name, found.options) == ("compressibility", {"quality": 80})
    assert caplog.messages == [
        "compressibility: cannot fetch it; sliders work, scores are left out"
    ]


def test_scores_are_columns_in_order(using, images):
    scores = scores_of(images, ["x"] * 3, using)
    assert scores.shape == (3, 2) and scores.dtype == np.float64
    for column, scorer in enumerate(using):
        assert np.array_equal(scores[:, column], scorer(images).astype(float))


def test_the_bundled_model_s_scorers_load_without_a_warning(caplog, monkeypatch):
    root = resources.files("ric_diffusion") / "assets" / "emoji-64" / "ric_adapter"
    about = json.loads((root / "ric_adapter.json").read_text(encoding="utf-8"))
    space = RewardSpace.from_dict(about["reward_space"])
    monkeypatch.setattr(PIL, "__version__", "99.1")
    monkeypatch.setattr(features, "version_feature", lambda feature: "9.9.9")
    with caplog.at_level(logging.WARNING):
        found = load_scorers(space)
    assert [scorer.name for scorer in found] == list(space.names)
    assert not caplog.records


class Given:
    """A scorer that gives, or raises, what it was told to."""

    name, unit, options, fingerprint = "given", "", {}, "given 1"

    def __init__(self, found):
        self.found = found

    def __call__(self, images, prompts=None):
        if isinstance(self.found, BaseException):
            raise self.found
        return self.found


@pytest.mark.parametrize(
    "found, told",
    [
        (ValueError("no\nsuch"), r"^scorer 'given' fails \(ValueError: no\); mend it, or leave it"),
        (SystemExit(1), r"^scorer 'given' fails \(SystemExit: 1\)"),
        (["low", "high", "low"], r"^scorer 'given' fails \(ValueError: could not convert"),
        (None, r"^scorer 'given' gave shape \(\) for 3 samples; it must give one number each$"),
        (0.5, r"gave shape \(\) for 3"),
        ([1.0, 2.0], r"gave shape \(2,\) for 3"),
        ([[1.0], [2.0], [3.0]], r"gave shape \(3, 1\) for 3"),
        ([[1.0], [2.0, 3.0], [4.0]], r"^scorer 'given' fails \(ValueError"),
    ],
)
def test_a_scorer_that_fails_or_miscounts_is_named(images, found, told):
    with pytest.raises(scorers.ScorerError, match=told) as caught:
        scores_of(images, None, [Given(found)])
    assert "\n" not in str(caught.value)


def test_what_has_a_line_of_its_own_passes(images):
    for error in (InputError("so"), scorers.WeightsError("so"), OSError(28, "full")):
        with pytest.raises(type(error)) as caught:
            scores_of(images, None, [Given(error)])
        assert caught.value is error
    with pytest.raises(KeyboardInterrupt):
        scores_of(images, None, [Given(KeyboardInterrupt())])


def test_what_no_unit_has_is_no_score(images):
    given = np.array([1e30, -np.inf, 1e11], np.float32)
    found = scores_of(images, None, [Given(given)])
    assert np.isnan(found[:2]).all() and found[2] == np.float32(1e11)
    assert not np.isnan(given).any()  # which is the scorer's own


def test_in_its_block_a_scorer_with_the_same_options_is_kept(using):
    space = space_of(using)
    other = space_of([scorers.load("compressibility:quality=60,resize=none")])
    with keeping_scorers({}):
        first, again = load_scorers(space), load_scorers(space)
        [apart] = load_scorers(other)
    assert all(one is same for one, same in zip(first, again, strict=True))
    assert apart is not first[0] and apart.options["quality"] == 60
    assert load_scorers(space)[0] is not first[0]


def test_a_server_that_a_space_names_is_not_asked():
    remote = {"name": "remote", "options": {"url": "https://scores.example/x"}}
    space = RewardSpace.fit({"far": [0.0, 1.0, 2.0]}, scorers={"far": remote})
    with pytest.raises(scorers.ScorerError, match=r"scores\.example"):
        load_scorers(space)
