"""Diffusion Blend (Cheng et al. 2025, arXiv 2505.18547): one policy per reward, mixed step by step.

Of its algorithms this is DB-MPA: the drift of the backward process for a preference is taken to be
the weighted sum of the drifts of the policies that were each trained for one reward. All of them
start a step from the same latents, and a step is linear in what the denoiser predicts, guidance
included, so that mixing drifts is mixing predictions. Each step costs a pass for every policy of a
weight above 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.func import functional_call

from baselines.base import BaseModel, Preference
from baselines.families import merged
from baselines.soups import OneEach, common_modules
from ric_diffusion.adapters.lora import Lora
from ric_diffusion.evaluation.method import weights_of


@contextmanager
def blended(
    network: torch.nn.Module, loras: Sequence[Lora], weights: Sequence[float]
) -> Iterator[None]:
    """Inside the block a pass of the network gives the weighted sum of what it predicts under each
    LoRA, as a tuple. Each is a pass of its own to all that counts passes; one of weight 0 is none.
    """
    used = [(lora, weight) for lora, weight in zip(loras, weights, strict=True) if weight]
    modules = common_modules(loras)
    (first, share), *others = used
    rest = [(_weights_under(network, lora, modules), weight) for lora, weight in others]
    inside = False

    def mix(
        network: torch.nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        output: tuple[torch.Tensor, ...],
    ) -> tuple[torch.Tensor] | None:
        nonlocal inside
        if inside or not rest:
            return None
        inside = True  # the passes below come here too
        try:
            total = share * output[0]
            for tensors, weight in rest:
                total = total + weight * functional_call(network, tensors, args, kwargs)[0]
        finally:
            inside = False
        return (total,)

    with merged(network, first):
        hook = network.register_forward_hook(mix, with_kwargs=True)
        try:
            yield
        finally:
            hook.remove()


def _weights_under(
    network: torch.nn.Module, lora: Lora, modules: Sequence[str]
) -> Mapping[str, torch.Tensor]:
    """The weights of these layers with the LoRA in them, by name."""
    found = {}
    for module in modules:
        weight = network.get_submodule(module).weight
        changed = weight.detach().float() + lora.delta(module).to(weight.device)
        found[f"{module}.weight"] = changed.to(weight.dtype)
    return found


class Blend(OneEach):
    """The base model under the rewards' LoRA, each in a pass of its own, mixed as the preference
    asks."""

    name = "Diffusion Blend"

    def draw(
        self, preference: Preference, prompts: Sequence[str], seeds: Sequence[int]
    ) -> list[Any]:
        weights = weights_of(preference, self.space).tolist()
        with blended(self.sampler.network(), self.loras, weights):
            return BaseModel.draw(self, {}, prompts, seeds)
