"""Rewarded Soups (Ramé et al. 2023, arXiv 2306.04488): one LoRA per reward, mixed by weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from baselines.base import BaseModel, Preference, read_lora
from ric_diffusion.adapters.lora import Lora
from ric_diffusion.evaluation.method import weights_of
from ric_diffusion.io.errors import InputError
from ric_diffusion.rewards import RewardSpace


def mixture(loras: Sequence[Lora], weights: Sequence[float]) -> Lora:
    """The LoRA whose delta is the weighted sum of theirs, of rank Σ r_i.

    Σ w_i·s_i·B_i·A_i = B·A with A the w_i·s_i·A_i below each other and B the B_i side by side,
    s_i = alpha_i / r_i: peft's combination_type "cat". Its "linear" adds the A and the B apart from
    each other, which brings in the products of one LoRA's B with another's A; the paper mixes
    weights, so that is not its method. A LoRA of weight 0 is left out.
    """
    used = [(lora, weight) for lora, weight in zip(loras, weights, strict=True) if weight]
    modules = common_modules(loras)
    tensors = {}
    for module in modules:
        a, b = (f"{module}.lora_{half}.weight" for half in "AB")
        parts = [weight * lora.scale * lora.tensors[a].float() for lora, weight in used]
        tensors[a] = torch.cat(parts, dim=0)
        tensors[b] = torch.cat([lora.tensors[b].float() for lora, _ in used], dim=1)
    rank = sum(int(lora.config["r"]) for lora, _ in used)
    return Lora(tensors=tensors, config={**loras[0].config, "r": rank, "lora_alpha": rank})


def common_modules(loras: Sequence[Lora]) -> list[str]:
    """The layers that all of them change; InputError if some change others."""
    modules = loras[0].modules
    if any(set(lora.modules) != set(modules) for lora in loras):
        raise InputError("these LoRA change different layers; train them with the same targets")
    return modules


class OneEach(BaseModel):
    """The base model and one LoRA for each reward of the space, however it was trained."""

    def __init__(self, sampler: Any, space: RewardSpace, files: Mapping[str, Path]) -> None:
        super().__init__(sampler)
        if set(files) != set(space.names):
            raise InputError(
                f"{self.name}: needs one LoRA for each of {', '.join(space.names)}; given are "
                f"those of {', '.join(files) or 'none'}"
            )
        self.space = space
        self.loras = [read_lora(sampler, files[name]) for name in space.names]


class Soup(OneEach):
    """The base model under the mixture of the rewards' LoRA that the preference asks for."""

    name = "rewarded soup"

    def draw(
        self, preference: Preference, prompts: Sequence[str], seeds: Sequence[int]
    ) -> list[Any]:
        soup = mixture(self.loras, weights_of(preference, self.space).tolist())
        return self.draw_under(soup, prompts, seeds)
