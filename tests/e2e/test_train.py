"""ric label and ric train, as the fixture ran them, and what happens the second time."""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ric_diffusion.data.records import read_labelled
from ric_diffusion.models.diffusion.backend import DiffusionBackend
from support.processes import ENVIRONMENT

FEW = (
    "warning: 14 pictures are few: sliders are learned well from 500 and more; with fewer than 20, "
    "single pictures decide what the trade-offs between rewards are"
)


@pytest.fixture
def copy(root, tiny, tmp_path):
    """copy(mode, **changes): a config like the fixture's, in a place of its own."""

    def write(mode="embedding", **changes):
        return tiny.write_config(tmp_path / "config.yaml", tiny.config(root, mode, **changes))

    return write


def test_labelled(root, tiny):
    records, space = read_labelled(root / "labelled")
    assert len(records) == tiny.COUNT
    assert space.names == tuple(tiny.REWARDS) and space.units == ("kB", "M3")
    assert {record.extra["style"] for record in records} == {"flat", "noisy"}
    assert space.rewards[0].scorer["options"] == {"quality": 95, "resize": None}


def test_labelling_again_changes_nothing(ric, root, tiny, files):
    before = files(root / "labelled")
    done = ric("label", root / "pictures", "--out", root / "labelled", "--scorers", *tiny.SCORERS)
    assert done.code == 0
    assert done.out.splitlines() == [FEW, f"{root / 'labelled'}: 14 pictures labelled, 0 skipped"]
    assert files(root / "labelled") == before


def test_label_says_what_it_skipped(ric, tiny, tmp_path):
    tiny.write_pictures(tmp_path / "in")
    (tmp_path / "in" / "1.png").write_bytes(b"")
    (tmp_path / "in" / "2.png").write_bytes(b"")
    done = ric("label", tmp_path / "in", "--out", tmp_path / "out", "--scorers", *tiny.SCORERS)
    assert done.code == 0
    assert done.out.splitlines() == [
        FEW.replace("14", "12"),
        f"{tmp_path / 'out'}: 12 pictures labelled, 2 skipped",
        "  2 empty file",
    ]


@pytest.fixture
def wide(tmp_path, tiny):
    """Pictures three times as wide as high, whose sides are grey: a folder, and how to label it."""
    (tmp_path / "wide").mkdir()
    for i, middle in enumerate(tiny.pictures()):
        picture = Image.new("RGB", (3 * 64, 64), "grey")
        picture.paste(middle, (64, 0))
        picture.save(tmp_path / "wide" / f"{i}.png")
        (tmp_path / "wide" / f"{i}.txt").write_text(f"view {i}")
    return [tmp_path / "wide", "--scorers", *tiny.SCORERS, "--out", tmp_path / "labelled"]


def test_labels_are_of_the_squares_that_are_trained_on(ric, root, wide, tmp_path):
    assert ric("label", *wide).code == 0
    framed, squares = (
        sorted(tuple(record.scores.items()) for record in read_labelled(folder / "labelled")[0])
        for folder in (tmp_path, root)
    )
    assert framed == squares
    assert json.loads((tmp_path / "labelled" / "framing.json").read_text())["rule"] == "square"


def test_pictures_labelled_whole_are_not_cut_in_training(ric, copy, wide, tmp_path):
    assert ric("label", *wide, "--framing", "whole").code == 0
    data, run = tmp_path / "labelled", tmp_path / "run"
    done = ric("train", copy(data=str(data)), "--out", run)
    assert done.code == 2 and not (run / "run.json").exists()
    assert done.err.splitlines()[-1].startswith(  # after a bar
        f"ric train: {data}: was labelled whole, and training at 64 px cuts more than 10% away "
        "from 14 of 14 pictures, 67% from images/"
    )
    assert done.err.endswith("; label again with --framing square\n")


@pytest.mark.parametrize("damage", ["cut off", "another picture"])
def test_a_picture_changed_since_it_was_labelled_is_named(ric, root, copy, tmp_path, damage):
    data, run = tmp_path / "labelled", tmp_path / "run"
    shutil.copytree(root / "labelled", data)
    picture = sorted((data / "images").iterdir())[5]
    if damage == "cut off":
        picture.write_bytes(picture.read_bytes()[:100])
    else:
        Image.new("RGB", (64, 64), "green").save(picture)
    done = ric("train", copy(data=str(data)), "--out", run)
    assert done.code == 2 and not (run / "run.json").exists()
    assert done.err.count("\n") == 1 and done.err.startswith(f"ric train: {picture}: ")


@pytest.mark.parametrize("mode", ["embedding", "text"])
def test_adapter_folder(root, tiny, mode):
    adapter = root / mode / "adapter"
    names = {path.name for path in adapter.iterdir()}
    expected = {
        "pytorch_lora_weights.safetensors",
        "ric_adapter.json",
        "manifest.json",
        "README.md",
    }
    assert names == expected | ({"reward_encoder.safetensors"} if mode == "embedding" else set())
    about = json.loads((adapter / "ric_adapter.json").read_text())
    assert about["base_model"] == str(root / "model")
    assert about["conditioning"]["mode"] == mode
    assert [r["name"] for r in about["reward_space"]["rewards"]] == tiny.REWARDS
    assert about["sampling"] == {"guidance_scale": 3.0, "num_inference_steps": 3}
    assert about["training"].keys() == {"digest", "records", "steps"}
    assert (about["training"]["records"], about["training"]["steps"]) == (14, 6)
    for name in tiny.REWARDS:
        assert name in (adapter / "README.md").read_text()


@pytest.mark.parametrize("mode", ["embedding", "text"])
def test_run_folder(root, tiny, mode):
    run = root / mode
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == list(range(1, 7))
    assert all(math.isfinite(line["loss"]) for line in log)
    sheets = {path.name for path in (run / "sheets").iterdir()}
    assert sheets == {f"{name}-{step}.png" for name in tiny.REWARDS for step in (3, 6)}
    for path in (run / "sheets").iterdir():
        with Image.open(path) as sheet:
            sheet.load()
            assert sheet.width > 5 * 128 and sheet.height > 2 * 128
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-6"]
    assert any((run / "tensorboard").iterdir())
    assert json.loads((run / "config.json").read_text())["diffusion"]["mode"] == mode
    assert not list(run.rglob(".tmp-*"))


@pytest.mark.parametrize("mode", ["embedding", "text"])
def test_training_moved_every_part(root, mode):
    lora = load_file(root / mode / "adapter" / "pytorch_lora_weights.safetensors")
    seconds = [tensor for name, tensor in lora.items() if "lora_B" in name]
    assert seconds and all(tensor.abs().max() > 0 for tensor in seconds)  # they start at 0


def test_existing_run_is_refused(ric, root, files):
    before = files(root / "embedding")
    done = ric("train", root / "embedding.yaml", "--out", root / "embedding")
    assert done.code == 2 and done.out == ""
    assert done.err == (
        f"ric train: {root / 'embedding'}: holds a run already; add --resume, or choose another "
        "--out\n"
    )
    assert files(root / "embedding") == before


def test_finished_run_resumed_is_the_same(ric, root, files):
    before = files(root / "text")
    done = ric("train", root / "text.yaml", "--out", root / "text", "--resume")
    assert (done.code, done.out) == (0, f"{root / 'text' / 'adapter'}\n")
    after = files(root / "text")
    moved = {path for path in before if before[path] != after[path]}
    assert {path.parts[0] for path in moved} <= {"tensorboard", "speed.jsonl", "cost.json"}
    # The seconds are those of the wall; what was computed is not computed again.
    costs = [json.loads(found[Path("cost.json")]) for found in (before, after)]
    assert costs[0]["forwards"] == costs[1]["forwards"] > 0


def test_resume_with_other_settings_is_refused(ric, root, files, tmp_path, tiny):
    data = tiny.config(root, "embedding")
    data["loop"]["learning_rate"] = 0.02
    path = tiny.write_config(tmp_path / "other.yaml", data)
    before = files(root / "embedding")
    done = ric("train", path, "--out", root / "embedding", "--resume")
    assert done.code == 2
    assert "holds a run with other loop.learning_rate (0.01, now 0.02); restore that" in done.err
    assert files(root / "embedding") == before  # its config.json above all


def test_resume_on_another_base_model_is_refused(ric, copy, root, tiny, tmp_path):
    copied = tmp_path / "base"
    shutil.copytree(root / "model", copied)
    data = tiny.config(root, "embedding") | {"model": str(copied)}
    path = tiny.write_config(tmp_path / "config.yaml", data)
    assert ric("train", path, "--out", tmp_path / "run").code == 0
    weights = copied / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["conv_in.bias"] += 1
    save_file(tensors, weights)
    done = ric("train", path, "--out", tmp_path / "run", "--resume")
    assert done.code == 2 and "holds a run with other weights" in done.err


def test_same_config_same_adapter(ric, root, files, copy, tmp_path):
    # Another folder, the one from the config: everything but the paths is as it was.
    data = yaml.safe_load(copy().read_text()) | {"out": str(tmp_path / "run")}
    path = tmp_path / "again.yaml"
    path.write_text(yaml.safe_dump(data))
    done = ric("train", path)
    assert (done.code, done.out) == (0, f"{tmp_path / 'run' / 'adapter'}\n")
    assert files(tmp_path / "run" / "adapter") == files(root / "embedding" / "adapter")
    log = "log.jsonl"
    assert (tmp_path / "run" / log).read_bytes() == (root / "embedding" / log).read_bytes()


def test_where_keeps_some_records(ric, copy, tmp_path):
    loop = {"steps": 1, "batch_size": 2}
    path = copy(where={"style": ["flat"]}, prompts=[], loop=loop)
    assert ric("train", path, "--out", tmp_path / "run").code == 0
    about = json.loads((tmp_path / "run" / "adapter" / "ric_adapter.json").read_text())
    assert about["training"]["records"] == 5
    assert not (tmp_path / "run" / "sheets").exists()


def test_interrupted_and_resumed(ric, root, files, copy, tmp_path, monkeypatch):
    loss, calls = DiffusionBackend.loss, []

    def interrupted(self, batch):
        calls.append(batch)
        if len(calls) == 4:
            raise KeyboardInterrupt  # what Ctrl-C does
        return loss(self, batch)

    # A checkpoint after every step, without a word in the config: the runs are to be compared.
    monkeypatch.setattr("ric_diffusion.training.trainer.time.monotonic", lambda: 1e6 * len(calls))
    monkeypatch.setattr(DiffusionBackend, "loss", interrupted)
    path = copy()
    done = ric("train", path, "--out", tmp_path / "run")
    assert (done.code, done.out) == (130, "")
    assert done.err.splitlines()[-1] == (
        "ric train: interrupted; --resume goes on where it stopped"
    )
    assert "Traceback" not in done.err
    assert not (tmp_path / "run" / "adapter").exists()
    checkpoints = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert checkpoints == ["step-2", "step-3"]

    monkeypatch.setattr(DiffusionBackend, "loss", loss)
    assert ric("train", path, "--out", tmp_path / "run", "--resume").code == 0
    assert files(tmp_path / "run" / "adapter") == files(root / "embedding" / "adapter")
    log = "log.jsonl"
    assert (tmp_path / "run" / log).read_bytes() == (root / "embedding" / log).read_bytes()


def test_diverged_run(ric, copy, tmp_path, monkeypatch):
    loss = DiffusionBackend.loss
    monkeypatch.setattr(DiffusionBackend, "loss", lambda *args: loss(*args) * float("nan"))
    done = ric("train", copy(prompts=[]), "--out", tmp_path / "run")
    assert (done.code, done.out) == (1, "")
    assert done.err.splitlines()[-1] == (
        "ric train: loss is nan at step 2, as in the 2 before: what is trained is finite, so the "
        "model's own weights are not, or overflow on this data; use fp32, or fetch the model again"
    )
    assert not (tmp_path / "run" / "adapter").exists()
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_settings_that_change_no_result_are_not_part_of_a_run(
    ric, copy, root, tiny, tmp_path, files
):
    """Settings of another medium, how often it is logged and what is drawn beside it."""
    loop = {"steps": 2, "batch_size": 2}
    out = tmp_path / "run"
    assert ric("train", copy(loop=loop, prompts=[]), "--out", out).code == 0
    before = files(out / "adapter")
    loop |= {"log_every": 1, "checkpoint_minutes": 1.0, "validate_every": 1}
    path = copy(loop=loop, prompts=["pizza"], llm={"mode": "text"})
    done = ric("train", path, "--out", out, "--resume")
    assert done.code == 0, done.err
    assert files(out / "adapter") == before
    done = ric("train", copy(loop=loop | {"steps": 3}, prompts=[]), "--out", out, "--resume")
    assert done.code == 2 and len(done.err.splitlines()) == 1
    assert done.err.startswith(f"ric train: {out}: holds a run with other loop.steps (2, now 3)")
    assert done.err.endswith(f" with init: {out / 'adapter'}\n")  # the middle of it may be left out


def test_a_finished_run_takes_more_steps(ric, copy, tmp_path, files):
    """Of a schedule that no end decides: then it is what the longer run would have been."""
    loop = {"batch_size": 4, "learning_rate": 0.01, "schedule": "constant", "warmup": 1}
    loop |= {"precision": "fp32", "log_every": 2}
    short = copy(loop=loop | {"steps": 2}, prompts=[])
    assert ric("train", short, "--out", tmp_path / "run").code == 0
    before = files(tmp_path / "run" / "adapter")
    longer = copy(loop=loop | {"steps": 4}, prompts=[])
    assert ric("train", longer, "--out", tmp_path / "run", "--resume").code == 0
    assert ric("train", longer, "--out", tmp_path / "whole").code == 0
    assert files(tmp_path / "run" / "adapter") == files(tmp_path / "whole" / "adapter")
    logs = [(tmp_path / run / "log.jsonl").read_text() for run in ("run", "whole")]
    assert logs[0] == logs[1]
    assert files(tmp_path / "run" / "adapter") != before
    short = copy(loop=loop | {"steps": 2}, prompts=[])
    done = ric("train", short, "--out", tmp_path / "run", "--resume")
    assert done.code == 2 and len(done.err.splitlines()) == 1
    assert "has taken 4 steps, and loop.steps is 2; give 4 or more" in done.err


def test_training_starts_from_an_adapter(ric, copy, root, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(root))
    weights = "pytorch_lora_weights.safetensors"
    loop = {"steps": 1, "batch_size": 2, "learning_rate": 1e-9, "ema": 0.0}
    path = copy(loop=loop, prompts=[], init="~/embedding/adapter")
    assert ric("train", path, "--out", tmp_path / "run").code == 0
    found, start = (
        load_file(folder / "adapter" / weights) for folder in (tmp_path / "run", root / "embedding")
    )
    assert found.keys() == start.keys()
    assert all((found[name] - tensor).abs().max() < 1e-6 for name, tensor in start.items())
    # Another adapter to start from is another run.
    other = tmp_path / "other"
    shutil.copytree(root / "embedding" / "adapter", other)
    tensors = load_file(other / "reward_encoder.safetensors")
    with safe_open(other / "reward_encoder.safetensors", "pt") as file:
        metadata = file.metadata()
    tensors["norm.weight"] += 1
    save_file(tensors, other / "reward_encoder.safetensors", metadata)
    (other / "manifest.json").unlink()
    path = copy(loop=loop, prompts=[], init=str(other))
    done = ric("train", path, "--out", tmp_path / "run", "--resume")
    assert done.code == 2 and "holds a run with other init" in done.err


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mode": "text"}, "its mode is embedding, this run's text; give the same"),
        ({"lora": {"rank": 2, "alpha": 4}}, "its LoRA rank is 4, this run's 2; give the same"),
        ({"modulation": False}, "its modulation is True, this run's False; give the same"),
    ],
)
def test_an_adapter_of_another_shape_is_no_start(ric, copy, root, tiny, tmp_path, changes, said):
    settings = tiny.config(root, "embedding")["diffusion"] | changes
    path = copy(diffusion=settings, init=str(root / "embedding" / "adapter"))
    done = ric("train", path, "--out", tmp_path / "run")
    assert done.code == 2 and said in done.err and len(done.err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_the_backend_is_no_key_any_more(ric, copy, tmp_path):
    done = ric("train", copy(backend="diffusion"), "--out", tmp_path / "run")
    assert (done.code, done.out) == (2, "") and len(done.err.splitlines()) == 1
    assert "backend: the family of the model is found from the model itself; remove" in done.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_asked_to_end(root, copy, tmp_path, files, number, code):
    """A checkpoint, one line, and the run goes on."""
    path, out = (
        copy(loop={"steps": 400, "batch_size": 4, "checkpoint_minutes": 0}),
        tmp_path / "run",
    )
    # As in a terminal: the jobs that a shell has in the background ignore SIGINT.
    program = (
        f"import runpy, signal; signal.signal({int(number)}, signal.SIG_DFL); "
        "runpy.run_module('ric_diffusion', run_name='__main__')"
    )
    command = [sys.executable, "-c", program, "train", str(path), "--out", str(out)]
    run = subprocess.Popen(
        command, env={**os.environ, **ENVIRONMENT}, stderr=subprocess.PIPE, text=True
    )
    for _ in range(3000):
        if list(out.glob("checkpoints/step-*")):
            break
        time.sleep(0.02)
    run.send_signal(number)
    _, said = run.communicate(timeout=60)
    assert run.returncode == code, said
    assert re.fullmatch(
        r"ric train: stopped after step (\d+), of which there is a checkpoint; "
        "--resume goes on where it stopped",
        said.splitlines()[-1],
    )
    assert "Traceback" not in said and not (out / "adapter").exists()
    assert any((out / "checkpoints").iterdir())
