"""The LoRA of an adapter: read, checked, and merged into a U-Net so that it costs nothing there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from ric_diffusion.errors import InputError

LORA_FILE = "pytorch_lora_weights.safetensors"
LORA_NAME = "ric"
CONFIG_KEY = "lora_adapter_metadata"  # diffusers' own


@dataclass(frozen=True, kw_only=True)
class Lora:
    """``tensors``: ``<module>.lora_A.weight`` and ``….lora_B.weight``; ``config``: peft's."""

    tensors: Mapping[str, torch.Tensor]
    config: Mapping[str, Any]

    @property
    def modules(self) -> list[str]:
        return [k.removesuffix(".lora_A.weight") for k in self.tensors if k.endswith("A.weight")]

    @property
    def scale(self) -> float:
        """alpha / r (Hu et al. 2021, section 4.1)."""
        return float(self.config["lora_alpha"]) / float(self.config["r"])

    def delta(self, module: str) -> torch.Tensor:
        """What it adds to a module's weight, float32: B·A, (out, in) or (out, in, k, k)."""
        a = self.tensors[f"{module}.lora_A.weight"].float()
        b = self.tensors[f"{module}.lora_B.weight"].float()
        return self.scale * torch.einsum("or,r...->o...", b.flatten(1), a)


def read(path: Path) -> Lora:
    """Read a diffusers LoRA file for a U-Net. InputError if it is not one."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
        config = json.loads(metadata[CONFIG_KEY])
    except Exception as error:  # safetensors raises types of its own
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: not a LoRA file of an adapter ({reason})") from error
    lora = Lora(
        tensors={k.removeprefix("unet."): v for k, v in tensors.items()},
        config={k.removeprefix("unet."): v for k, v in config.items()},
    )
    expected = {f"{m}.lora_{half}.weight" for m in lora.modules for half in "AB"}
    if not lora.modules or expected != set(lora.tensors) or lora.config.get("rank_pattern"):
        raise InputError(f"{path}: not a LoRA file of an adapter (unexpected tensors)")
    return lora


def trained(unet: Any) -> Lora:
    """The LoRA that peft is training inside a U-Net."""
    from peft.utils import get_peft_model_state_dict

    config = unet.peft_config[LORA_NAME].to_dict()
    plain = {k: sorted(v) if isinstance(v, set) else v for k, v in config.items()}
    tensors = get_peft_model_state_dict(unet, adapter_name=LORA_NAME)
    return Lora(tensors={k: v.detach().cpu() for k, v in tensors.items()}, config=plain)


def _layer(unet: torch.nn.Module, name: str) -> torch.nn.Module:
    """The layer itself, also where another LoRA is wrapped around it."""
    module = unet.get_submodule(name)
    base = getattr(module, "base_layer", module)
    assert isinstance(base, torch.nn.Module)
    return base


def check_fit(unet: torch.nn.Module, lora: Lora) -> None:
    """InputError if the U-Net has no layer of the right shape for one of the tensors."""
    for name in lora.modules:
        try:
            weight = _layer(unet, name).weight
        except AttributeError:
            raise InputError(f"the adapter changes {name}, which this U-Net lacks") from None
        a = lora.tensors[f"{name}.lora_A.weight"]
        b = lora.tensors[f"{name}.lora_B.weight"]
        assert isinstance(weight, torch.Tensor)
        if (b.shape[0], *a.shape[1:]) != tuple(weight.shape):
            raise InputError(
                f"{name} is {tuple(weight.shape)} here and {(b.shape[0], *a.shape[1:])} in the "
                "adapter: it was trained on another architecture"
            )


@torch.no_grad()
def merge(unet: torch.nn.Module, lora: Lora) -> dict[str, torch.Tensor]:
    """Add every delta to its weight; returns the weights as they were, on the CPU.

    Adding in place rather than wrapping layers keeps a conditioned call as fast as a stock one.
    """
    originals = {}
    for name in lora.modules:
        weight = _layer(unet, name).weight
        assert isinstance(weight, torch.Tensor)
        originals[name] = weight.detach().to("cpu", copy=True)
        weight.copy_(weight.float() + lora.delta(name).to(weight.device))
    return originals


@torch.no_grad()
def restore(unet: torch.nn.Module, originals: Mapping[str, torch.Tensor]) -> None:
    """Undo ``merge``, bit for bit."""
    for name, original in originals.items():
        weight = _layer(unet, name).weight
        assert isinstance(weight, torch.Tensor)
        weight.copy_(original)
