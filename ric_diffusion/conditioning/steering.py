"""The second way in for rewards: they steer the states of every layer.

Attention that was trained without reward tokens gives them next to none of its weight, and between
the layers a model is easily moved: activation addition, Turner et al. 2023, arXiv 2308.10248.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch

from ric_diffusion.errors import InputError

LIMIT = 6.0  # z; beyond it a value reads as the limit
PROBE = "It was the best of times, it was the worst of times."  # any text does
SHARE = 1.0  # of a layer's states, which a vector of ones is as large as


def smooth_features(values: torch.Tensor) -> torch.Tensor:
    """(..., ) z -> (..., 3): the value, its square and its tanh. With so few, what steers every
    layer of a language model cannot learn by heart which response had which value."""
    values = values.clamp(-LIMIT, LIMIT)
    return torch.stack([values, (values.square() - 1) / 2, values.tanh()], dim=-1)


class Steering(torch.nn.Module):
    """z values -> a vector for every layer of a language model, to be added to its states.

    Activation addition (Turner et al. 2023, arXiv 2308.10248), as a learned function of rewards.
    """

    def __init__(self, count: int, layers: int, width: int, hidden: int = 64) -> None:
        super().__init__()
        self.shape = (layers, width)
        self.value = torch.nn.Parameter(torch.randn(count, 3, hidden) / 3**0.5)
        self.bias = torch.nn.Parameter(torch.randn(count, hidden) / 2)
        self.auto = torch.nn.Parameter(torch.zeros(count, hidden))
        self.mix = torch.nn.Sequential(
            torch.nn.SiLU(), torch.nn.Linear(hidden, hidden), torch.nn.SiLU()
        )
        self.out = torch.nn.Linear(count * hidden, layers * width)
        torch.nn.init.zeros_(self.out.weight)  # at first the model is as it was
        torch.nn.init.zeros_(self.out.bias)
        # States grow from layer to layer, and one learning rate has to suit all.
        self.scale: torch.Tensor
        self.register_buffer("scale", torch.ones(layers))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """(B, n) z with NaN for auto -> (B, layers, width)."""
        features = smooth_features(values.nan_to_num(0.0)).to(self.bias.dtype)
        states = torch.einsum("bnf,nfh->bnh", features, self.value) + self.bias
        states = torch.where(values.isnan()[..., None], self.auto.expand_as(states), states)
        vectors = self.out(self.mix(states).flatten(1)).unflatten(1, self.shape)
        return vectors * self.scale[:, None]


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
