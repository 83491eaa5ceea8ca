"""The second way in for rewards: they steer the states of every layer.

Attention that was trained without reward tokens gives them next to none of its weight, and between
the layers a model is easily moved: activation addition, Turner et al. 2023, arXiv 2308.10248.
"""

from __future__ import annotations

import torch

LIMIT = 6.0  # z; beyond it a value reads as the limit


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
        scaled: torch.Tensor = vectors * self.scale[:, None]
        return scaled
