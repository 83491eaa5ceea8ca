"""Adapters that are broken or belong to another model: refused in one line, and nothing changes."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ric_diffusion import RiCStableDiffusionPipeline
from ric_diffusion.conditioning.encoder import RewardEncoder
from ric_diffusion.io.errors import InputError
from support.strangers import without_manifest

LORA, ABOUT = "pytorch_lora_weights.safetensors", "ric_adapter.json"
ENCODER = "reward_encoder.safetensors"


@pytest.mark.parametrize("name", ["no/such/folder", "someone/sliders", ""])
def test_an_adapter_that_is_nowhere_is_refused(pipe, monkeypatch, name):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError) as error:
        pipe.load_adapter(name)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"{name}: ") or not name


def set_about(**changes):
    def change(folder):
        about = json.loads((folder / ABOUT).read_text())
        for key, value in changes.items():
            if value is ...:
                del about[key]
            else:
                about[key] = value
        (folder / ABOUT).write_text(json.dumps(about))

    return change


def set_lora(edit=lambda tensors: None, **config):
    def change(folder):
        with safe_open(folder / LORA, framework="pt") as file:
            metadata = file.metadata()
        tensors = load_file(folder / LORA)
        edit(tensors)
        stored = json.loads(metadata["lora_adapter_metadata"])
        stored |= {f"unet.{key}": value for key, value in config.items()}
        metadata["lora_adapter_metadata"] = json.dumps(stored)
        save_file(tensors, folder / LORA, metadata=metadata)

    return change


def first(tensors, half):
    return next(key for key in sorted(tensors) if key.endswith(f"lora_{half}.weight"))


def resize(half, *shape):
    return lambda tensors: tensors.update({first(tensors, half): torch.ones(shape)})


def rename(old, new):
    def edit(tensors):
        for key in list(tensors):
            if old in key:
                tensors[key.replace(old, new)] = tensors.pop(key)

    return set_lora(edit)


def plain_lora(folder):
    save_file(load_file(folder / LORA), folder / LORA)


def another_encoder(names, width):
    return lambda folder: RewardEncoder(names, width, hidden=16).save(folder / ENCODER)


def encoder_of_nan(folder):
    encoder = RewardEncoder.load(folder / ENCODER)
    torch.nn.init.constant_(encoder.identity, float("nan"))
    encoder.save(folder / ENCODER)


TWO = ("colorfulness", "compressibility")
MODELSPEC = {"architecture": "x", "resolution": 512, "prediction_type": None}
BROKEN = {
    "no description": lambda f: (f / ABOUT).unlink(),
    "empty description": lambda f: (f / ABOUT).write_text(""),
    "description cut": lambda f: (f / ABOUT).write_text((f / ABOUT).read_text()[:300]),
    "description not text": lambda f: (f / ABOUT).write_bytes(b"\xff\xfe\x00"),
    "description a list": lambda f: (f / ABOUT).write_text("[1]"),
    "newer version": set_about(format_version=2),
    "no version": set_about(format_version=...),
    "no rewards": set_about(reward_space=...),
    "rewards null": set_about(reward_space=None),
    "rewards of a newer version": set_about(reward_space={"format_version": 9}),
    "no mapping": set_about(mapping=...),
    "unknown mapping": set_about(mapping="sideways"),
    "mapping a list": set_about(mapping=["front"]),
    "base model a number": set_about(base_model=5),
    "sampling null": set_about(sampling=None),
    "sampling a text": set_about(sampling="fast"),
    "training a list": set_about(training=[1]),
    "modelspec a text": set_about(modelspec="stable-diffusion-v1"),
    "modelspec of no resolution": set_about(modelspec={**MODELSPEC, "resolution": "512x512"}),
    "modelspec of no prediction": set_about(modelspec={**MODELSPEC, "prediction_type": "noise"}),
    "conditioning null": set_about(conditioning=None),
    "conditioning unknown": set_about(conditioning={"mode": "telepathy"}),
    "grammar missing": set_about(conditioning={"mode": "text"}),
    "grammar null": set_about(conditioning={"mode": "text", "grammar": None}),
    "grammar of other rewards": set_about(
        conditioning={
            "mode": "text",
            "grammar": {"names": ["a"], "labels": ["a"], "separator": " "},
        }
    ),
    "labels not text": set_about(
        conditioning={
            "mode": "text",
            "grammar": {"names": list(TWO), "labels": [1, 2], "separator": " "},
        }
    ),
    "no encoder": lambda f: (f / ENCODER).unlink(),
    "encoder broken": lambda f: (f / ENCODER).write_bytes(b"x" * 200),
    "encoder of other rewards": another_encoder(("a", "b"), 32),
    "encoder of NaN": encoder_of_nan,
    "encoder of another width": another_encoder(TWO, 48),
    "no lora": lambda f: (f / LORA).unlink(),
    "lora empty": lambda f: (f / LORA).write_bytes(b""),
    "lora cut": lambda f: (f / LORA).write_bytes((f / LORA).read_bytes()[:-9]),
    "lora without settings": plain_lora,
    "settings without rank": set_lora(r=None),
    "rank zero": set_lora(r=0),
    "another rank in the settings": set_lora(r=8),
    "alpha a text": set_lora(lora_alpha="x"),
    "ranks by layer": set_lora(rank_pattern={"to_q": 2}),
    "alphas by layer": set_lora(alpha_pattern={"to_q": 2}),
    "scaled by the root of the rank": set_lora(use_rslora=True),
    "weights decomposed": set_lora(use_dora=True),
    "half a pair missing": set_lora(lambda tensors: tensors.pop(first(tensors, "A"))),
    "other half missing": set_lora(lambda tensors: tensors.pop(first(tensors, "B"))),
    "a tensor of NaN": set_lora(lambda tensors: tensors[first(tensors, "B")].fill_(float("nan"))),
    "no tensors": set_lora(lambda tensors: tensors.clear()),
    "scalar tensors": set_lora(resize("A")),
    "another width": set_lora(resize("A", 4, 99, 3, 3)),
    "halves of different rank": set_lora(resize("B", 32, 5, 1, 1)),
    "layers of another model": rename("mid_block", "far_block"),
    "layers that are none": rename(".conv1", ".time_emb_proj.weight"),
    "text encoder lora": rename("unet.", "text_encoder."),
}


def add_magnitudes(tensors):
    name = first(tensors, "A").replace("lora_A", "lora_magnitude_vector")
    tensors[name] = torch.ones(32)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (set_lora(use_dora=True), "DoRA"),
        (set_lora(add_magnitudes), "DoRA"),
        (set_lora(use_rslora=True), "rsLoRA"),
        (set_lora(rank_pattern={"to_q": 2}), "ranks by layer"),
        (set_lora(alpha_pattern={"to_q": 2}), "alphas by layer"),
    ],
)
def test_other_kinds_of_lora_are_refused_by_name(change, what, adapters, pipe, tmp_path):
    without_manifest(adapters["text"], tmp_path / "other")
    change(tmp_path / "other")
    with pytest.raises(InputError, match=f"it has {what}, and only plain LoRA with one rank"):
        pipe.load_adapter(tmp_path / "other")


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_adapter_is_refused_and_nothing_changes(name, adapters, pipe, tmp_path, watch):
    pipe.load_adapter(adapters["text"])
    adapter, unchanged = pipe.adapter, watch(pipe.unet)
    without_manifest(adapters["embedding"], tmp_path / "broken")
    BROKEN[name](tmp_path / "broken")
    with pytest.raises(InputError) as error:
        pipe.load_adapter(tmp_path / "broken")
    assert "\n" not in str(error.value)
    assert pipe.adapter is adapter and unchanged()
    pipe.unload_adapter()
    assert pipe.adapter is None and not unchanged()


@pytest.mark.parametrize(
    ("mode", "changes"), [("embedding", {"width": 48}), ("text", {"block_out_channels": (32, 32)})]
)
def test_an_adapter_for_another_architecture_is_refused(
    adapters, make_parts, draw, mode, changes, watch
):
    torch.manual_seed(0)
    pipe = RiCStableDiffusionPipeline(**make_parts(**changes))
    pipe.set_progress_bar_config(disable=True)
    unchanged, image = watch(pipe.unet), draw(pipe)
    with pytest.raises(InputError, match="another architecture") as error:
        pipe.load_adapter(adapters[mode])
    assert "\n" not in str(error.value)
    assert pipe.adapter is None and unchanged()
    assert torch.equal(draw(pipe), image)
