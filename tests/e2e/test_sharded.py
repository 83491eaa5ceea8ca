"""Two processes with a denoiser in shards leave what one leaves that takes twice the batches."""

import json
import os
import shutil
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from support import sharded
from support.processes import LAUNCH, starter

# What is in a config of accelerate reaches the processes that it launches in the environment.
FSDP = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
# A bias before a normalisation has a gradient of rounding errors alone, which AdamW would make
# steps of.
OPTIMIZER = {"arguments": {"eps": 1e-4}}
SAMPLING = {"guidance_scale": 3.0, "num_inference_steps": 2}
LORA = {"lora": {"rank": 4, "alpha": 4, "targets": ["attention", "convolution"]}}
DIFFUSION = {
    "full": {"train": "full"},
    "lora": {**LORA, "gradient_checkpointing": True},
}
ROUNDS = {"rounds": 1, "samples": 10, "batch_size": 4}
ROUNDS["guard"] = {"samples": 8, "diversity": 0.0, "prompt_r_precision": 0.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sharded")


@pytest.fixture(scope="module")
def given(folder, root, tiny):
    """given(name, kind, accumulate): a run of four steps of ``train``, or a round of ``online``
    that goes on from what such a run left."""

    def make(name, kind, accumulate, *, online=False, prompts=(), **loop):
        config = tiny.config(root, "embedding", prompts=list(prompts))
        config["diffusion"] = {"mode": "embedding", "sampling": SAMPLING, **DIFFUSION[kind]}
        loop = {"steps": 4, "precision": "fp32", "validate_every": 2, "log_every": 1} | loop
        loop |= {"batch_size": 2, "learning_rate": 1e-3}
        config["loop"] = {**loop, "accumulate": accumulate, "optimizer": OPTIMIZER}
        if online:
            config["online"] = {**ROUNDS, "loop": config.pop("loop")}
            config["adapter"] = str(folder / "one-full" / "model" / "ric_adapter")
            del config["prompts"]
        verb = "online" if online else "train"
        return {"verb": verb, "config": config, "out": str(folder / name)}

    return make


@pytest.fixture(scope="module")
def held(folder, given):
    """All runs; what each process held in those of two, by the run's name."""
    one = given("one-full", "full", 2, prompts=["red apple"])
    cut = given("one-full", "full", 2, prompts=["red apple"], checkpoint_minutes=0)
    sharded.run(cut | {"stop_at": 4})
    digest = copied(folder / "one-full", folder / "two-from-one")
    sharded.run(one | {"resume": True})
    sharded.run(given("one-lora", "lora", 2))
    sharded.run(given("one-round", "full", 2, online=True, steps=2))
    stopped = given("two-resumed", "full", 1, checkpoint_minutes=0)  # and without sheets
    half = {"environment": {"ACCELERATE_MIXED_PRECISION": "bf16"}}
    runs = [
        given("two-full", "full", 1, prompts=["red apple"]),
        stopped | {"stop_at": 2},
        stopped | {"resume": True},
        given("two-from-one", "full", 1) | {"resume": True, "digest": digest},
        given("two-lora", "lora", 1),
        given("two-round", "full", 1, online=True, steps=2),
        given(
            "two-half",
            "full",
            1,
            prompts=["red apple"],
            steps=1,
            validate_every=1,
            precision="bf16",
        )
        | half,
    ]
    with starter() as start, patch.dict(os.environ, FSDP):
        process = start(*LAUNCH, sharded.__file__, folder, json.dumps(runs))
        _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    ranks = [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in (0, 1)]
    names = [Path(run["out"]).name for run in runs]
    return {name: found for name, *found in zip(names, *ranks, strict=True)}


def copied(run, other):
    """Copies the checkpoints of a run to the folder of another; that run's digest."""
    shutil.copytree(run / "checkpoints", other / "checkpoints")
    newest = max((run / "checkpoints").iterdir(), key=lambda path: int(path.name[5:]))
    return json.loads((newest / "state.json").read_text())["digest"]


def apart(one, two):
    """The largest difference between tensors of one name, of all the weights of two runs."""
    files = {path.relative_to(one) for path in one.rglob("*.safetensors")}
    files = {path for path in files if path.parts[0] in ("adapter", "model")}
    found = []
    for path in files:
        first, second = load_file(one / path), load_file(two / path)
        assert first.keys() == second.keys()
        found += [(first[name] - second[name]).abs().max().item() for name in first]
    assert found
    return max(found)


@pytest.mark.parametrize("kind", ["full", "lora", "round"])
def test_two_are_one(held, folder, kind):
    assert apart(folder / f"one-{kind}", folder / f"two-{kind}") <= 1e-5


def test_each_has_a_half(held, folder, root):
    unet = load_file(root / "model" / "unet" / "diffusion_pytorch_model.safetensors")
    total = sum(tensor.numel() for tensor in unet.values())
    for rank in (0, 1):
        of = held["two-full"][rank]
        assert of["weights"][1] == of["average"][1] == total and of["moments"][1] == 2 * total
        for own, everything in of.values():
            assert own / everything == pytest.approx(0.5, abs=0.01)
        # A LoRA is small: what is frozen is in shards.
        assert held["two-lora"][rank]["weights"] == of["weights"]
        assert held["two-lora"][rank]["average"] == held["two-lora"][rank]["moments"] == [0, 0]


def test_killed_and_resumed(held, folder):
    whole, resumed = folder / "two-full", folder / "two-resumed"
    assert apart(whole, resumed) == 0
    assert (whole / "log.jsonl").read_text() == (resumed / "log.jsonl").read_text()
    first, second = (
        load_file(run / "checkpoints" / "step-4" / "state.safetensors") for run in (whole, resumed)
    )
    assert all(first[name].equal(second[name]) for name in first)


def test_one_goes_on_where_two_were_and_two_where_one_was(held, folder, given):
    digest = copied(folder / "two-full", folder / "one-from-two")
    sharded.run(given("one-from-two", "full", 2) | {"resume": True, "digest": digest})
    assert apart(folder / "two-full", folder / "one-from-two") == 0
    assert apart(folder / "one-full", folder / "two-from-one") <= 1e-5


def test_the_model_and_its_sheets(held, folder):
    """As a run of one process writes them."""
    for name in ("model_index.json", "unet/config.json", "ric_adapter/README.md"):
        one, two = ((folder / f"{n}-full/model" / name).read_text() for n in ("one", "two"))
        assert two == one.replace("one-full", "two-full")
    one, two, half = (sheets(folder / name) for name in ("one-full", "two-full", "two-half"))
    assert one.keys() == two.keys() and len(one) == 4
    assert all(np.abs(two[name] - sheet).max() <= 1 for name, sheet in one.items())
    assert half.keys() == {name.replace("-2", "-1") for name in one if "-2" in name}


def sheets(run):
    return {path.name: np.asarray(Image.open(path), int) for path in (run / "sheets").iterdir()}


def test_half_is_gathered_where_asked_for(held, folder):
    """To what is trained in full."""
    half, exact = (
        json.loads((folder / run / "log.jsonl").read_text().splitlines()[0])["loss"]
        for run in ("two-half", "two-full")
    )
    assert half == pytest.approx(exact, rel=0.02) and half != exact
    assert 0 < apart(folder / "two-half", folder / "two-full") < 0.01
