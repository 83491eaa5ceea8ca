"""Export a LoRA under kohya's names, which A1111, ComfyUI and diffusers read.

``down_blocks.0.attentions.0.proj.lora_A.weight`` becomes
``lora_unet_down_blocks_0_attentions_0_proj.lora_down.weight``, with an ``alpha`` beside each pair.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ric_diffusion.diffusion.adapter import ABOUT_FILE, LORA_FILE
from ric_diffusion.errors import InputError
from ric_diffusion.files import replacing

HALVES = {"lora_A": "lora_down", "lora_B": "lora_up"}


def kohya_state(
    tensors: dict[str, torch.Tensor], alpha: float, patterns: dict[str, float]
) -> dict[str, torch.Tensor]:
    """diffusers' LoRA tensors (``unet.….lora_A.weight``) -> kohya's, alphas included.

    ``patterns`` are peft's exceptions to ``alpha`` by module name.
    """
    out: dict[str, torch.Tensor] = {}
    for key, tensor in tensors.items():
        module, half, _ = key.rsplit(".", 2)
        name = "lora_unet_" + module.removeprefix("unet.").replace(".", "_")
        out[f"{name}.{HALVES[half]}.weight"] = tensor
        out[f"{name}.alpha"] = torch.tensor(patterns.get(module.removeprefix("unet."), alpha))
    return out


def export(adapter: Path, out: Path) -> None:
    """Write an adapter folder's LoRA to one file, in one move.

    The adapter's description rides along in the metadata. A reward encoder cannot: in embedding
    mode the file carries the LoRA alone, and other programs have no sliders.
    """
    source = adapter / LORA_FILE
    if not source.is_file():
        raise InputError(f"{adapter}: not an adapter folder, it has no {LORA_FILE}")
    if out.suffix != ".safetensors":
        raise InputError(f"--out {out}: the name must end in .safetensors")
    with safe_open(source, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata() or {}
    config = json.loads(metadata["lora_adapter_metadata"])
    about = json.loads((adapter / ABOUT_FILE).read_text(encoding="utf-8"))
    kohya = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(config["unet.r"]),
        "ss_network_alpha": str(config["unet.lora_alpha"]),
        "ss_base_model_version": about["base_model"],
        "ric_adapter": json.dumps(about),
    }
    patterns = config.get("unet.alpha_pattern") or {}
    state = kohya_state(tensors, float(config["unet.lora_alpha"]), patterns)
    with replacing(out) as temporary:
        save_file(state, temporary, metadata=kohya)
