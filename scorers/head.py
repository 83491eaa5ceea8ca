"""The five linear layers that aesthetic predictors and ImageReward put behind their encoders."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

SIZES = (1024, 128, 64, 16, 1)


@dataclass(frozen=True, kw_only=True)
class Head:
    """(N, width) -> (N, 1) without activations, its layers named in the file ``name``.``place``:
    training had dropout in the places between."""

    name: str
    width: int
    places: tuple[int, int, int, int, int]

    def build(self) -> torch.nn.Module:
        from torch import nn

        layers = nn.Sequential()
        for place, (inputs, outputs) in zip(
            self.places, pairwise((self.width, *SIZES)), strict=True
        ):
            layers.extend(nn.Identity() for _ in range(len(layers), place))
            layers.append(nn.Linear(inputs, outputs))
        return nn.Sequential(OrderedDict({self.name: layers}))

    def load(self, state: Mapping[str, torch.Tensor]) -> torch.nn.Module:
        """With these weights: float32, in evaluation, on the CPU (it is tiny). An error of torch's
        if they do not fit."""
        import torch

        with torch.device("meta"):  # no random init, which would move the user's seed
            head = self.build()
        state = {key: value.to(torch.float32) for key, value in state.items()}
        head.load_state_dict(state, assign=True)
        return head.eval()
