"""ric evaluate: the report, its samples, and that nothing is done twice."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from ric_diffusion import RewardSpace
from ric_diffusion.data.scoring import load_scorers, scores_of
from ric_diffusion.evaluation.grid import target_line
from ric_diffusion.models.diffusion.sampler import DiffusionSampler
from ric_diffusion.rewards import to_targets

REWARDS = ["compressibility", "colorfulness"]
REPORT = {"metrics.json", "front.png", "control.png", "grid.png", "index.html", "methods"}
POINTS, SEEDS = 3, 2
OTHERS = [
    ("other method.sampling.num_inference_steps (1, now 2);", "--steps", 2),
    ('other method.mapping ("front", now "linf"), points;', "--steps", 1, "--mapping", "linf"),
    ("other method.sampling.contrast (null, now 1.5);", "--steps", 1, "--contrast", 1.5),
    ("other seeds", "--steps", 1, "--seeds", 3),
]


@pytest.fixture
def space(root):
    about = json.loads((root / "embedding" / "adapter" / "ric_adapter.json").read_text())
    return RewardSpace.from_dict(about["reward_space"])


@pytest.fixture
def arguments(root, tmp_path):
    """arguments(*more): the tiny model on two prompts, into tmp_path/report."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("# what the tiny model was trained on\nred apple\n\ncat face\n")

    def listed(*more, out=tmp_path / "report", adapters=("embedding",)):
        given = [root / name / "adapter" if name != "none" else name for name in adapters]
        adapter = ["--adapter", *given] if given else []
        return ["evaluate", "--model", root / "model", *adapter, "--prompts", prompts, "--points",
                POINTS, "--seeds", SEEDS, "--out", out, *more]  # fmt: skip

    return listed


@pytest.fixture
def report(ric, arguments, tmp_path):
    """report(*more): metrics.json of a run that went well."""

    def run(*more, out=tmp_path / "report", **options):
        done = ric(*arguments(*more, out=out, **options))
        assert done.code == 0, done.err
        assert done.out == f"{out / 'index.html'}\n"
        return json.loads((out / "metrics.json").read_text())

    return run


@pytest.fixture
def no_drawing(monkeypatch):
    def refuse(*args):
        raise AssertionError("a sample is drawn")

    return lambda: monkeypatch.setattr(DiffusionSampler, "sample", refuse)


def test_one_adapter(report, space, tmp_path, no_drawing):
    metrics = report("--steps", 2, "--scorers", "incompressibility:resize=none")
    out = tmp_path / "report"
    assert {path.name for path in out.iterdir()} == REPORT
    assert metrics["prompts"] == ["red apple", "cat face"] and metrics["seeds"] == [1001, 1002]
    assert [reward["name"] for reward in metrics["rewards"]] == REWARDS
    (model,) = metrics["methods"]
    assert model["name"] == "embedding"
    assert model["about"]["sampling"] == {"guidance_scale": 3.0, "num_inference_steps": 2}
    assert model["samples"] == 3 * POINTS * 2 * SEEDS
    # two steps, and guidance passes every sample twice
    assert model["cost"]["forwards"] == 2 * 2 * model["samples"]
    assert [sweep["reward"] for sweep in model["control"]] == REWARDS
    for sweep in model["control"]:
        line = target_line(space, sweep["reward"], POINTS)
        assert sweep["requested"] == pytest.approx([t[sweep["reward"]] for t in line])
    for point in model["points"]:
        assert point["targets"] == pytest.approx(to_targets(point["preference"], space, "front"))
        # The files are the samples: scored again, they give what the report says.
        files = [file for row in point["files"] for file in row]
        images = [Image.open(out / file) for file in files]
        assert len(images) == 2 * SEEDS
        scores = scores_of(images, [""] * len(images), load_scorers(space))
        assert list(point["scores"].values()) == pytest.approx(scores.mean(axis=0).tolist())
        z = space.normalize(scores).mean(axis=0)
        obtained = [point["obtained"][name]["value"] for name in REWARDS]
        assert obtained == pytest.approx(z.tolist())
        held_out = point["held_out"]["incompressibility"]["value"]
        assert held_out == pytest.approx(-point["scores"]["compressibility"], abs=1e-5)
    page = (out / "index.html").read_text()
    assert "red apple" in page and "embedding" in page

    no_drawing()
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert report("--steps", 2, "--scorers", "incompressibility:resize=none") == metrics
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_what_others_put_there_is_not_replaced(ric, arguments, report, root, tmp_path, no_drawing):
    """Neither before the first sample nor after the last."""
    out = tmp_path / "report"
    model = ["--model", root / "model", "--adapter", root / "embedding" / "adapter"]
    swept = ["sweep", *model, "--prompt", "cat face", "--points", 2, "--steps", 1, "--out", out]
    assert ric(*swept).code == 0
    grid = (out / "grid.png").read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DiffusionSampler, "sample", None)
        done = ric(*arguments("--steps", 1))
    assert done.code == 2 and f"{out / 'grid.png'}: is there already" in done.err
    assert (out / "grid.png").read_bytes() == grid and not (out / "methods").exists()
    for path in (out / "grid.png", out / "sweep.json"):
        path.unlink()
    report("--steps", 1)
    assert ric(*swept).code == 0 and (out / "grid-0002.png").exists()
    report("--steps", 1)
    (out / "index.html").write_text("mine")
    no_drawing()
    assert ric(*arguments("--steps", 1)).code == 2
    assert (out / "index.html").read_text() == "mine"


def own(model):
    """What metrics.json says of a model whatever it is compared with."""
    control = [
        {k: v for k, v in one.items() if k not in ("reachable", "error", "sample_error")}
        for one in model["control"]
    ]
    return {k: v for k, v in model.items() if k != "hypervolume_ratio"} | {"control": control}


def test_compared(report, tmp_path, no_drawing):
    metrics = report("--steps", 2, adapters=("embedding", "none", "text"))
    first, base, text = metrics["methods"]
    assert [model["name"] for model in (first, base, text)] == ["embedding", "no adapter", "text"]
    assert first["hypervolume_ratio"] is None
    assert base["hypervolume_ratio"] and text["hypervolume_ratio"]
    (point,) = base["points"]
    assert point["preference"] is None and base["control"] == []
    assert base["about"]["sampling"] == first["about"]["sampling"]
    assert text["about"]["mode"] == "text"
    assert len({model["about"]["weights"] for model in (first, base, text)}) == 3
    # The samples of the three differ, so each was drawn under its own adapter.
    seen = {
        (tmp_path / "report" / model["points"][0]["files"][0][0]).read_bytes()
        for model in (first, base, text)
    }
    assert len(seen) == 3

    # One of them alone is in that folder already, whatever it was compared with, but for figures
    # that depend on the others.
    no_drawing()
    again = report("--steps", 2, adapters=("text",))["methods"][0]
    assert own(again) == own(text)


def test_interrupted(ric, arguments, report, tmp_path, monkeypatch):
    sample, calls = DiffusionSampler.sample, []

    def stopping(self, prompts, targets, seeds):
        calls.append(len(prompts))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return sample(self, prompts, targets, seeds)

    whole = report("--steps", 1, out=tmp_path / "whole")
    monkeypatch.setattr(DiffusionSampler, "sample", stopping)
    done = ric(*arguments("--steps", 1))
    assert (done.code, done.out) == (130, "")
    assert done.err.splitlines()[-1] == (
        "ric evaluate: interrupted; run it again to go on where it stopped"
    )
    found = report("--steps", 1)
    assert sum(calls) == found["methods"][0]["samples"] + calls[1]
    for metrics in (whole, found):
        metrics["methods"][0]["cost"].pop("seconds")
    assert found == whole


def test_other_settings(ric, arguments, report, tmp_path):
    report("--steps", 1)
    before = (tmp_path / "report" / "metrics.json").read_bytes()
    for said, *more in OTHERS:
        done = ric(*arguments(*more))
        assert (done.code, done.out) == (2, "")
        assert said in done.err and len(done.err.splitlines()) == 1
    assert (tmp_path / "report" / "metrics.json").read_bytes() == before


def test_refine_is_no_part_of_calibration(ric, arguments, tmp_path):
    done = ric(*arguments("--calibrate", "--refine", 3))
    assert done.code == 2 and "--refine: goes without --calibrate" in done.err
    assert not (tmp_path / "report").exists()


def test_own_adapter_and_the_model_without(ric, root, tmp_path, arguments, no_drawing):
    """A model that brings an adapter is measured with it, unless told otherwise."""
    shutil.copytree(root / "model", tmp_path / "own")
    shutil.copytree(root / "embedding" / "adapter", tmp_path / "own" / "ric_adapter")
    given = arguments("--steps", 1, adapters=())
    given[given.index("--model") + 1] = tmp_path / "own"
    assert ric(*given).code == 0
    (model,) = json.loads((tmp_path / "report" / "metrics.json").read_text())["methods"]
    assert model["name"] == "own" and len(model["points"]) == POINTS
    assert ric(*given, "--adapter", "none").code == 0
    (model,) = json.loads((tmp_path / "report" / "metrics.json").read_text())["methods"]
    assert model["name"] == "no adapter" and len(model["points"]) == 1
    assert np.isfinite(model["hypervolume"]["value"])
