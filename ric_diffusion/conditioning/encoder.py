"""The learned reward encoder of embedding mode: every reward value becomes one context token.

Text models read decimal numbers badly (UC-MOA, Li et al. 2025); here a value enters as Fourier
features instead, so nearby values have nearby tokens and the slider has no steps.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from ric_diffusion.conditioning.steering import LIMIT, Steering
from ric_diffusion.io.config import from_dict, within
from ric_diffusion.io.errors import InputError, reason_of
from ric_diffusion.io.files import replacing
from ric_diffusion.io.strict_json import parse_json
from ric_diffusion.io.tensors import (
    FLOATS,
    StoredTensor,
    check_finite,
    save_tensors,
    stored_tensors,
)

OCTAVES = 6
MOST_SIZE = 2**20


def as_values(targets: Sequence[Mapping[str, float]], names: Sequence[str]) -> torch.Tensor:
    """Targets by name -> (B, n) float32 in z, NaN where a reward is auto."""
    return torch.tensor([[t.get(name, math.nan) for name in names] for t in targets])


def fourier_features(values: torch.Tensor) -> torch.Tensor:
    """(..., ) z -> (..., 1 + 2*OCTAVES): the value and sin, cos of it at octave-spaced periods.

    Tancik et al. 2020, section 4; the longest period is 4*LIMIT, so that it is one-to-one on the
    range, and the shortest resolves about a tenth of a z.
    """
    values = values.clamp(-LIMIT, LIMIT)
    periods = 4 * LIMIT / 2.0 ** torch.arange(OCTAVES, device=values.device)
    angles = 2 * math.pi * values[..., None] / periods
    return torch.cat([values[..., None], angles.sin(), angles.cos()], dim=-1)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Of a reward encoder, as its file tells them."""

    names: tuple[str, ...]
    width: int
    hidden: int
    time_width: int = 0
    layers: int = 0

    def __post_init__(self) -> None:
        within(self, 1, MOST_SIZE, "width", "hidden")
        within(self, 0, MOST_SIZE, "time_width", "layers")
        if not self.names or len(set(self.names)) < len(self.names):
            raise ValueError("names must be one or more, each once")


class RewardEncoder(torch.nn.Module):
    """z values -> tokens of the text encoder's width, ready to follow its hidden states.

    ``time_width``: of a denoiser's embedding of the time, which the tokens then also shift;
    ``layers`` of a language model, which the values then also steer; 0 for neither.
    """

    def __init__(
        self,
        names: Sequence[str],
        width: int,
        hidden: int = 256,
        time_width: int = 0,
        layers: int = 0,
    ) -> None:
        super().__init__()
        self.names = tuple(names)
        self.width = width
        self.hidden = hidden
        self.time_width = time_width
        self.layers = layers
        count, features = len(self.names), 1 + 2 * OCTAVES
        # Every reward reads its values with weights of its own. The identity starts at nothing, so
        # that from the first step on it is the value that makes the difference between tokens.
        self.value = torch.nn.Parameter(torch.randn(count, features, hidden) / features**0.5)
        self.identity = torch.nn.Parameter(torch.zeros(count, hidden))
        self.auto = torch.nn.Parameter(torch.randn(count, hidden))
        self.mix = torch.nn.Sequential(
            torch.nn.SiLU(), torch.nn.Linear(hidden, hidden), torch.nn.SiLU()
        )
        self.out = torch.nn.Linear(hidden, width)
        # Text encoders end in a LayerNorm: tokens of another scale would drown theirs or vanish.
        self.norm = torch.nn.LayerNorm(width)
        if time_width:
            self.to_time = torch.nn.Linear(count * width, time_width)
            torch.nn.init.zeros_(self.to_time.weight)  # at first the model is as it was
            torch.nn.init.zeros_(self.to_time.bias)
        self.steering = Steering(count, layers, width) if layers else None

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """(B, n) z with NaN for auto -> (B, n, width)."""
        auto = values.isnan()
        features = fourier_features(values.nan_to_num(0.0)).to(self.identity.dtype)
        states = torch.einsum("bnf,nfh->bnh", features, self.value)
        states = torch.where(auto[..., None], self.auto.expand_as(states), states)
        tokens: torch.Tensor = self.norm(self.out(self.mix(states + self.identity)))
        return tokens

    def time_shift(self, context: torch.Tensor) -> torch.Tensor:
        """A context (B, T, width) that ends in reward tokens -> what they add to the embedding,
        (B, time_width)."""
        tokens = context[:, -len(self.names) :].flatten(1)
        shift: torch.Tensor = self.to_time(tokens.to(self.to_time.weight.dtype))
        return shift

    def check_fit(self, *, time_width: int = 0, layers: int = 0) -> None:
        """InputError if a model has other than what the rewards shift."""
        for what, ours, theirs in (
            ("a time embedding {} wide", self.time_width, time_width),
            ("{} layers", self.layers, layers),
        ):
            if ours not in (0, theirs):
                raise InputError(
                    f"the reward encoder shifts {what.format(ours)}, this model has "
                    f"{what.format(theirs)}: the adapter was trained on another architecture"
                )

    def save(self, path: Path) -> None:
        """Write weights and shape to one safetensors file, in one move."""
        about = {
            "names": self.names,
            "width": self.width,
            "hidden": self.hidden,
            "time_width": self.time_width,
            "layers": self.layers,
        }
        with replacing(path) as temporary:
            tensors = {k: v.detach().cpu() for k, v in self.state_dict().items()}
            save_tensors(temporary, tensors, {"reward_encoder": json.dumps(about)})

    @classmethod
    def load(cls, path: Path) -> RewardEncoder:
        """Read what ``save`` wrote. InputError if the file is not one of ours: that its tensors are
        those of the sizes it tells is seen in its header, before anything is made."""
        try:
            with safe_open(path, framework="pt") as file:
                about = (file.metadata() or {})["reward_encoder"]
                there = stored_tensors(file)
            sizes = from_dict(parse_json(about, "reward_encoder"), Sizes, "reward_encoder")
            with torch.device("meta"):  # no memory
                encoder = cls(**asdict(sizes))
            check_stored(encoder, there)
            encoder.to_empty(device="cpu")
            encoder.load_state_dict(load_file(path))
            check_finite(encoder.state_dict())
        except Exception as error:  # safetensors raises types of its own
            reason = reason_of(error)
            raise InputError(f"{path}: not a reward encoder of this version ({reason})") from error
        return encoder.eval()


def check_stored(module: torch.nn.Module, there: Mapping[str, StoredTensor]) -> None:
    """ValueError unless a file has just the tensors of a module, in their shapes."""
    own = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    for name in sorted({*own, *there}):
        if name not in there:
            raise ValueError(f"{name} is missing")
        if name not in own:
            raise ValueError(f"{name} belongs to none of these sizes")
        if there[name].shape != own[name]:
            raise ValueError(f"{name} is {there[name].shape} and by its sizes {own[name]}")
        if there[name].dtype not in FLOATS:
            raise ValueError(f"{name} is {there[name].dtype}, where floats are expected")
