"""Export a LoRA under kohya's names, which A1111, ComfyUI and diffusers read.

``blocks.0.proj.lora_A.weight`` of a pipeline's part X becomes
``lora_X_blocks_0_proj.lora_down.weight``, with an ``alpha`` beside each pair.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from ric_diffusion.adapters.adapter import Adapter
from ric_diffusion.adapters.format import DiffusersFormat
from ric_diffusion.adapters.lora import Lora
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import replacing

HALVES = {"lora_A": "lora_down", "lora_B": "lora_up"}
FORMATS = ("kohya",)


def kohya_state(lora: Lora, component: str) -> dict[str, torch.Tensor]:
    """The tensors of a LoRA for one part of a pipeline under kohya's names, alphas included."""
    out: dict[str, torch.Tensor] = {}
    for key, tensor in lora.tensors.items():
        module, half, _ = key.rsplit(".", 2)
        name = f"lora_{component}_{module.replace('.', '_')}"
        out[f"{name}.{HALVES[half]}.weight"] = tensor
        out[f"{name}.alpha"] = torch.tensor(float(lora.config["lora_alpha"]))
    return out


def export(adapter: Adapter, weights: Lora, form: DiffusersFormat, out: Path) -> None:
    """Write an adapter's LoRA to one file, in one move.

    The adapter's description rides along in the metadata. A reward encoder cannot: in embedding
    mode the file carries the LoRA alone, and other programs have no sliders. InputError for a file
    of another ending.
    """
    if out.suffix != ".safetensors":
        raise InputError(f"--out {out}: the name must end in .safetensors")
    metadata = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(weights.config["r"]),
        "ss_network_alpha": str(weights.config["lora_alpha"]),
        "ss_base_model_version": adapter.base_model,
        "ric_adapter": json.dumps(adapter.about()),
    }
    with replacing(out) as temporary:
        save_file(kohya_state(weights, form.component), temporary, metadata=metadata)
