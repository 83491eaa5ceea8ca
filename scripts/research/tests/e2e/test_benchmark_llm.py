"""scripts/research/benchmark_llm.py on the tiny language model: every part, once."""

import json
import shutil
from dataclasses import replace
from functools import partial
from importlib import import_module

import pytest
import torch
import yaml
from PIL import Image

from ric_diffusion.api.runs import OnlineRun, TrainConfig
from ric_diffusion.cli import main
from ric_diffusion.data.prompts import read_prompts
from ric_diffusion.evaluation.report.schema import EvaluationResult
from ric_diffusion.io import config as configs
from ric_diffusion.models import hardware
from ric_diffusion.models.causal_lm.sampler import LlmSampler
from ric_diffusion.training.trainer import Trainer
from support.lm import write_lm
from support.processes import HOME
from support.tables import first_number, tables_of

pytest.importorskip("trl")
SCRIPTS = HOME / "scripts" / "research"
ASKS, JUDGED = ["how do i bake a cake?", "why?", "two tips"], ["and the sea?", "a name"]
SEEDS, POINTS, CALIBRATION, TOKENS = 2, 3, 1, 8
GUIDANCE = {"guidance_scale": 2.0, "contrast": 1.0}  # of reward words
METHODS = [
    "RiC online",
    "RiC offline",
    "RiC offline, words",
    "RiC offline, tokens that do not modulate",
    "RiC online, calibrated",
    "base model",
    "SFT",
    "rewarded soup",
    "GRPO",
]


@pytest.fixture
def benchmark(script):
    return partial(script, SCRIPTS / "benchmark_llm.py")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """model/, the responses it gave with their cost, labelled/, prompts and configs."""
    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("home")
    write_lm(home / "model")
    (home / "asks.txt").write_text("\n".join(ASKS))
    (home / "judged.txt").write_text("\n".join(JUDGED))
    sampling = {"temperature": 1.0, "response_tokens": TOKENS}
    llm = {"lora": {"rank": 4, "alpha": 8}, "sampling": sampling}
    fast = {"steps": 3, "batch_size": 4, "learning_rate": 0.01}
    common = {"model": "elsewhere", "data": "elsewhere", "llm": llm}
    offline = common | {"loop": fast | {"validate_every": 1}, "prompts": ASKS}
    (home / "offline.yaml").write_text(yaml.safe_dump(offline))
    words = {"mode": "text", "sampling": sampling | GUIDANCE}
    text = common | {"llm": llm | words, "loop": fast | {"steps": 9}}
    (home / "text.yaml").write_text(yaml.safe_dump(text))
    guard = {"samples": 8, "diversity": 0.0, "prompt_r_precision": 0.0}
    rounds = {"rounds": 1, "samples": 8, "batch_size": 4, "guard": guard, "loop": fast}
    online = common | {"adapter": "elsewhere", "online": rounds}
    (home / "online.yaml").write_text(yaml.safe_dump(online))
    return home


@pytest.fixture
def data(home, script):
    """Sampled and labelled by the script and the verb that the benchmark's own text names."""
    if not (home / "labelled").exists():
        code, _, err = script(
            HOME / "scripts" / "sample_responses.py",
            "--model", home / "model", "--out", home / "said",
            "--prompts", home / "asks.txt", "--temperatures", 1.0, "--per-prompt", 6,
            "--response-tokens", TOKENS, "--dtype", "float32",
        )  # fmt: skip
        assert code == 0, err
        scorers = ["--scorers", "positivity", "brevity"]
        assert main(["label", str(home / "said"), *scorers, "--out", str(home / "labelled")]) == 0
    return home


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--model", "nowhere"], "--model nowhere: no such folder or bundled model"),
        (["--prompts", "nowhere.txt"], "nowhere.txt: cannot be read"),
        (["--temperatures", "0.7", "0.70"], "--temperatures: 0.7 is given twice; name it once"),
        (["--temperatures", "nan"], "temperature: nan is not a finite number"),
        (["--response-tokens", 0], "response_tokens is 0; give 1 or more"),
        (["--per-prompt", 0], "--per-prompt is 0; give 1 or more"),
    ],
)
def test_bad_sampling_is_one_line_and_leaves_nothing(home, script, tmp_path, args, said):
    out = tmp_path / "said"
    known = ["--model", home / "model", "--prompts", home / "asks.txt", "--out", out]
    code, _, err = script(HOME / "scripts" / "sample_responses.py", *known, *args)
    assert code == 2 and said in err.splitlines()[-1] and not out.exists()


@pytest.fixture
def config(home, tmp_path):
    """config(**changes): the path of a config of the benchmark."""

    def write(**changes):
        settings = {
            "model": str(home / "model"),
            "responses": str(home / "said"),
            "data": str(home / "labelled"),
            "prompts": str(home / "asks.txt"),
            "compared": str(home / "judged.txt"),
            "offline": str(home / "offline.yaml"),
            "text": str(home / "text.yaml"),
            "online": str(home / "online.yaml"),
            "sft_fraction": 0.5,
            "soup_fraction": 0.3,
            "grpo": {"steps": 2, "groups": 1, "group_size": 4, "minibatch": 4},
            "grpo_preferences": [{"positivity": 1.0}, {"positivity": 1.0, "brevity": 1.0}],
            "seeds": SEEDS,
            "calibration_prompts": CALIBRATION,
            "calibration_seeds": 1,
            "points": POINTS,
        }
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(settings | changes))
        return path

    return write


def test_everything_once(benchmark, config, data, tmp_path, monkeypatch):
    out = tmp_path / "out"
    code, said, err = benchmark("--config", config(), "--out", out)
    assert code == 0, err
    assert said.splitlines()[-1] == str(out / "table.md")

    result = EvaluationResult.load(out / "metrics.json")
    found = {method.name: method for method in result.methods}
    assert list(found) == METHODS and list(result.prompts) == JUDGED
    assert [scorer.name for scorer in result.held_out] == ["fluency"]
    spent = {name: method.training_cost for name, method in found.items()}
    sampled = json.loads((data / "said" / "cost.json").read_text())["forwards"]
    labels = spent["SFT"].scored
    learned = 3 * 4 * 3  # steps, batch, forward and backward
    assert 18 < sampled <= 18 * TOKENS and 0 < labels <= 18 * 2
    assert spent["SFT"].forwards == sampled + learned
    assert spent["rewarded soup"].forwards == sampled + 2 * learned
    moved = 2 * 2 * POINTS * CALIBRATION  # coarse and fine, rewards
    for name in METHODS[1:4]:
        assert spent[name] == replace(spent["SFT"], seconds=spent[name].seconds)
    online, calibrated = spent["RiC online"], spent["RiC online, calibrated"]
    assert online.forwards > sampled + 2 * learned and online.scored == labels + 8 * 2
    assert calibrated.scored == online.scored + 2 * moved
    assert calibrated.forwards > online.forwards + moved
    grpo = 2 * 2 * 4  # runs, steps, responses; they need none of our data
    assert grpo * 5 <= spent["GRPO"].forwards <= grpo * (TOKENS + 4)
    assert spent["GRPO"].scored == grpo * 2 and spent["base model"].forwards == 0
    assert [name for name, method in found.items() if method.control] == METHODS[:5]
    points = {name: len(method.points) for name, method in found.items()}
    assert {name for name, count in points.items() if count == 1} == {"base model", "SFT"}
    sampling = {name: method.about["sampling"] for name, method in found.items()}
    words = sampling.pop("RiC offline, words")
    assert words == sampling["RiC offline"] | GUIDANCE
    assert all(one == sampling["RiC offline"] for one in sampling.values())

    methods, bars, conditionings = tables_of(out)
    assert list(methods) == METHODS
    assert list(conditionings) == METHODS[1:4]
    trained = [float(row["trained, million parameters"]) for row in conditionings.values()]
    assert trained[0] > trained[2]  # what steers the layers is left out
    assert all(float(row["fluency"].replace("−", "-")) < 0 for row in methods.values())
    assert list(bars) == [
        "control, positivity: Spearman of the means",
        "control, brevity: Spearman of the means",
        "RiC offline, words, positivity: Spearman of the means",
        "RiC offline, words, brevity: Spearman of the means",
        "hypervolume, RiC online / base model",
        "hypervolume, RiC online / rewarded soup",
        "hypervolume, RiC online / GRPO",
        "forward passes of training, RiC online / GRPO",
        "fluency in the middle of the sweep, RiC online - base model, nat",
        *(
            f"error of {slider}, calibrated{what}"
            for slider in ("all sliders", "the positivity slider", "the brevity slider")
            for what in (", z", " / not")
        ),
        "speed of 2 responses in one batch / one by one",
        "these responses are the same, in float32",
    ]
    ratio = bars["forward passes of training, RiC online / GRPO"]
    expected = spent["RiC online"].forwards / spent["GRPO"].forwards
    assert first_number(ratio["value"]) == pytest.approx(expected, abs=1e-3)
    assert bars["these responses are the same, in float32"]["value"] == "yes"
    middle, base = (found[name].points for name in ("RiC online", "base model"))
    gap = middle[1].held_out["fluency"].value - base[0].held_out["fluency"].value
    fluency = bars["fluency in the middle of the sweep, RiC online - base model, nat"]
    assert first_number(fluency["value"]) == pytest.approx(gap, abs=0.01)
    for name in ("cost.png", "methods.png", "grpo.png"):
        with Image.open(out / name) as image:
            image.load()

    # What calibrated and what online rounds and GRPO drew is nobody's test.
    assert set(result.calibration.prompts) <= set(ASKS)
    requests = json.loads((out / "online" / "round-1" / "requests.json").read_text())
    assert {request["prompt"] for request in requests} <= set(ASKS)
    stored = json.loads((out / "parts" / "grpo-1" / "run.json").read_text())
    used = stored["identity"]["settings"]
    assert used["prompts"] == ASKS and used["llm"]["lora"]["rank"] == 4

    # Again: nothing is drawn, nothing trained, and a part can be left out of the table.
    def refuse(*given):
        raise AssertionError("done twice")

    monkeypatch.setattr(LlmSampler, "sample", refuse)
    monkeypatch.setattr(Trainer, "step", refuse)
    before = (out / "table.md").read_bytes()
    assert benchmark("--config", config(), "--out", out)[0] == 0
    assert (out / "table.md").read_bytes() == before
    some = ["text", "grpo", "soup", "calibrated"]
    code, _, err = benchmark("--config", config(), "--out", out, "--skip", *some)
    assert code == 0, err
    methods, bars = tables_of(out)
    assert list(methods) == [*METHODS[:2], *METHODS[5:7]]
    assert bars["control, RiC offline, words"]["value"] == "not run"
    assert bars["hypervolume, RiC online / GRPO"]["value"] == "not run"

    # What was kept is enough for the tables, also without the data, and on the other kind of CPU.
    kept, moved = out / "scores", tmp_path / "moved"
    other = not hardware.has_bf16("cpu")
    monkeypatch.setattr(hardware, "has_bf16", lambda device: other)
    gone = config(data="nowhere", responses="nowhere")
    assert benchmark("--config", gone, "--scores", kept, "--out", moved, "--kept")[0] == 0
    assert (moved / "table.md").read_bytes() == before
    (kept / "speed.json").unlink()
    (kept / "grpo" / "methods.json").unlink()
    assert benchmark("--config", gone, "--scores", kept, "--out", moved, "--kept")[0] == 0
    methods, bars, _ = tables_of(moved)
    assert list(methods) == METHODS[:-1] and len(bars) == 15
    monkeypatch.undo()
    # Without the adapter, its speed is not measured.
    shutil.copytree(kept, tmp_path / "kept")
    fast = ["--scores", tmp_path / "kept", "--out", tmp_path / "fast", "--skip", "text", "grpo"]
    assert benchmark("--config", config(), *fast)[0] == 0
    assert not (tmp_path / "kept" / "speed.json").exists()

    other = config(grpo={"steps": 3, "groups": 1, "group_size": 4, "minibatch": 4})
    code, _, err = benchmark("--config", other, "--out", out)
    assert code == 2 and "grpo: holds a run with other grpo.steps (2, now 3)" in err

    # Online rounds and GRPO are of their prompts, not of the name of a file.
    shutil.rmtree(kept / "ours")
    asks = data / "asks.txt"
    before = asks.read_text()
    asks.write_text("".join(f"{ask}\n" for ask in [*ASKS[:-1], "What is new?"]))
    code, _, err = benchmark("--config", config(), "--out", out, "--only", "ours")
    asks.write_text(before)
    assert code == 2 and "online: holds a run with other basis" in err, err


@pytest.mark.parametrize(
    ("name", "rewards"),
    [
        ("smollm2-alignment", {"positivity", "brevity"}),
        ("smollm2-alignment-three", {"positivity", "brevity", "relevance"}),
    ],
)
def test_own_configs(monkeypatch, name, rewards):
    """They are read without the data, which they name only."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    runs = import_module("llm_runs")
    config = configs.load_yaml(SCRIPTS / "configs" / f"{name}.yaml", runs.LlmAlignment)
    assert len(config.grpo_preferences) == 5 and config.points == 11
    assert set().union(*config.grpo_preferences) == rewards
    offline = configs.load_yaml(HOME / config.offline, TrainConfig)
    online = configs.load_yaml(HOME / config.online, OnlineRun)
    text = configs.load_yaml(HOME / config.text, TrainConfig)
    assert text.llm.mode == "text" and offline.llm.mode == "embedding"
    assert online.llm.lora == offline.llm.lora and online.llm.sampling == offline.llm.sampling
    assert len(read_prompts(HOME / config.compared)) == 40


def test_the_scores_that_come_along_are_those_of_the_config(monkeypatch, tmp_path):
    """Of its settings, of the bundled model and scorers, and of one labelled folder; and this on
    every machine, whatever it computes in."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.chdir(HOME)
    runs, shared = import_module("llm_runs"), import_module("benchmark")
    parts = import_module("benchmark_llm").PARTS
    path, scores = (SCRIPTS / folder / "smollm2-alignment" for folder in ("configs", "scores"))
    kept = sorted(file.parent.name for file in scores.glob("*/run.json"))
    assert kept and set(kept) <= set(parts)
    path = path.with_suffix(".yaml")
    bench = runs.load(path, tmp_path / "out", kept, scores=scores, only_kept=True)
    for part in kept:
        shared.kept_in(bench, part, 0).check_same(shared.identity_of(bench, parts, part))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grpo_preferences": [{"beauty": 1.0}]}, "unknown reward 'beauty'"),
        ({"calibration_prompts": 4}, "has 3; ask for fewer"),
        ({"seeds": 0}, "seeds is 0; give 1 or more"),
        ({"grpo": {"group_size": 1}}, "group_size is 1; give 2 or more"),
        ({"responses": "elsewhere"}, "elsewhere/cost.json: says no cost"),
        ({"compared": "{home}/asks.txt"}, "judge others"),
        ({"model": "emoji-64"}, "model emoji-64: is of Stable Diffusion 1.x and 2.x; give one"),
        ({"sft_share": 0.1}, "sft_share: is called sft_fraction now; rename it"),
        ({"model": "smollm3"}, "smollm3: no such folder or bundled model"),
        ({"offline": "scripts/configs/emoji-text.yaml"}, "has settings of diffusion"),
    ],
)
def test_bad_configs_are_one_line_and_leave_nothing(
    benchmark, config, data, tmp_path, monkeypatch, changes, message
):
    monkeypatch.chdir(HOME)
    out = tmp_path / "out"
    given = {k: v.format(home=data) if isinstance(v, str) else v for k, v in changes.items()}
    code, _, err = benchmark("--config", config(**given), "--out", out)
    assert code == 2 and message in err
    assert len(err.strip().splitlines()) == 1
    assert not out.exists()
