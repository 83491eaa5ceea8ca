"""Steering the layers of a language model: the states before each get what the rewards add."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch

from ric_diffusion.io.errors import InputError

PROBE = "It was the best of times, it was the worst of times."  # any text does
SHARE = 1.0  # of a layer's states, which a vector of ones is as large as


def layers_of(model: Any) -> torch.nn.ModuleList:
    """The layers of a model, first to last. InputError if it has no list of them."""
    count = model.config.num_hidden_layers
    for module in model.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == count:
            return module
    raise InputError("the model has no list of its layers; train with modulation: false")


@torch.no_grad()
def scale_of(model: Any, tokenizer: Any) -> torch.Tensor:
    """(layers,) how large a vector has to be to be heard among the states before each layer. The
    median over the tokens of a text: a first one may be many times as large as all others."""
    ids = tokenizer(PROBE, return_tensors="pt").input_ids.to(model.device)
    states = model(ids, output_hidden_states=True).hidden_states[: len(layers_of(model))]
    sizes = [state[0].float().square().mean(dim=1).sqrt().median() for state in states]
    return SHARE * torch.stack(sizes)


@contextmanager
def steered(model: Any, vectors: torch.Tensor | None) -> Iterator[None]:
    """Inside the block, ``vectors`` (B, layers, D) are added to the states of B texts before each
    layer; None adds nothing."""
    with ExitStack() as hooks:
        if vectors is not None:
            for layer, vector in zip(layers_of(model), vectors.unbind(dim=1), strict=True):
                add = partial(_add, vector[:, None])
                hooks.enter_context(layer.register_forward_pre_hook(add, with_kwargs=True))
        yield


def _add(
    vector: torch.Tensor, _layer: Any, given: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a layer is called with, its states moved; some models name them, some do not."""
    named = dict(named)
    states, *others = given or (named.pop("hidden_states"),)
    return (states + vector.to(states), *others), named
