"""The file of an adapter's LoRA as diffusers writes it, for a U-Net."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import safe_open

from ric_diffusion.conditioning import lora
from ric_diffusion.errors import InputError

LORA_FILE = "pytorch_lora_weights.safetensors"
CONFIG_KEY = "lora_adapter_metadata"  # diffusers' own


def read(path: Path) -> lora.Lora:
    """Read a diffusers LoRA file for a U-Net. InputError if it is not one."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
            config = json.loads((file.metadata() or {})[CONFIG_KEY])
        found = lora.Lora(
            tensors={k.removeprefix("unet."): v for k, v in tensors.items()},
            config={k.removeprefix("unet."): v for k, v in config.items()},
        )
        problem = lora.problem_of(found)
    except Exception as error:  # safetensors raises types of its own
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{path}: not a LoRA file of an adapter ({reason})") from error
    if problem:
        raise InputError(f"{path}: not a LoRA file of an adapter ({problem})")
    return found
