"""scripts/research/benchmark_alignment.py on the tiny model: every part, once."""

import json
import re
import shutil
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest
from PIL import Image

from ric_diffusion.api.runs import OnlineRun, TrainConfig
from ric_diffusion.cli import main
from ric_diffusion.evaluation.report.schema import EvaluationResult
from ric_diffusion.io import config as configs
from ric_diffusion.models.diffusion.sampler import DiffusionSampler
from ric_diffusion.training.trainer import Trainer
from support.processes import HOME
from support.tables import first_number, tables_of

SCRIPT = HOME / "scripts" / "research" / "benchmark_alignment.py"
TRY = SCRIPT.parent / "try_sampling.py"
EVERYTHING = [
    "selection",
    "text",
    "variants",
    "mappings",
    "base",
    "best-of",
    "sft",
    "soup",
    "ddpo",
    "conditioned",
    "stops",
    "dpo",
    "attrictrl",
    "plateau",
]
STEPS, PROMPTS, SEEDS, POINTS = 4, 2, 2, 3
SAMPLING = {"guidance_scale": 4.0, "prompt_guidance": 2.0, "num_inference_steps": STEPS}
KEPT = {"prompt_r_precision": 0.3}
CALIBRATION = 1  # prompts, under a seed of their own
METHODS = [
    "RiC online",
    "RiC online, calibrated",
    "RiC offline",
    "RiC offline, calibrated",
    "RiC online, quantile",
    "RiC offline, words",
    "RiC offline, words that do not modulate",
    "RiC offline, tokens that do not modulate",
    "RiC online, more guidance",
    "RiC online, prompts kept",
    "RiC online, prompts kept and guided",
    "RiC online, calibrated, mapping linear",
    "RiC online, calibrated, mapping l2",
    "RiC online, calibrated, mapping linf",
    "RiC online, calibrated, mapping quantile",
    "base model",
    "best of 4",
    "best of 4 at equal cost",
    "SFT",
    "rewarded soup",
    "DDPO",
    "rewarded soup of DDPO",
    "Diffusion Blend",
    "reward-conditioned DDPO",
    "reward-conditioned DDPO, 2 iterations",
    "reward-conditioned DDPO, 4 iterations",
    "reward-conditioned DPO",
    "AttriCtrl-like",
    "DDPO, 2 iterations for one preference",
]


def settings_of(out, name):
    """What the run of this name was begun with."""
    stored = json.loads((out / "parts" / name / "run.json").read_text())
    return stored["identity"]["settings"]


@pytest.fixture
def benchmark(script):
    return partial(script, SCRIPT)


@pytest.fixture(scope="module")
def config(root, tiny, tmp_path_factory):
    """config(data, there=True, **changes): a benchmark's config, with those it names beside it;
    ``there``: whether it names data that are there."""
    folder = tmp_path_factory.mktemp("configs")
    diffusion = {
        "lora": {"rank": 4, "alpha": 4, "targets": ["attention", "convolution"]},
        "sampling": {"guidance_scale": 3.0, "num_inference_steps": STEPS},
    }
    fast = {"steps": 3, "batch_size": 4, "learning_rate": 0.01}
    longer = fast | {"steps": 30, "validate_every": 1}  # the benchmark says how long
    guard = {"samples": 8, "diversity": 0.0, "prompt_r_precision": 0.0}
    # Noise reaches no quantile of the data but the lowest.
    rounds = {"rounds": 1, "samples": 8, "batch_size": 4, "keep_fraction": 1.0, "guard": guard}
    for mode in ("embedding", "text"):
        own = {"diffusion": {"mode": mode, **diffusion}, "loop": longer}
        tiny.write_config(folder / f"{mode}.yaml", tiny.config(root, mode, **own))
    online = {"model": "elsewhere", "data": "elsewhere", "adapter": "elsewhere"}
    tiny.write_config(folder / "online.yaml", online | {"online": rounds | {"loop": fast}})

    def write(data, there=True, **changes):
        names = json.loads((data / "reward_space.json").read_text())["rewards"]
        first, last = names[0]["name"], names[-1]["name"]
        ddpo = {"iterations": 2, "batch_size": 4, "minibatch": 2, "inner_epochs": 1}
        settings = {
            "model": str(root / "model"),
            "data": str(data) if there else "nowhere",
            "offline": str(folder / "embedding.yaml"),
            "text": str(folder / "text.yaml"),
            "online": str(folder / "online.yaml"),
            "steps": 3,
            "sft_fraction": 0.5,
            "soup_fraction": 0.3,
            "sampling": SAMPLING,
            "guidance_scale": 2.5,
            "best_of": 4,
            "ddpo": ddpo,
            "ddpo_preferences": [{first: 1.0}, {first: 0.5, last: 0.5}, {last: 1.0}],
            "ddpo_prompts": 1,
            "conditioned": ddpo | {"iterations": 6},
            "conditioned_stops": [4, 2],
            "prompts": PROMPTS,
            "seeds": SEEDS,
            "calibration_prompts": CALIBRATION,
            "calibration_seeds": 1,
            "points": POINTS,
            "ddpo_plateau": {"preference": {first: 2.0, last: 2.0}, "iterations": 2},
            "variants": {
                "more guidance": {"sampling": {"prompt_guidance": 3.0}},
                "prompts kept": {"online": KEPT},
                "prompts kept and guided": {"online": KEPT, "sampling": {"prompt_guidance": 3.0}},
            },
        }
        return tiny.write_config(folder / "alignment.yaml", settings | changes)

    return write


def test_everything_once(benchmark, script, config, root, tiny, tmp_path, monkeypatch):
    out = tmp_path / "alignment"
    given = config(root / "labelled", held_out=["brightness"])
    code, said, err = benchmark("--config", given, "--out", out)
    assert code == 0, err
    assert said.splitlines()[-1] == str(out / "table.md")

    result = EvaluationResult.load(out / "metrics.json")
    found = {method.name: method for method in result.methods}
    assert list(found) == METHODS
    spent = {name: method.training_cost for name, method in found.items()}
    trained, labels = 3 * 4 * 3, 14 * 2  # steps, batch, forward and backward; pictures, rewards
    moved = 2 * 2 * POINTS * CALIBRATION  # by a calibration: two sweeps, two rewards
    conditioned = [METHODS[2], *METHODS[5:8]]
    for name in (*conditioned, "SFT"):
        assert (spent[name].forwards, spent[name].scored) == (trained, labels)
    assert spent["RiC offline, calibrated"].forwards == trained + moved * 2 * STEPS
    assert spent["RiC offline, calibrated"].scored == labels + moved * 2
    assert spent["rewarded soup"].forwards == 2 * trained
    # drawing, then learning from all steps but the last, for each of 2 iterations and 3 runs
    assert spent["DDPO"].forwards == 3 * 2 * 4 * 2 * (STEPS + 3 * (STEPS - 1))
    assert spent["DDPO"].scored == 3 * 2 * 4 * 2
    for name in ("rewarded soup of DDPO", "Diffusion Blend"):  # of two of these runs
        assert 3 * spent[name].forwards == 2 * spent["DDPO"].forwards
    assert spent["reward-conditioned DDPO"].forwards == spent["DDPO"].forwards
    for stop in (2, 4):
        stopped = spent[f"reward-conditioned DDPO, {stop} iterations"].forwards
        assert 6 * stopped == stop * spent["DDPO"].forwards
    # of a pair both pictures, and both once more by the base model
    assert spent["reward-conditioned DPO"].forwards == 3 * 4 * 2 * (3 + 1)
    assert spent["AttriCtrl-like"].forwards == 2 * trained  # an encoder for each reward
    assert spent["AttriCtrl-like"].scored == spent["reward-conditioned DPO"].scored == labels
    online, calibrated = spent["RiC online"], spent["RiC online, calibrated"]
    assert online.forwards > 2 * trained + 8 * 2 * STEPS
    assert online.scored == labels + 8 * 2
    assert calibrated.forwards == online.forwards + moved * 2 * STEPS
    assert calibrated.scored == online.scored + moved * 2
    assert spent["base model"].forwards == spent["best of 4"].forwards == 0
    one = {name: method.cost.forwards / method.samples for name, method in found.items()}
    assert one.pop("best of 4") == 4 * 2 * STEPS
    # a pass for each of two policies, but at the ends of the sweep
    assert one.pop("Diffusion Blend") == pytest.approx(4 / 3 * 2 * STEPS)
    assert set(one.values()) == {2 * STEPS}
    assert found["best of 4 at equal cost"].cost.scored == POINTS * PROMPTS * SEEDS * 4 * 2
    points = {name: len(method.points) for name, method in found.items()}
    assert {name for name, count in points.items() if count == 1} == {
        "base model",
        "SFT",
        METHODS[-1],
    }
    swept = {name for name, method in found.items() if method.control}  # each reward alone
    assert swept == {*METHODS[:2], *conditioned} and len(conditioned) == 4
    asked = [
        [point.targets for point in found[name].points]
        for name in ("RiC online, calibrated", "RiC online, calibrated, mapping linear")
    ]
    assert asked[0] != asked[1]

    methods, bars, conditionings, frontier, plateau = tables_of(out)
    assert list(methods) == METHODS
    for row in methods.values():
        assert first_number(row["hypervolume"]) > 0 and first_number(row["× RiC online"]) > 0
        assert first_number(row["a sample, forwards"]) >= 2 * STEPS
    curved = [one.reward for one in result.calibration.rewards]
    assert list(result.calibration.methods) == METHODS[:2] and curved
    # two for all sliders; for a reward that cannot be calibrated one less
    assert len(bars) == 11 + 3 + 5 + 2 + len(curved)
    assert {row[""] for row in bars.values()} <= {"met", "missed"}
    ratio = bars["forward passes of training, RiC online / DDPO"]
    assert first_number(ratio["value"]) == pytest.approx(
        online.forwards / spent["DDPO"].forwards, abs=1e-3
    )
    kept = bars["prompt R-precision, RiC online / base model"]
    expected = (found[name].prompt_r_precision.value for name in ("RiC online", "base model"))
    assert first_number(kept["value"]) == pytest.approx(next(expected) / next(expected), abs=1e-3)
    assert set(conditionings) == set(conditioned) and set(frontier) == set(METHODS[:-1])
    (longer,) = plateau.values()
    assert longer["iterations"] == "2"
    assert first_number(longer["training, million forwards"]) == pytest.approx(0, abs=1e-3)
    figures = "cost", "methods", "front", "frontier", "ddpo", "ddpo-plateau"
    for name in map("{}.png".format, figures):
        with Image.open(out / name) as image:
            image.load()
            assert image.width >= 800
    assert "best of 4 at equal cost" in (out / "index.html").read_text()

    names = ("offline", "text", "online", "online-other", "sft")
    used = {name: settings_of(out, name) for name in names}
    others = ("text-unmodulated", "tokens-unmodulated", "online-with-prompts-kept")
    plain, tokens, variant = (settings_of(out, name) for name in others)
    words = used["text"]
    assert words["diffusion"]["mode"] == "text" and tokens["diffusion"]["mode"] == "embedding"
    assert words["diffusion"]["lora"]["targets"] == ["attention", "convolution", "modulation"]
    assert plain["diffusion"]["lora"]["targets"] == ["attention", "convolution"]
    assert used["offline"]["diffusion"] == tokens["diffusion"] | {"modulation": True}
    assert variant["online"] == used["online"]["online"] | KEPT
    assert not (
        out / "online-with-prompts-kept-and-guided"
    ).exists()  # it is trained as the one before
    for name in ("offline", "text", "sft"):
        assert used[name]["loop"]["steps"] == 3
    ddpo = settings_of(out, "ddpo-1")
    told = settings_of(out, "conditioned")
    assert told["prompts"] == ddpo["prompts"]
    assert told["conditioned"] == ddpo["ddpo"] | {"iterations": 6}
    # Stopped early, it is the same training, and each stop goes on where the one before ended.
    curves = [
        (out / name / "log.jsonl").read_text().splitlines()
        for name in ("conditioned-2", "conditioned-4", "conditioned")
    ]
    assert [len(curve) for curve in curves] == [2, 4, 6]
    assert curves[0] == curves[1][:2] and curves[1] == curves[2][:4]
    others = [plain, *(settings for name, settings in used.items() if name != "text")]
    loras = [ddpo["ddpo"]["lora"], *(settings["diffusion"]["lora"] for settings in others)]
    assert all(lora == loras[0] for lora in loras) and loras[0]["rank"] == 4
    selections = [used[name]["online"]["selection"] for name in ("online", "online-other")]
    assert selections == ["fronts", "quantile"]

    # No prompt of the comparison was calibrated, drawn by an online round or optimised for.
    training = (out / "prompts.txt").read_text().splitlines()
    assert len(ddpo["prompts"]) == 1 and set(ddpo["prompts"]) <= set(training)
    requests = json.loads((out / "online" / "round-1" / "requests.json").read_text())
    assert {request["prompt"] for request in requests} <= set(training)
    apart = [*result.prompts, *result.calibration.prompts, *training]
    assert sorted(apart) == sorted(tiny.NAMES)

    # DDPO draws as it was trained, and all are scored by what none was trained on.
    sampling = {name: method.about["sampling"] for name, method in found.items()}
    for name in ("more guidance", "prompts kept and guided"):
        assert sampling[f"RiC online, {name}"] == SAMPLING | {"prompt_guidance": 3.0}
    plain = {"num_inference_steps": STEPS, "guidance_scale": 2.5}
    assert sampling["RiC online"] == SAMPLING
    assert sampling["SFT"] == sampling["base model"] == sampling["rewarded soup"] == plain
    for name in ("DDPO", "rewarded soup of DDPO", "Diffusion Blend", METHODS[23], METHODS[24]):
        assert sampling[name] == plain | {"eta": 1.0}
    assert ddpo["ddpo"]["guidance_scale"] == 2.5
    assert all(0 < float(row["brightness"]) < 100 for row in methods.values())

    # Again: nothing is drawn, nothing trained, and a part can be left out of the table.
    def refuse(*given):
        raise AssertionError("done twice")

    monkeypatch.setattr(DiffusionSampler, "sample", refuse)
    monkeypatch.setattr(Trainer, "step", refuse)
    before = (out / "table.md").read_bytes()
    again = ["--config", given, "--out", out]
    assert benchmark(*again)[0] == 0
    assert (out / "table.md").read_bytes() == before
    assert benchmark(*again, "--skip", "ddpo", "mappings")[0] == 0
    methods, bars, *_ = tables_of(out)
    assert len(methods) == len(METHODS) - 7
    assert bars["hypervolume, RiC online / DDPO"]["value"] == "not run"
    for name in ("reward-conditioned DPO", "AttriCtrl-like"):
        assert bars[f"hypervolume, RiC online / {name}"]["bar"] == "≥ 1"

    # What was kept is enough for the tables; the report needs the samples.
    kept, moved = ["--config", given, "--scores", out / "scores"], tmp_path / "moved"
    assert benchmark(*kept, "--out", moved)[0] == 0
    assert [file.name for file in (moved / "methods").iterdir()] == ["report.json"]  # its own files
    assert {file.name for file in moved.iterdir()} == {
        "methods",
        "table.md",
        "metrics.json",
        *(f"{name}.png" for name in figures if name != "front"),
    }
    assert (moved / "table.md").read_text() == before.decode()
    shutil.copytree(out / "scores", tmp_path / "some")
    for name in ("ddpo", "plateau", "text"):
        shutil.rmtree(tmp_path / "some" / name)
    without = config(root / "labelled", held_out=["brightness"], there=False)
    some = ["--config", without, "--scores", tmp_path / "some", "--out", moved, "--kept"]
    assert benchmark(*some)[0] == 0
    left, bars, *others = tables_of(moved)
    assert len(left) == len(METHODS) - 3 - 3 - 1 and len(others) == 1  # what is kept of prompts
    assert bars["hypervolume, RiC online / DDPO"]["value"] == "not run"
    code, _, err = benchmark(*some, "--training-seeds", 1)
    assert code == 2 and "--training-seeds 1: the config has 1, from 0" in err
    shutil.rmtree(tmp_path / "some" / "ours")
    code, _, err = benchmark(*some)
    assert code == 2 and "nothing of ours is kept; leave out --kept" in err
    given = config(root / "labelled", held_out=["brightness"])
    assert benchmark("--config", given, "--out", out)[0] == 0

    # One run may be made longer; the table is written without --only.
    monkeypatch.undo()
    plateau = {"preference": {"compressibility": 2.0, "colorfulness": 2.0}, "iterations": 3}
    other = config(root / "labelled", held_out=["brightness"], ddpo_plateau=plateau)
    before = (out / "table.md").read_bytes()
    longer = "--config", other, "--out", out, "--only", "plateau"
    code, _, err = benchmark(*longer)
    assert code == 2 and "other ddpo_plateau.iterations (2, now 3); restore that, or remove" in err
    shutil.rmtree(out / "scores" / "plateau")
    code, _, err = benchmark(*longer)
    assert code == 0, err
    assert (out / "table.md").read_bytes() == before
    assert len((out / "ddpo-plateau" / "log.jsonl").read_text().splitlines()) == 3
    shorter = config(root / "labelled", held_out=["brightness"])
    shutil.copytree(out / "scores" / "plateau", tmp_path / "plateau")
    shutil.rmtree(out / "scores" / "plateau")
    code, _, err = benchmark("--config", shorter, *longer[2:])
    assert code == 2 and "iterations is 2, " in err and "has done 3; give as many or more" in err
    shutil.rmtree(out / "scores" / "plateau")
    shutil.move(tmp_path / "plateau", out / "scores" / "plateau")
    other = config(root / "labelled", held_out=["brightness"], ddpo_plateau=plateau)

    # Numbers of other trainings are not shown beside these pictures; nor are they in their way.
    foreign = tmp_path / "foreign"
    shutil.copytree(out / "scores", foreign)
    file = foreign / "ours" / "methods.json"
    file.write_text(re.sub(r'("weights": ")[0-9a-f]', r"\1x", file.read_text()))
    theirs = "--config", other, "--out", out, "--kept", "--scores", foreign
    code, _, err = benchmark(*theirs)
    assert code == 0 and not (out / "index.html").exists() and not (out / "grid.png").exists(), err
    assert benchmark("--config", other, "--out", out)[0] == 0
    assert (out / "index.html").exists() and (out / "grid.png").exists()
    before = (out / "table.md").read_bytes()

    # Other ways to draw are tried on prompts that nobody is compared on.
    tries = {"as it is": {}, "later": {"reward_start": 0.5}}
    settings = tiny.write_config(tmp_path / "tries.yaml", {"prompts": 1, "settings": tries})
    trying = "--config", other, "--settings", settings, "--out", out
    code, said, err = script(TRY, *trying)
    assert code == 0, err
    tried = out / "tried" / "online"
    assert said.splitlines()[-1] == str(tried / "table.md")
    assert (tried / "frontier.png").exists() and (out / "table.md").read_bytes() == before
    (rows,) = tables_of(tried)
    assert set(rows) == {*tries, "base model"}
    drawn = {}
    for name in ("as-it-is", "later"):
        drawn[name] = json.loads((tried / "methods" / name / "run.json").read_text())["identity"]
        (prompt,) = drawn[name]["prompts"]
        assert prompt in training
    first, second = (one["method"]["sampling"] for one in drawn.values())
    assert first == SAMPLING and second == SAMPLING | {"reward_start": 0.5}
    code, _, err = script(TRY, *trying, "--run", "nowhere")
    assert code == 2 and f"{out / 'nowhere'}: has no adapter" in err
    changed = {"prompts": 1, "settings": tries | {"later": {"reward_start": 0.25}}}
    tiny.write_config(settings, changed)
    code, _, err = script(TRY, *trying)
    assert code == 2 and "reward_start (0.5, now 0.25); give what was changed another name" in err
    tiny.write_config(settings, {"prompts": 99, "settings": {}})
    code, _, err = script(TRY, *trying)
    assert code == 2 and "tries.yaml: prompts is 99, 1 are free; ask for fewer" in err
    tiny.write_config(settings, {"prompts": 1, "settings": {"far": {"contrsat": 4.0}}})
    code, _, err = script(TRY, *trying, "--run", "offline")
    assert code == 2 and "tries.yaml: settings.far: sampling: unknown field 'contrsat'" in err
    assert not (out / "tried" / "offline").exists()

    # Other settings are not mixed with these.
    other = config(root / "labelled", soup_fraction=0.5, held_out=["brightness"])
    code, _, err = benchmark("--config", other, "--out", out)
    assert code == 2 and "soup: holds a run with other soup_fraction (0.3, now 0.5)" in err
    assert err.strip().splitlines()[-1].startswith("benchmark_alignment.py: ")
    other = config(root / "labelled", seeds=1, held_out=["brightness"])
    code, _, err = benchmark("--config", other, "--out", out, "--skip", *EVERYTHING)
    assert code == 2 and "holds a run with other seeds" in err


def test_three_rewards_and_two_training_seeds(benchmark, config, root, tmp_path):
    data, out = tmp_path / "three", tmp_path / "alignment"
    names = ["compressibility:resize=none", "colorfulness", "brightness"]
    assert main(["label", str(root / "pictures"), "--scorers", *names, "--out", str(data)]) == 0
    twice = {"training_seeds": {"ours": 2, "soup": 2}, "ddpo_plateau": None}
    given = ["--config", config(data, **twice), "--out", out]
    code, said, err = benchmark(*given, "--only", "soup")
    assert code == 0 and not said and not (out / "table.md").exists(), err
    assert not (out / "offline").exists()
    skipped = [part for part in EVERYTHING if part not in ("ddpo", "soup")]
    code, _, err = benchmark(*given, "--skip", *skipped)
    assert code == 0, err
    methods, bars, _ = tables_of(out)
    assert list(methods) == [*METHODS[:4], "rewarded soup", "DDPO"]
    for name in ("compressibility", "colorfulness", "brightness"):
        row = bars[f"control, {name}: Spearman of the means"]
        assert -1 <= first_number(row["value"]) <= 1 and row["bar"] == "≥ 0.95"
    first, *_, soup, _ = EvaluationResult.load(out / "metrics.json").methods
    corners = [list(point.preference.values()) for point in first.points]
    assert corners == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]

    # Every training has a run of its own, and begins with that of its own seed.
    for name in ("RiC online", "RiC offline", "rewarded soup"):
        each = methods[name]["of each training"].split(", ")
        assert len(set(each)) == 2
        mean = sum(map(float, each)) / 2
        assert first_number(methods[name]["hypervolume"]) == pytest.approx(mean, abs=0.011)
    assert not methods["DDPO"]["of each training"]
    seeds = [settings_of(out, name)["loop"]["seed"] for name in ("offline", "offline-seed1")]
    assert seeds == [0, 1]
    code, _, err = benchmark(*given, "--only", "ddpo", "--training-seeds", 1)  # ours has two
    assert code == 2 and "--training-seeds 1: the config has 1, from 0, of these parts" in err
    # A training that is alone has the name of its method, whichever it is.
    before = (out / "table.md").read_text()
    shutil.move(out / "scores" / "ours", tmp_path / "first")
    code, _, err = benchmark(*given, "--skip", *skipped, "--kept")
    assert code == 0, err
    methods, bars, _ = tables_of(out)
    assert list(methods) == [*METHODS[:4], "rewarded soup", "DDPO"]
    for name in ("hypervolume, RiC online / RiC offline", "hypervolume, RiC online / DDPO"):
        assert first_number(bars[name]["value"]) > 0
    shutil.move(tmp_path / "first", out / "scores" / "ours")
    assert benchmark(*given, "--skip", *skipped)[0] == 0
    assert (out / "table.md").read_text() == before
    online = settings_of(out, "online-seed1")
    assert online["adapter"] == str(out / "offline-seed1" / "adapter")
    assert online["online"]["seed"] == online["online"]["loop"]["seed"] == 1
    assert soup.training_cost.forwards == 3 * 3 * 4 * 3  # of one training: three LoRAs


@pytest.mark.parametrize(
    ("name", "points"),
    [
        ("emoji-alignment", 11),
        ("emoji-alignment-settings", 11),
        ("emoji-alignment-three", 11),
        ("emoji-alignment-five", 13),
    ],
)
def test_own_configs_differ_in_how_rewards_are_told_alone(monkeypatch, name, points):
    """They are read without the data, which they name only."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    runs = import_module("alignment_runs")
    config = configs.load_yaml(SCRIPT.parent / "configs" / f"{name}.yaml", runs.Alignment)
    assert len(config.ddpo_preferences) == 5 and config.points == points
    least = config.ddpo.least * config.ddpo_prompts  # rewards, before each prompt has its own usual
    assert config.ddpo.iterations * config.ddpo.batch_size > 4 * least
    # one policy for all preferences has as many passes as a run for each
    iterations = config.ddpo.iterations * len(config.ddpo_preferences)
    assert config.conditioned == replace(config.ddpo, iterations=iterations)
    offline, text = (
        configs.load_yaml(HOME / file, TrainConfig) for file in (config.offline, config.text)
    )
    online = configs.load_yaml(HOME / config.online, OnlineRun)
    assert offline.data == config.data
    assert online.diffusion == offline.diffusion
    # Words are heard later: their LoRA counts for more, and they are left out less.
    words, same = text.diffusion, offline.diffusion
    assert words.mode == "text" and words.lora.alpha > same.lora.alpha
    dropout = replace(words.dropout, reward=same.dropout.reward)
    assert replace(words, mode=same.mode, lora=same.lora, dropout=dropout) == same
    variants = runs.variants_of(config.variants, offline, online, Path("out"), "")
    assert [variant.name for variant in variants] == list(config.variants)
    parts = import_module("benchmark_alignment").PARTS
    assert set(config.training_seeds) <= set(parts) and list(parts)[1:] == EVERYTHING


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ddpo_preferences": [{"beauty": 1.0}]}, "unknown reward 'beauty'"),
        ({"best_of": 3}, "best_of is 3; give a divisor of 4"),
        ({"best_of": 0}, "best_of is 0; give 1 or more"),
        ({"sft_fractions": 0.1}, "sft_fractions: unknown field"),
        ({"sft_share": 0.1}, "sft_share: is called sft_fraction now; rename it"),
        ({"soup_share": 0.1}, "soup_share: is called soup_fraction now; rename it"),
        ({"model": "smollm2"}, "model smollm2: is of causal language models; give one whose"),
        ({"prompts": 3}, "ddpo_prompts are 5, the data has 4 names; ask for fewer"),
        ({"held_out": ["colorfulness"]}, "held_out: colorfulness is a reward of"),
        ({"held_out": ["compressibility:quality=50"]}, "held_out: compressibility is a reward of"),
        (
            {"training_seeds": {"soups": 3}},
            "training_seeds.soups: no such part; did you mean 'soup'",
        ),
        ({"training_seeds": {"soup": 0}}, "training_seeds.soup is 0; give 1 or more"),
        ({"variants": {"a": {"online": {"share": 1}}}}, "variants.a: online: share: is called"),
        ({"variants": {"a": {"diffusion": {"lora": {"rank": 0}}}}}, "variants.a: diffusion: lora"),
        (
            {"ddpo_plateau": {"preference": {"colorfulness": 0.3}, "iterations": 0}},
            "ddpo_plateau: iterations is 0; give 1 or more",
        ),
        (
            {
                "ddpo_plateau": {
                    "preference": {"colorfulness": 3, "compressibility": 1},
                    "iterations": 9,
                }
            },
            "ddpo_plateau.preference: is none of the 3 that ours is asked for",
        ),
        ({"offline": "gone.yaml"}, "gone.yaml: cannot be read"),
        (
            {"sampling": {**SAMPLING, "guidence_scale": 3.0}},
            ".yaml: sampling: unknown field 'guidence_scale'; did you mean 'guidance_scale'",
        ),
        (
            {
                "sampling": {**SAMPLING, "reward_start": 0.5},
                "rounds_sampling": {"reward_start": -0.5},
            },
            ".yaml: rounds_sampling.reward_start -0.5: give a number from 0 to",
        ),
        ({"sampling": {"guidance_scale": 4.0}}, "sampling: has no num_inference_steps; give it"),
        (
            {"sampling": {**SAMPLING, "prompt_guidance": 9.0}},
            ".yaml: prompt_guidance 9.0: give a number from 1 to guidance_scale, 4.0",
        ),
        (
            {"variants": {"much": {"sampling": {"prompt_guidance": 9.0}}}},
            ".yaml: variants.much: prompt_guidance 9.0: give a number from 1 to",
        ),
        (
            {"rounds_sampling": {"reward_start": 0.5}},
            "rounds_sampling: reward_start is not in sampling, which has to say what it is",
        ),
        ({"steps": 0}, "steps is 0; give 1 or more"),
        ({"points": 1}, "points is 1; give 2 or more"),
        ({"seed": -1}, "seed is -1; give 0 or more"),
        ({"sft_fraction": 1.5}, "sft_fraction is 1.5; give 1 at most"),
        ({"attrictrl_learning_rate": 0.0}, "attrictrl_learning_rate is 0.0; give a number above 0"),
        ({"held_out": ["brightnes"]}, ".yaml: held_out: "),
        (
            {"training_seeds": {"variants": 3}},
            "training_seeds.variants is 3, and this part is made",
        ),
        ({"variants": {"a b": {}, "A-b": {}}}, "variants.a b: is like 'A-b', which a folder is"),
        ({"variants": {"+": {}}}, "variants.+: has neither letters nor digits"),
        (
            {"variants": {"late": {"sampling": {"reward_strat": 0.5}}}},
            ".yaml: variants.late: sampling: unknown field 'reward_strat'; did you mean",
        ),
    ],
)
def test_bad_configs_are_one_line_and_leave_nothing(
    benchmark, config, root, tmp_path, changes, message
):
    out = tmp_path / "alignment"
    code, _, err = benchmark("--config", config(root / "labelled", **changes), "--out", out)
    assert code == 2 and message in err
    assert len(err.strip().splitlines()) == 1
    assert not out.exists()


@pytest.mark.parametrize(
    "name", ["emoji-alignment", "emoji-alignment-settings", "emoji-alignment-five"]
)
def test_the_scores_that_come_along_are_those_of_the_config(monkeypatch, tmp_path, name):
    """Of its settings, of the bundled model and scorers, and of one labelled folder."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    monkeypatch.chdir(HOME)  # whose configs the config names
    runs, shared = import_module("alignment_runs"), import_module("benchmark")
    parts = import_module("benchmark_alignment").PARTS
    path, scores = (SCRIPT.parent / folder / name for folder in ("configs", "scores"))
    kept = sorted({file.parent.name.partition("-seed")[0] for file in scores.glob("*/run.json")})
    assert kept and set(kept) <= set(parts)
    path = path.with_suffix(".yaml")
    bench = runs.load(path, tmp_path / "out", kept, parts, scores=scores, only_kept=True)
    for part in kept:
        for k in bench.seeds_of(part):
            shared.kept_in(bench, part, k).check_same(shared.identity_of(bench, parts, part))
