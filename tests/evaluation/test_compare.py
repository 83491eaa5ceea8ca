"""Adapters of one model, compared and calibrated, behind the family alone."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ric_diffusion.adapters.adapter import Adapter
from ric_diffusion.conditioning.conditioner import TextConditioner
from ric_diffusion.conditioning.grammar import Grammar
from ric_diffusion.evaluation import compare
from ric_diffusion.evaluation.compare import calibrate_adapter, evaluate_adapters, name_of, unused
from ric_diffusion.evaluation.report.schema import EvaluationResult
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import write_json
from support.points import NAMES, Axis, Points, space

PROMPTS = ["a", "bb", "ccc", "dddd"]
GAIN = {"x": 0.5, "y": -0.5}  # what the model gives of what it reads: y turns back


class Sampler(Points):
    """Gives GAIN times what the model's adapter has it read, times the sampling's ``scale``."""

    def __init__(self, model, sampling):
        super().__init__(noise=0.01)
        self.model, self.sampling = model, sampling

    def sample(self, prompts, targets, seeds):
        self.model.drawn.append((self.model.adapter, list(targets)))
        adapter, read = self.model.adapter, [{} for _ in targets]
        if adapter is not None:
            read = [adapter.model_targets(each) for each in targets]
        scale = self.sampling.get("scale", 1.0)
        given = [{n: scale * GAIN[n] * z / 0.5 for n, z in each.items()} for each in read]
        return super().sample(prompts, given, seeds)


class Family:
    """Adapters are folders with a ric_adapter.json."""

    software = ("numpy",)
    medium = SimpleNamespace(name="numbers")

    def merged(self, own, given):
        return {**own, **given}

    def fetch_adapter(self, given, subfolder="", revision=None):
        return Path(given) / subfolder

    def digests(self, model):
        assert model.adapter is None
        return ["base"]

    def held_out(self, model, digests, sampling):
        return []

    def sampler(self, model, sampling):
        return Sampler(model, sampling)


class Sum:
    """A scorer that no adapter was trained on."""

    name, unit, fingerprint = "sum", "z", "sum-1"

    def __call__(self, samples, prompts):
        return np.sum(samples, axis=1)


class Model:
    def __init__(self, own=None):
        self.family, self.adapter, self.drawn = Family(), None, []
        if own is not None:
            self.load_adapter(own)

    def load_adapter(self, folder):
        self.adapter = Adapter.load(Path(folder))

    def unload_adapter(self):
        self.adapter = None

    def adapters_for(self, prompts):
        return [self.adapter] * len(prompts)

    def save_adapter(self, folder):
        write_json(folder / "ric_adapter.json", self.adapter.about())


@pytest.fixture(autouse=True)
def toy_scorers(monkeypatch):
    monkeypatch.setattr(compare, "is_installed", lambda name: True)
    monkeypatch.setattr(
        compare, "load_scorers", lambda space, given: [Axis(n) for n in space.names]
    )


@pytest.fixture(autouse=True)
def pages(monkeypatch, request):
    """Plots take their time, and other tests look at them: only metrics.json is written, but where
    a test is about the whole report."""
    if "whole_report" not in request.fixturenames:
        monkeypatch.setattr(
            compare, "write_report", lambda result, out, medium: result.save(out / "metrics.json")
        )


@pytest.fixture
def whole_report():
    """Asked for by a test that wants the pictures and the page as well."""


@pytest.fixture
def adapter_at(tmp_path):
    """adapter_at(name, **changes): the folder of an adapter for points."""

    def write(name, **changes):
        given = {
            "family": "points",
            "base_model": "points",
            "space": space(),
            "conditioner": TextConditioner(Grammar.words(NAMES)),
            "sampling": {"steps": 3},
        }
        folder = tmp_path / name
        write_json(folder / "ric_adapter.json", Adapter(**given | changes).about())
        return str(folder)

    return write


@pytest.fixture
def evaluated(tmp_path):
    """evaluated(model, adapters, **changes): a small report in tmp_path/report."""

    def run(model, adapters, *, run=evaluate_adapters, **changes):
        given = {"prompts": PROMPTS, "points": 5, "seeds": 2, "out": tmp_path / "report"}
        return run(model, "points", adapters, **given | changes)

    return run


def test_the_first_adapter_measures_all(evaluated, adapter_at, whole_report, tmp_path):
    first, second = adapter_at("first"), adapter_at("second/adapter", mapping="linf")
    result = evaluated(Model(), [first, "none", second], sampling={"scale": 2.0})
    assert [m.name for m in result.methods] == ["first", "no adapter", "second"]
    assert [m.about.get("mapping") for m in result.methods] == ["front", None, "linf"]
    assert all(m.about["sampling"] == {"steps": 3, "scale": 2.0} for m in result.methods)
    assert [len(m.points) for m in result.methods] == [5, 1, 5]
    assert [reward.name for reward in result.rewards] == list(NAMES)
    assert {"ric-diffusion", "numpy", "moocore"} <= result.versions.keys()
    assert EvaluationResult.load(tmp_path / "report" / "metrics.json") == result
    assert (tmp_path / "report" / "index.html").exists()


def test_each_method_draws_under_its_own_adapter(evaluated, adapter_at):
    model = Model()
    evaluated(model, [adapter_at("first"), "none", adapter_at("second", mapping="linf")])
    seen = [adapter.mapping if adapter else None for adapter, _ in model.drawn]
    assert list(dict.fromkeys(seen)) == ["front", None, "linf"]


def test_again_nothing_is_drawn(evaluated, adapter_at):
    model, given = Model(), [adapter_at("first")]
    result = evaluated(model, given)
    model.drawn.clear()
    again = evaluated(model, given)
    assert model.drawn == [] and again == result


def test_another_mapping_is_another_evaluation(evaluated, adapter_at):
    given = [adapter_at("first")]
    evaluated(Model(), given)
    with pytest.raises(InputError, match=r'other method\.mapping \("front", now "l2"\), points'):
        evaluated(Model(), given, mapping="l2")


def test_the_models_own_adapter(evaluated, adapter_at, tmp_path):
    adapter_at("own/ric_adapter")
    name = str(tmp_path / "own")
    result = evaluate_adapters(
        Model(f"{name}/ric_adapter"), name, [], prompts=PROMPTS, points=3, out=tmp_path / "report"
    )
    assert [m.name for m in result.methods] == ["own"] and len(result.seeds) == 4


def test_held_out_scorers_are_reported(evaluated, adapter_at):
    result = evaluated(Model(), [adapter_at("first")], scorers=[Sum()])
    assert [one.name for one in result.held_out] == ["sum"]
    for point in result.methods[0].points:
        expected = point.scores["x"] + point.scores["y"]
        assert point.held_out["sum"].value == pytest.approx(expected)


def fewer_rewards():
    return {"space": space().subset(["x"]), "conditioner": TextConditioner(Grammar.words(("x",)))}


def other_options():
    x, y = space().rewards
    scorer = {"name": "x", "options": {"resize": 9}}
    return {"space": replace(space(), rewards=(replace(x, scorer=scorer), y))}


def test_what_cannot_be_compared_is_refused_before_anything_is_written(
    evaluated, adapter_at, tmp_path
):
    first, fewer = adapter_at("first"), adapter_at("fewer", **fewer_rewards())
    other = adapter_at("other", **other_options())
    calibrating = {"run": calibrate_adapter}
    refused = [
        ("has no adapter of its own; give one", [], {}),
        ("has no adapter of its own; give one", ["none"], {}),
        ("adapter: none is given twice", ["none", "none"], {}),
        ("fewer: its rewards are x, those of", [first, fewer], {}),
        ("other: x was scored with {'resize': 9}, in", [first, other], {}),
        ("scorers: x is a reward of the adapter", [first], {"scorers": [Axis("x")]}),
        ("points 1: give a whole number from 2", [first], {"points": 1}),
        ("one adapter is calibrated at a time", [first, other], calibrating),
        ("one adapter is calibrated at a time", ["none"], calibrating),
    ]
    for said, adapters, changes in refused:
        model = Model()
        with pytest.raises(InputError, match=said) as error:
            evaluated(model, adapters, **changes)
        assert "\n" not in str(error.value) and model.drawn == []
        assert not (tmp_path / "report").exists()


def test_a_calibration_is_told_written_and_compared(evaluated, adapter_at, tmp_path, caplog):
    model = Model()
    with caplog.at_level(logging.WARNING):
        result = evaluated(model, [adapter_at("first")], run=calibrate_adapter, points=7)
    said = [r.getMessage() for r in caplog.records if "left uncalibrated" in r.getMessage()]
    assert said == ["y: scores do not rise with the target; this reward is left uncalibrated"]
    assert not any("beyond the reachable range" in r.getMessage() for r in caplog.records)
    assert [m.name for m in result.methods] == ["first", "calibrated"]
    assert result.calibration.uncalibrated == ("y",)
    (found,) = result.calibration.rewards
    written = Adapter.load(tmp_path / "report" / "adapter")
    assert dict(written.calibration) == {"x": found.curve}
    low, high = space().range("x")
    assert found.reachable == pytest.approx((0.5 * low, 0.5 * high), abs=0.1)
    without, calibrated = result.calibration_errors("x")
    assert calibrated.value < 0.3 * without.value
    assert "calibration" in result.methods[1].about and "calibration" not in result.methods[0].about
    # No sample of the report helped to calibrate.
    seeds = [set(range(s[0], s[0] + 8)) for s in (result.seeds, result.calibration.seeds)]
    assert not seeds[0] & seeds[1]


def test_what_a_calibrated_model_is_asked_can_be_had(evaluated, adapter_at):
    """It would warn of every other target."""
    model = Model()
    evaluated(model, [adapter_at("first")], run=calibrate_adapter, points=7)
    asked = [
        target
        for adapter, targets in model.drawn
        if adapter.calibration
        for target in targets
        if adapter.unreachable(target)
    ]
    assert any(adapter.calibration for adapter, _ in model.drawn) and asked == []


def test_calibrated_on_other_prompts(evaluated, adapter_at, tmp_path):
    others = ["e", "ff"]
    result = evaluated(
        Model(), [adapter_at("first")], run=calibrate_adapter, calibration_prompts=others
    )
    assert (result.prompts, result.calibration.prompts) == (tuple(PROMPTS), tuple(others))
    fine = json.loads((tmp_path / "report" / "calibration" / "fine" / "run.json").read_text())
    assert fine["identity"]["prompts"] == others


def test_calibrated_again_nothing_is_drawn(evaluated, adapter_at, tmp_path):
    given = [adapter_at("first")]
    result = evaluated(Model(), given, run=calibrate_adapter)
    before = (tmp_path / "report" / "adapter" / "ric_adapter.json").stat().st_mtime_ns
    model = Model()
    assert evaluated(model, given, run=calibrate_adapter) == result
    assert model.drawn == []
    assert (tmp_path / "report" / "adapter" / "ric_adapter.json").stat().st_mtime_ns == before


def test_an_adapter_that_lies_there_is_not_written_over(evaluated, adapter_at):
    adapter_at("report/adapter")
    with pytest.raises(InputError, match="holds an adapter already"):
        evaluated(Model(), [adapter_at("first")], run=calibrate_adapter)


def test_nothing_rises(evaluated, adapter_at, tmp_path, monkeypatch):
    monkeypatch.setitem(GAIN, "x", -0.5)
    result = evaluated(Model(), [adapter_at("first")], run=calibrate_adapter)
    assert [m.name for m in result.methods] == ["first"]
    assert result.calibration.rewards == () and result.calibration.methods == ()
    assert not (tmp_path / "report" / "adapter").exists()


@pytest.mark.parametrize(
    "given, name",
    [
        ("user/repository", "repository"),
        ("runs/mine/adapter", "mine"),
        ("models/own/ric_adapter", "own"),
        ("emoji-64", "emoji-64"),
    ],
)
def test_what_a_report_calls_an_adapter(given, name):
    assert name_of(given) == name


def test_names_and_their_folders_are_taken_once():
    assert unused("mine", []) == "mine"
    assert unused("mine", ["mine", "mine 2"]) == "mine 3"
    assert unused("a b", ["a-b"]) == "a b 2"  # one folder
