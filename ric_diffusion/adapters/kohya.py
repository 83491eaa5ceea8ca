"""A LoRA under the names of kohya's sd-scripts, which A1111, Forge, ComfyUI and diffusers read.

``blocks.0.proj.lora_A.weight`` becomes ``lora_unet_blocks_0_proj.lora_down.weight``, with an
``alpha`` beside each pair. sd-scripts has some networks as their authors published them, where
several layers of ours are one: their LoRAs become one whose rank is the sum, which does the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from ric_diffusion.adapters.lora import Lora
from ric_diffusion.adapters.modelspec import ModelSpec

PREFIX = "lora_unet_"  # whatever the network is
CLIP = "text_model."  # begins the names of its text encoder's layers
BLOCK = re.compile(r"(?<=\.)\d+(?=\.)")


@dataclass(frozen=True, kw_only=True)
class Kohya:
    """A family of models as sd-scripts knows it.

    Attributes:
        base: a base model -> what sd-scripts writes of it, ``ss_base_model_version`` and so on.
        module: its module that trains such LoRAs.
        encoders: its prefixes of the layers of text encoders, by the pipeline's part.
        layers: its names of layers, "{}" for a block's number -> ours that each of them is made of,
            their outputs one after the other. Empty where its names are ours.
        widths: how many times as wide as the others one of those is, where it is not as wide.
        reversed_halves: ours that give scale and shift, in some blocks nothing else, which
            sd-scripts has there the other way round.
        implementation: where such names come from, as modelspec calls it.
    """

    base: Callable[[ModelSpec], Mapping[str, str]]
    module: str = "networks.lora"
    encoders: Mapping[str, str] = field(default_factory=dict)
    layers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    widths: Mapping[str, int] = field(default_factory=dict)
    reversed_halves: tuple[str, ...] = ()
    implementation: str = "diffusers"

    def metadata(self, lora: Lora, base: ModelSpec | None) -> dict[str, str]:
        """What sd-scripts writes beside the tensors; nothing of a base model that is not known."""
        return {
            "ss_network_module": self.module,
            "ss_network_dim": str(lora.settings["r"]),
            "ss_network_alpha": str(lora.settings["lora_alpha"]),
            **(self.base(base) if base is not None else {}),
        }

    def state(self, lora: Lora) -> dict[str, torch.Tensor]:
        """The tensors of a LoRA under kohya's names, alphas included."""
        tensors: dict[str, torch.Tensor] = {}
        for name, modules in self._names(lora).items():
            down, up, count = self._joined(lora, modules)
            tensors |= _layer(f"{PREFIX}{name}", down, up, lora.config["lora_alpha"] * count)
        for part, one in lora.beside.items():
            for module in one.modules:
                down, up = (one.tensors[f"{module}.lora_{half}.weight"] for half in "AB")
                key = f"{self.encoders[part]}{clip_name(module)}"
                tensors |= _layer(key, down, up, one.config["lora_alpha"])
        return tensors

    def _names(self, lora: Lora) -> dict[str, tuple[str, ...]]:
        """Its names -> the modules of ours, whether the LoRA changes all of them or not."""
        if not self.layers:
            return {module: (module,) for module in lora.modules}
        theirs = {ours: name for name, parts in self.layers.items() for ours in parts}
        found = {}
        for module in lora.modules:
            [number, *_] = BLOCK.findall(module)
            name = theirs[_numberless(module)]
            found[name.format(number)] = tuple(part.format(number) for part in self.layers[name])
        return found

    def _joined(
        self, lora: Lora, modules: tuple[str, ...]
    ) -> tuple[torch.Tensor, torch.Tensor, int]:
        """The LoRA of a layer that is made of these: down (R, in), up (out, R), and how many of
        them it changes. Each of those has columns of ``up`` for itself."""
        changed = [m for m in modules if f"{m}.lora_A.weight" in lora.tensors]
        downs = [lora.tensors[f"{m}.lora_A.weight"] for m in changed]
        ups = {m: lora.tensors[f"{m}.lora_B.weight"] for m in changed}
        if len(modules) == 1:
            return downs[0], self._ordered(modules[0], downs[0], ups[modules[0]]), 1
        unit = len(ups[changed[0]]) // self._width(changed[0])
        nothing = ups[changed[0]].new_zeros
        columns = [ups.get(m, nothing(unit * self._width(m), 0)) for m in modules]
        up: torch.Tensor = torch.block_diag(*columns)  # type: ignore[no-untyped-call]
        return torch.cat(downs), up, len(changed)

    def _width(self, module: str) -> int:
        return self.widths.get(_numberless(module), 1)

    def _ordered(self, module: str, down: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        halves = _numberless(module) in self.reversed_halves and len(up) == 2 * down.shape[1]
        return up.roll(len(up) // 2, 0) if halves else up


def clip_name(module: str) -> str:
    """A layer of a CLIP text encoder as everybody calls it but transformers from 5.6, which lists
    those of some of its classes without the part that they are all in."""
    return f"{CLIP}{module.removeprefix(CLIP)}"


def _layer(key: str, down: torch.Tensor, up: torch.Tensor, alpha: float) -> dict[str, torch.Tensor]:
    """The three tensors of a layer."""
    key = key.replace(".", "_")
    return {
        f"{key}.lora_down.weight": down.contiguous(),
        f"{key}.lora_up.weight": up.contiguous(),
        f"{key}.alpha": torch.tensor(float(alpha)),
    }


def _numberless(module: str) -> str:
    """A module's name with "{}" for its block's number."""
    return BLOCK.sub("{}", module, count=1)
