"""ric adopt, and what the other verbs make of an adapter without LoRA."""

import json
from pathlib import Path

import pytest
import yaml
from PIL import Image

from ric_diffusion.api import load
from ric_diffusion.app.choice import ModelChoice
from ric_diffusion.app.engine import Engine
from ric_diffusion.app.jobs import Job
from ric_diffusion.evaluation import compare
from ric_diffusion.rewards import Curve
from support.numbered import sample_file
from support.tuned import REWARDS, write_tuned

SAMPLING = ["--steps", 2, "--guidance-scale", 3]
TEXT = "red apple<rm1> 1.2<rm2> -0.4"
ASKED = ["--targets", "colorfulness=1.24", "compressibility=-0.36"]


@pytest.fixture(scope="module")
def tuned(root, tmp_path_factory):
    return write_tuned(root / "model", tmp_path_factory.mktemp("tuned"))


@pytest.fixture
def adopt(ric, tuned):
    """adopt(out, *more): the fine-tune with its statistics."""

    def run(out, *more, model=tuned / "model"):
        given = ["--grammar", "upstream", "--statistics", tuned / "statistics.json", *SAMPLING]
        args = ["--model", model, "--rewards", *REWARDS, *given, "--out", out, *more]
        return ric("adopt", *args)

    return run


def test_every_verb_takes_it(adopt, ric, root, tuned, tmp_path, tiny, monkeypatch):
    out = tmp_path / "adapter"
    done = adopt(out)
    assert (done.code, done.out) == (0, f"{out}\n"), done.err
    assert done.err.splitlines() == [
        "ric adopt: only means and deviations are known, so ranges and trade-offs are those of "
        "independent, normally distributed rewards"
    ]
    both = ["--model", tuned / "model", "--adapter", out]
    assert ric("prompt", "--adapter", out, "--prompt", "red apple", *ASKED).out == TEXT + "\n"
    ask = ["--prompt", "red apple", "--out", tmp_path / "out"]
    assert ric("generate", *both, *ask, *ASKED).code == 0
    with Image.open(sample_file(tmp_path / "out")) as image:
        assert json.loads(image.text["targets"]) == {"colorfulness": 1.2, "compressibility": -0.4}
        picture = image.tobytes()
    engine = Engine(load(tuned / "model", out), ModelChoice.of("tuned"))
    targets = {"colorfulness": 1.24, "compressibility": -0.36}
    asked = engine.request("red apple", 0, targets=targets)
    assert engine.draw(asked, Job()).sample.tobytes() == picture
    assert ric("sweep", *both, *ask, "--points", 2).code == 0
    swept = json.loads((tmp_path / "out" / "sweep.json").read_text())["points"]
    assert swept[0]["targets"]["colorfulness"] == pytest.approx(2.3263, abs=1e-4)

    (tmp_path / "prompts.txt").write_text("red apple\n")
    reports = []  # plots of it would take most of the time
    monkeypatch.setattr(compare, "write_report", lambda result, *_: reports.append(result))
    curve = Curve(requested=(-2.0, 0.0, 2.0), obtained=(-1.0, 0.0, 1.0))
    monkeypatch.setattr(compare, "curves_of", lambda *found: {"colorfulness": curve})
    report = ["--prompts", tmp_path / "prompts.txt", "--points", 3, "--seeds", 1]
    done = ric("evaluate", *both, *report, "--calibrate", "--out", tmp_path / "report")
    assert done.code == 0, done.err
    assert [method.about["mode"] for method in reports[0].methods] == ["text", "text"]
    half = ["--adapter", tmp_path / "report" / "adapter", "--prompt", "x", "--targets"]
    assert ric("prompt", *half, "colorfulness=0.6").out == "x<rm1> 1.2\n"

    done = ric("export", "--adapter", out, "--format", "kohya", "--out", tmp_path / "x.safetensors")
    said = f"ric export: --adapter {out}: has no LoRA to export, its rewards are in {tuned}/model"
    assert (done.code, done.err.startswith(said)) == (2, True), done.err
    data = tiny.config(root, "text")
    online = {"rounds": 1, "samples": 8, "loop": {"steps": 1, "batch_size": 2}}
    run = {key: data[key] for key in ("data", "diffusion")} | {"model": str(tuned / "model")}
    path = tmp_path / "online.yaml"
    path.write_text(yaml.safe_dump({**run, "adapter": str(out), "online": online}))
    done = ric("online", path, "--out", tmp_path / "run")
    assert done.code == 2 and f"{out}: has no LoRA to go on with" in done.err
    assert not (tmp_path / "run").exists()

    class Hub:
        def create_repo(self, repo_id, **how):
            assert repo_id == "me/sliders"

        def upload_folder(self, *, folder_path, **how):
            found = {path.name for path in Path(folder_path).iterdir()}
            assert found == {"README.md", "ric_adapter.json", "manifest.json"}

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_x")
    assert ric("push", "--adapter", out, "--to", "me/sliders").code == 0


def test_a_denoiser_makes_a_model_of_its_own(adopt, ric, root, tuned, tmp_path):
    out = tmp_path / "whole"
    denoiser = ["--denoiser", tuned / "checkpoint" / "unet"]
    done = adopt(out, *denoiser, model=root / "model")
    adapter, size = done.out.splitlines()
    assert (done.code, adapter) == (0, str(out / "ric_adapter")), done.err
    assert size.startswith(f"{out}: 0.00 GB")
    assert ric("prompt", "--adapter", adapter, "--prompt", "red apple", *ASKED).out == TEXT + "\n"
    ask = ["--prompt", "red apple", *ASKED]
    assert ric("generate", "--model", out, *ask, "--out", tmp_path / "a").code == 0
    whole = ["--model", tuned / "model", "--adapter", adapter]
    assert ric("generate", *whole, *ask, "--out", tmp_path / "b").code == 0
    first, second = (Image.open(sample_file(tmp_path / name)) for name in "ab")
    assert first.tobytes() == second.tobytes()
    done = adopt(out, *denoiser, model=root / "model")
    assert (done.code, "holds files already; name a new" in done.err) == (2, True)


BASE = ["--model", "{root}/model"]
ONE = ["--rewards", "colorfulness", "--grammar", "words"]
FILE = ["--statistics", "statistics.json"]


@pytest.mark.parametrize(
    "said, args, statistics",
    [
        ("statistics.json: colorfulness is missing; add its", [*BASE, *ONE, *FILE], {}),
        ("statistics.json: colorfulness: std must be above 0, not -1", [*BASE, *ONE, *FILE],
         {"colorfulness": {"mean": 0, "std": -1}}),
        ("std must be above 0, not 0", [*BASE, *ONE, *FILE],
         {"colorfulness": {"mean": 0, "std": 0}}),
        ("colorfulness: mean must be a number, not 'high'", [*BASE, *ONE, *FILE],
         {"colorfulness": {"mean": "high", "std": 1}}),
        ("colorfulness: field std is missing", [*BASE, *ONE, *FILE],
         {"colorfulness": {"mean": 1}}),
        ("unknown field 'sigma'", [*BASE, *ONE, *FILE],
         {"colorfulness": {"mean": 1, "std": 1, "sigma": 1}}),
        ("must map names to values, not [1]", [*BASE, *ONE, *FILE], [1]),
        ("--statistics gone.json: no such file", [*BASE, *ONE, "--statistics", "gone.json"], {}),
        ("--statistics a_file: not valid JSON", [*BASE, *ONE, "--statistics", "a_file"], {}),
        ("no scorer 'colours'; did you mean", [*BASE, "--rewards", "colours", *ONE[2:], *FILE], {}),
        ("has no option 'size'", [*BASE, "--rewards", "compressibility:size=1", *ONE[2:], *FILE],
         {}),
        ("--rewards: colorfulness is given twice",
         [*BASE, "--rewards", "colorfulness", "colorfulness", *ONE[2:], *FILE],
         {"colorfulness": {"mean": 1, "std": 1}}),
        ("--labelled empty: has no reward_space.json", [*BASE, *ONE, "--labelled", "empty"], {}),
        ("unknown reward 'aesthetic'", [*BASE, "--rewards", "aesthetic", *ONE[2:],
                                        "--labelled", "{root}/labelled"], {}),
        ("one distinct label is needed for each reward",
         [*BASE, *ONE[:2], "--labels", "a", "b", "--labelled", "{root}/labelled"], {}),
        ("--labels: '<rm1>': write what stands between",
         [*BASE, *ONE[:2], "--labels", "<rm1>", "--labelled", "{root}/labelled"], {}),
        ("not allowed with", [*BASE, *ONE, *FILE, "--labelled", "x"], {}),
        ("is required", [*BASE, *ONE], {}),
        ("--model gone: no such folder", ["--model", "gone", *ONE, *FILE], {}),
        ("--mapping: 'nope' is none of its choices", [*BASE, *ONE, *FILE, "--mapping", "nope"], {}),
        ("--out a_file", [*BASE, *ONE, *FILE, "--out", "a_file"], {}),
        ("--denoiser gone: no such folder", [*BASE, *ONE, "--labelled", "{root}/labelled",
                                             "--denoiser", "gone"], {}),
        ("--denoiser some/hub-id/unet: cannot be loaded",
         [*BASE, *ONE, "--labelled", "{root}/labelled", "--denoiser", "some/hub-id/unet"], {}),
        ("--denoiser {root}/model/vae: is of class AutoencoderKL, the model's own UNet2DCondition",
         [*BASE, *ONE, "--labelled", "{root}/labelled", "--denoiser", "{root}/model/vae"], {}),
        ("context width 32, the model's own has",
         ["--model", "emoji-64", *ONE, "--labelled", "{root}/labelled",
          "--denoiser", "{root}/model"], {}),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_one_line(refused, root, place, said, args, statistics):
    (place / "statistics.json").write_text(json.dumps(statistics))
    out = [] if "--out" in args else ["--out", "out"]
    refused(said.format(root=root), "adopt", *args, *out)
