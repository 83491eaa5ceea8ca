"""ric evaluate --calibrate: the curves, the adapter that carries them, and both in one report."""

import io
import itertools
import json
import shutil
from contextlib import redirect_stderr, redirect_stdout

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

import scorers
from ric_diffusion import RiCStableDiffusionPipeline
from ric_diffusion.adapters.adapter import Adapter
from ric_diffusion.cli import main
from ric_diffusion.evaluation.metrics import control_error
from ric_diffusion.models.diffusion.pipeline import RiCMixin
from ric_diffusion.models.diffusion.sampler import DiffusionSampler
from ric_diffusion.rewards import Curve
from support.processes import LAUNCH, starter

REPORT = {"metrics.json", "front.png", "control.png", "grid.png", "index.html", "methods"}
POINTS, SEEDS = 7, 2
BATCHES = {"coarse": 1, "fine": 2, "embedding": 3, "calibrated": 3}  # of 32 samples or fewer
APART = 0.1  # z between one prompt and the next
GAIN, SHIFT = 0.5, 0.3  # what the painted model gives of what it is asked, in z
LEFT = (
    "ric evaluate: compressibility: scores do not rise with the target; this reward is left "
    "uncalibrated"
)


def painted_by(gain):
    """A stand-in for sampling, as a method of DiffusionSampler: a picture whose colorfulness is
    ``gain`` times what the adapter has the model read, and that knows no other reward."""
    scorer = scorers.load("colorfulness")

    def picture(strength):
        pixels = np.full((64, 64, 3), 128.0)
        pixels[16:48, 16:48] += strength * np.array([1.0, -0.5, -1.0])
        return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))

    of_one = scorer([picture(100)], [""])[0] / 100

    def sample(self, prompts, targets, seeds):
        adapter, found = self.pipe.adapter, []
        reward = adapter.space.rewards[adapter.space.names.index("colorfulness")]
        for target, seed in zip(targets, seeds, strict=True):
            read = adapter.model_targets(adapter.reachable(target)).get("colorfulness", 0.0)
            noise = np.random.default_rng(seed).normal()
            z = gain * read + SHIFT + 0.02 * noise
            found.append(picture((reward.mean + reward.std * z) / of_one))
        return found

    return sample


@pytest.fixture(scope="module")
def arguments(root, tmp_path_factory):
    prompts = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    prompts.write_text("red apple\ncat face\n")

    def listed(out, *more, adapter=root / "embedding" / "adapter"):
        given = ["evaluate", "--model", root / "model", "--adapter", adapter, "--prompts", prompts,
                 "--points", POINTS, "--seeds", SEEDS, "--steps", 2, "--out", out,
                 *more]  # fmt: skip
        return [str(one) for one in given]

    return listed


@pytest.fixture(scope="module")
def painted(arguments, tmp_path_factory):
    """The report on the painted model: its folder, metrics.json and what was said."""
    out, said, asked = tmp_path_factory.mktemp("painted") / "report", io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), redirect_stderr(asked):
        patch.setattr(DiffusionSampler, "sample", painted_by(GAIN))
        assert main(arguments(out, "--calibrate")) == 0, asked.getvalue()
    metrics = json.loads((out / "metrics.json").read_text())
    return out, metrics, said.getvalue(), asked.getvalue()


@pytest.fixture
def patched(monkeypatch):
    """patched(sample) draws with this from now on."""
    return lambda sample: monkeypatch.setattr(DiffusionSampler, "sample", sample)


def control_of(metrics, number, name="colorfulness"):
    (found,) = [one for one in metrics["methods"][number]["control"] if one["reward"] == name]
    return found


def test_what_is_written_and_said(painted):
    out, metrics, said, err = painted
    assert said == f"{out / 'adapter'}\n{out / 'index.html'}\n"
    assert err.splitlines().count(LEFT) == 1
    assert {path.name for path in out.iterdir()} == REPORT | {"calibration", "adapter"}
    # The sweep that calibrated is no model of the report, and shares no seed with it.
    assert [model["name"] for model in metrics["methods"]] == ["embedding", "calibrated"]
    methods = {path.name for path in (out / "methods").iterdir() if path.is_dir()}
    assert methods == {"embedding", "calibrated"}
    report, coarse, fine = (
        json.loads((out / name / "run.json").read_text())["identity"]
        for name in ("methods/embedding", "calibration/coarse", "calibration/fine")
    )
    assert fine["seeds"][0] == metrics["calibration"]["seeds"] and len(fine["seeds"][0]) == SEEDS
    drawn = [set(itertools.chain(*settings["seeds"])) for settings in (report, coarse, fine)]
    assert not drawn[0] & (drawn[1] | drawn[2])
    assert fine["prompts"] == report["prompts"] == [*coarse["prompts"], *fine["prompts"][1:]]
    for settings in (coarse, fine):
        points = settings["points"]
        alongs = [point["along"] for point in points]
        assert alongs == ["compressibility"] * 7 + ["colorfulness"] * 7
        assert all(list(point["targets"]) == [point["along"]] for point in points)


def test_the_adapter_is_the_old_one_with_curves(painted, root):
    out, metrics, *_ = painted
    old, new = Adapter.load(root / "embedding" / "adapter"), Adapter.load(out / "adapter")
    assert list(new.calibration) == ["colorfulness"]
    (found,) = metrics["calibration"]["rewards"]
    assert new.calibration["colorfulness"] == Curve.from_dict(found["curve"])
    low, high = new.space.range("colorfulness")
    reachable = new.calibration["colorfulness"].reachable
    assert reachable == pytest.approx((GAIN * low + SHIFT, GAIN * high + SHIFT), abs=0.1)
    assert new.calibration["colorfulness"].request(0.4) == pytest.approx(0.1 / GAIN, abs=0.2)
    assert metrics["calibration"]["uncalibrated"] == ["compressibility"]
    # The curve holds for the steps it was measured with, so they come along.
    assert new.sampling == {"guidance_scale": 3.0, "num_inference_steps": 2} != old.sampling
    assert new.about() | {"calibration": {}, "sampling": old.sampling} == old.about()
    folders = root / "embedding" / "adapter", out / "adapter"
    for name in ("pytorch_lora_weights.safetensors", "reward_encoder.safetensors"):
        before, after = (load_file(folder / name) for folder in folders)
        assert before.keys() == after.keys()
        assert all(before[key].equal(after[key]) for key in before)
    card = (out / "adapter" / "README.md").read_text()
    assert f"| {reachable[0]:+.2f} … {reachable[1]:+.2f} |" in card and "not calibrated" in card


def test_control_with_and_without(painted):
    out, metrics, *_ = painted
    without, calibrated = control_of(metrics, 0), control_of(metrics, 1)
    reachable = Adapter.load(out / "adapter").calibration["colorfulness"].reachable
    requested = np.array(without["requested"])
    assert without["requested"] == calibrated["requested"]
    for found in (without, calibrated):
        means = np.array([one["value"] for one in found["obtained"]])
        assert found["error"]["value"] == pytest.approx(control_error(requested, means, reachable))
    inside = (requested >= reachable[0]) & (requested <= reachable[1])
    assert 2 <= inside.sum() < len(requested)
    obtained = np.array([one["value"] for one in without["obtained"]])
    assert obtained == pytest.approx(GAIN * requested + SHIFT, abs=0.1)
    obtained = np.array([one["value"] for one in calibrated["obtained"]])
    assert obtained == pytest.approx(requested.clip(*reachable), abs=0.1)
    assert 3 * calibrated["error"]["value"] < without["error"]["value"]
    page = (out / "index.html").read_text()
    assert "Calibration brings the error of colorfulness from" in page and "it helps." in page
    assert "compressibility is not calibrated" in page


def test_again_nothing_is_drawn_or_written(painted, arguments, ric, patched):
    out, _, said, _ = painted
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    patched(None)  # nothing to call
    done = ric(*arguments(out, "--calibrate"))
    assert (done.code, done.out) == (0, said)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_other_settings_are_refused(painted, arguments, ric):
    out = painted[0]
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for more in (["--steps", "3"], ["--seeds", "3"], ["--adapter", str(out / "adapter")]):
        done = ric(*arguments(out, "--calibrate", *more))
        assert (done.code, done.out) == (2, "")
        assert len(done.err.splitlines()) == 1 and "choose another --out" in done.err
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_interrupted(painted, arguments, ric, patched, tmp_path):
    """Stopped in the sweep and stopped in the report, nothing that was drawn is drawn again."""
    sample, calls, seen = painted_by(GAIN), [], []

    def stopping(self, prompts, targets, seeds):
        calls.append(len(prompts))
        if len(calls) in stops:
            raise KeyboardInterrupt
        seen.append((dict(self.pipe.adapter.calibration), set(seeds)))
        return sample(self, prompts, targets, seeds)

    patched(stopping)
    total = sum(BATCHES.values())
    calibrating = BATCHES["coarse"] + BATCHES["fine"]
    stops = {calibrating, total + 1}
    out = tmp_path / "report"
    for adapter in (False, True):
        done = ric(*arguments(out, "--calibrate"))
        assert (done.code, done.out) == (130, "")
        assert (out / "adapter").exists() == adapter
    left = {path: path.stat().st_mtime_ns for path in (out / "adapter").iterdir()}
    assert ric(*arguments(out, "--calibrate")).code == 0
    assert len(calls) == total + len(stops)
    assert {path: path.stat().st_mtime_ns for path in (out / "adapter").iterdir()} == left
    found, whole = (
        json.loads((folder / "metrics.json").read_text()) for folder in (out, painted[0])
    )
    for metrics in (found, whole):
        for one in (*metrics["methods"], metrics["calibration"]):
            one["cost"].pop("seconds")
    assert found == whole
    # Each was drawn with the curves and seeds that are its own.
    curves = Adapter.load(out / "adapter").calibration
    for number, (calibration, seeds) in enumerate(seen):
        assert all((seed >= 1_000_000) == (number < calibrating) for seed in seeds)
        assert calibration == (curves if number >= total - BATCHES["calibrated"] else {})


def test_an_older_calibration_is_dropped_first(painted, arguments, ric, patched, root, tmp_path):
    folder = tmp_path / "older" / "adapter"
    shutil.copytree(root / "embedding" / "adapter", folder)
    about = json.loads((folder / "ric_adapter.json").read_text())
    about["calibration"] = {
        "compressibility": {"requested": [-1, 1], "obtained": [-0.1, 0.1]},
        "colorfulness": {"requested": [-1, 1], "obtained": [-0.1, 0.1]},
    }
    (folder / "ric_adapter.json").write_text(json.dumps(about))
    (folder / "manifest.json").unlink()
    patched(painted_by(GAIN))
    out = tmp_path / "report"
    assert ric(*arguments(out, "--calibrate", adapter=folder)).code == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["calibration"]["rewards"] == painted[1]["calibration"]["rewards"]
    for number in (0, 1):
        assert control_of(metrics, number) == control_of(painted[1], number)
    assert Adapter.load(out / "adapter").calibration == (
        Adapter.load(painted[0] / "adapter").calibration
    )
    # Without --calibrate it is measured as it is: not the samples that lie there.
    done = ric(*arguments(out, adapter=folder))
    assert done.code == 2 and "older: holds a run with other method.calibration" in done.err


def test_nothing_rises(arguments, ric, patched, tmp_path):
    patched(painted_by(0.0))
    out = tmp_path / "report"
    done = ric(*arguments(out, "--calibrate"))
    assert (done.code, done.out) == (0, f"{out / 'index.html'}\n")
    said = [line for line in done.err.splitlines() if "left uncalibrated" in line]
    assert said == [LEFT, LEFT.replace("compressibility", "colorfulness")]
    assert not (out / "adapter").exists()
    (model,) = json.loads((out / "metrics.json").read_text())["methods"]
    assert model["name"] == "embedding"
    assert "colorfulness is not calibrated" in (out / "index.html").read_text()


def test_the_models_own_adapter(arguments, ric, patched, root, tmp_path):
    shutil.copytree(root / "model", tmp_path / "own")
    shutil.copytree(root / "embedding" / "adapter", tmp_path / "own" / "ric_adapter")
    given = arguments(tmp_path / "report", "--calibrate")
    del given[given.index("--adapter") : given.index("--adapter") + 2]
    given[given.index("--model") + 1] = str(tmp_path / "own")
    patched(painted_by(GAIN))
    done = ric(*given)
    assert done.code == 0, done.err
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert [model["name"] for model in metrics["methods"]] == ["own", "calibrated"]
    assert list(Adapter.load(tmp_path / "report" / "adapter").calibration) == ["colorfulness"]


def test_generate_with_it(painted, ric, root, tmp_path, caplog):
    """What lies in the folder is an adapter like any other, and says what it cannot give."""
    out = painted[0]
    model = ["--model", root / "model", "--adapter", out / "adapter"]
    done = ric("generate", *model, "--prompt", "red apple", "--targets", "colorfulness=9",
               "--out", tmp_path)  # fmt: skip
    assert done.code == 0, done.err
    assert "colorfulness: 9.00 z is beyond the reachable range" in caplog.text


def test_two_processes_are_one(arguments, ric, tmp_path):
    """They share what is drawn, agree on the curves, and one of them writes adapter and report."""
    few = ["--calibrate", "--steps", "1"]
    assert ric(*arguments(tmp_path / "one", *few)).code == 0
    two = tmp_path / "two"
    with starter() as start:
        process = start(*LAUNCH, "-m", "ric_diffusion", *arguments(two, *few))
        out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert out == f"{two / 'adapter'}\n{two / 'index.html'}\n"
    alone, shared = (
        json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two")
    )
    for metrics in (alone, shared):
        for one in (*metrics["methods"], metrics["calibration"]):
            one["cost"].pop("seconds")
    assert shared == alone
    for name in ("calibration/fine", "methods/embedding", "methods/calibrated"):
        assert len(list((two / name).glob("drawn-*.jsonl"))) == 2


@pytest.mark.parametrize("mode", ["embedding", "text"])
def test_drawn_by_the_model_itself(mode, arguments, ric, root, tmp_path):
    """The samples of the report are those of the plain adapter, and those of the folder written."""
    few = ["--points", "2", "--steps", "1"]
    plain, both = tmp_path / "plain", tmp_path / "both"
    adapter = root / mode / "adapter"
    assert ric(*arguments(plain, *few, adapter=adapter)).code == 0
    done = ric(*arguments(both, "--calibrate", *few, adapter=adapter))
    assert done.code == 0, done.err
    alone = json.loads((plain / "metrics.json").read_text())["methods"][0]
    metrics = json.loads((both / "metrics.json").read_text())
    assert [p["files"] for p in metrics["methods"][0]["points"]] == [
        p["files"] for p in alone["points"]
    ]
    for file in sorted((plain / "methods" / mode / "samples").rglob("*.png")):
        again = both / file.relative_to(plain)
        assert again.read_bytes() == file.read_bytes()
    pipe = RiCStableDiffusionPipeline.from_pretrained(root / "model")
    pipe.load_adapter(both / "adapter")
    point = metrics["methods"][1]["points"][0]
    drawn = DiffusionSampler(pipe).sample(["red apple"], [point["targets"]], metrics["seeds"][:1])
    with Image.open(both / point["files"][0][0]) as stored:
        difference = np.asarray(stored, float) - np.asarray(drawn[0], float)
    assert np.abs(difference).max() <= 2  # batches of other sizes round differently


def test_calibration_learns_what_prompts_change(root, tmp_path, capsys, patched, monkeypatch):
    """A painted model whose prompts differ by what features tell of them: the adapter knows it, and
    single samples come out as asked where the average curve leaves them apart."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("".join(f"prompt {number}\n" for number in range(-4, 5)))
    paint = painted_by(GAIN)

    def sample(self, texts, targets, seeds):
        own = self.pipe.adapters_for(texts)
        z = [a.model_targets(a.reachable(t)) for a, t in zip(own, targets, strict=True)]
        moved = [one.get("colorfulness", 0.0) + int(text.split()[1]) * APART / GAIN
                 for one, text in zip(z, texts, strict=True)]  # fmt: skip
        with monkeypatch.context() as plain:  # painted_by goes through the average curve again
            plain.setattr(Adapter, "model_targets", lambda self, given: given)
            plain.setattr(Adapter, "reachable", lambda self, given: given)
            return paint(self, texts, [{"colorfulness": one} for one in moved], seeds)

    def features(self, texts, **options):
        rng = np.random.default_rng(0)
        return np.array([[int(text.split()[1]), rng.normal()] for text in texts], np.float32)

    patched(sample)
    monkeypatch.setattr(RiCMixin, "prompt_features", features)
    monkeypatch.setattr(Adapter, "check_features", lambda self, count: None)
    out = tmp_path / "out"
    assert main(["evaluate", "--model", str(root / "model"), "--prompts", str(prompts),
                 "--adapter", str(root / "embedding" / "adapter"), "--points", "3", "--seeds", "1",
                 "--steps", "2", "--calibrate", "--out", str(out)]) == 0  # fmt: skip
    metrics = json.loads((out / "metrics.json").read_text())
    names = ["embedding", "calibrated", "calibrated on average"]
    assert [one["name"] for one in metrics["methods"]] == names
    assert metrics["calibration"]["methods"] == names[:2]
    assert metrics["calibration"]["average"] == names[2]
    assert Adapter.load(out / "adapter").knows_prompts
    errors = [control_of(metrics, i)["sample_error"]["value"] for i in range(3)]
    assert errors[1] < 0.5 * errors[2] and errors[1] < 0.5 * errors[0]
    (found,) = metrics["calibration"]["rewards"]
    average, known = found["left_out"]
    assert average == pytest.approx(APART * np.abs(range(-4, 5)).mean(), abs=0.05)
    assert known < 0.5 * average and found["curve"]["prompt"] is None
    assert f"{known:.2f} z with it" in (out / "adapter" / "README.md").read_text()
    capsys.readouterr()
