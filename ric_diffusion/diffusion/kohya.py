"""Export a LoRA under kohya's names, which A1111, ComfyUI and diffusers read.

``down_blocks.0.attentions.0.proj.lora_A.weight`` becomes
``lora_unet_down_blocks_0_attentions_0_proj.lora_down.weight``, with an ``alpha`` beside each pair.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from ric_diffusion.conditioning.lora import Lora
from ric_diffusion.diffusion.adapter import Adapter
from ric_diffusion.diffusion.lora_file import LORA_FILE, read
from ric_diffusion.errors import InputError
from ric_diffusion.files import replacing

HALVES = {"lora_A": "lora_down", "lora_B": "lora_up"}


def kohya_state(lora: Lora) -> dict[str, torch.Tensor]:
    """A LoRA's tensors under kohya's names, alphas included."""
    out: dict[str, torch.Tensor] = {}
    for key, tensor in lora.tensors.items():
        module, half, _ = key.rsplit(".", 2)
        name = "lora_unet_" + module.replace(".", "_")
        out[f"{name}.{HALVES[half]}.weight"] = tensor
        out[f"{name}.alpha"] = torch.tensor(float(lora.config["lora_alpha"]))
    return out


def export(folder: Path, out: Path) -> None:
    """Write an adapter folder's LoRA to one file, in one move.

    The adapter's description rides along in the metadata. A reward encoder cannot: in embedding
    mode the file carries the LoRA alone, and other programs have no sliders.
    """
    if out.suffix != ".safetensors":
        raise InputError(f"--out {out}: the name must end in .safetensors")
    adapter, weights = Adapter.load(folder), read(folder / LORA_FILE)
    metadata = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(weights.config["r"]),
        "ss_network_alpha": str(weights.config["lora_alpha"]),
        "ss_base_model_version": adapter.base_model,
        "ric_adapter": json.dumps(adapter.about()),
    }
    with replacing(out) as temporary:
        save_file(kohya_state(weights), temporary, metadata=metadata)
