"""A small adapter that nobody trained, to be spoilt."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ric_diffusion.adapters.adapter import Adapter
from ric_diffusion.adapters.lora import Lora
from ric_diffusion.conditioning.conditioner import EmbeddingConditioner, TextConditioner
from ric_diffusion.conditioning.encoder import RewardEncoder
from ric_diffusion.conditioning.grammar import Grammar
from ric_diffusion.models.family import Family, family_named
from ric_diffusion.rewards import Curve, RewardSpace

ABOUT, ENCODER = "ric_adapter.json", "reward_encoder.safetensors"
DIFFUSERS, PEFT, PEFT_CONFIG = (
    "pytorch_lora_weights.safetensors",
    "adapter_model.safetensors",
    "adapter_config.json",
)
NAMES = ("colorfulness", "compressibility")
RANK = 4


def family(name: str = "stable-diffusion") -> Family:
    return family_named(name)


def write(folder: Path, mode: str = "embedding", of: str = "stable-diffusion") -> Path:
    """A whole adapter folder, as training writes it."""
    scores = dict(zip(NAMES, np.random.default_rng(0).normal(size=(2, 200)), strict=True))
    scorers = {name: {"name": name, "options": {}} for name in NAMES}
    torch.manual_seed(0)
    a, b = torch.randn(RANK, 8), torch.randn(8, RANK)
    tensors = {"mid.to_q.lora_A.weight": a, "mid.to_q.lora_B.weight": b}
    adapter = Adapter(
        family=of,
        base_model="somebody/model",
        space=RewardSpace.fit(scores, scorers=scorers),
        conditioner=EmbeddingConditioner(RewardEncoder(NAMES, 16, hidden=8))
        if mode == "embedding"
        else TextConditioner(Grammar.words(NAMES)),
        sampling=family(of).default_sampling(),
        training={"digest": "abc", "records": 200, "steps": 3},
        calibration={NAMES[0]: Curve(requested=(-1, 1), obtained=(-0.5, 0.5))},
    )
    weights = Lora(tensors=tensors, config={"r": RANK, "lora_alpha": 8})
    family(of).save_adapter(adapter, weights, folder)
    return folder


def without_manifest(folder: Path, copy: Path) -> Path:
    """A copy as somebody makes by hand, whom nothing stops from writing what is in it."""
    shutil.copytree(folder, copy)
    (copy / "manifest.json").unlink(missing_ok=True)
    return copy


def change_json(path: Path, *where: str | int, to: Any) -> None:
    """One value of a JSON file; ``...`` takes it out."""
    stored = json.loads(path.read_text())
    place = stored
    for key in where[:-1]:
        place = place[key]
    if to is ...:
        del place[where[-1]]
    else:
        place[where[-1]] = to
    path.write_text(json.dumps(stored))


def change_metadata(path: Path, key: str, to: Any) -> None:
    """What a safetensors file says beside its tensors, text or the JSON of ``to``."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    metadata[key] = to if isinstance(to, str) else json.dumps(json.loads(metadata[key]) | to)
    save_file(load_file(path), path, metadata)


def change_tensors(path: Path, **to: torch.Tensor) -> None:
    """Tensors of a safetensors file, by what their names begin with."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    for start, tensor in to.items():
        [name] = [name for name in tensors if name.startswith(start) or start in name]
        tensors[name] = tensor
    save_file(tensors, path, metadata)
