"""The optimizers by name, each with the arguments of its class."""

from __future__ import annotations

import inspect
import io
from collections.abc import Iterable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from ric_diffusion.io.errors import reason_of, suggest
from ric_diffusion.io.extras import require
from ric_diffusion.models.sharding import apart

Argument = bool | int | float | str | tuple[float, ...] | None
Name = Literal["adamw", "adamw8bit", "prodigy", "adafactor"]

EXTRAS = {"adamw8bit": "quantized", "prodigy": "optimizers"}
# Where we choose otherwise than the class: the fused AdamW is the fastest, and Adafactor has a
# schedule of its own, which would leave no say to the learning rate of the run.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "adamw": {"fused": True},
    "adafactor": {"scale_parameter": False, "relative_step": False},
}
# Not to be chosen: what is set elsewhere, and ways to compute the same that exclude each other.
FIXED = {
    *("params", "lr", "relative_step", "warmup_init", "fused", "foreach", "capturable"),
    *("differentiable", "maximize", "args", "optim_bits", "is_paged", "fsdp_in_use"),
}
BLOCKS = 4096  # numbers from which on bitsandbytes keeps the moments of a tensor in 8 bits


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """``adamw`` (Loshchilov & Hutter 2019, arXiv 1711.05101); ``adamw8bit``, whose moments take 8
    bits (Dettmers et al. 2021, arXiv 2110.02861; bitsandbytes); ``prodigy``, which finds the
    learning rate (Mishchenko & Defazio 2023, arXiv 2306.06101; prodigyopt); ``adafactor``, whose
    second moments are a row and a column (Shazeer & Stern 2018, arXiv 1804.04235; transformers).

    ``arguments``: of the class, as ``{betas: [0.9, 0.99], weight_decay: 0.0}``; what is left out is
    as the class has it. The learning rate is the run's.
    """

    name: Name = "adamw"
    arguments: Mapping[str, Argument] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if extra := EXTRAS.get(self.name):
            require(extra, self.name)
        parameters = inspect.signature(_class(self.name)).parameters
        for name in self.arguments:
            if name not in parameters.keys() - FIXED:
                hint = suggest(name, sorted(parameters.keys() - FIXED))
                raise ValueError(f"arguments.{name}: {self.name} has no such argument{hint}")
        self._try()

    def _try(self) -> None:
        """ValueError if the class refuses the arguments, or cannot run on this machine."""
        parameter = torch.nn.Parameter(torch.zeros(BLOCKS))
        try:
            optimizer = self.create([parameter], 1.0)
            if not torch.cuda.is_available():
                parameter.grad = torch.zeros_like(parameter)
                optimizer.step()
        except Exception as error:  # each class raises its own, a missing kernel any
            reason = reason_of(error)
            raise ValueError(f"{self.name} does not run with these arguments ({reason})") from error

    def create(
        self, parameters: Iterable[torch.nn.Parameter], learning_rate: float
    ) -> torch.optim.Optimizer:
        """The optimizer of these parameters, in their order; those in shards are a group of their
        own."""
        groups = [{"params": some} for some in apart(parameters) if some]
        given = {**DEFAULTS.get(self.name, {}), **self.arguments}
        with redirect_stdout(io.StringIO()):  # Prodigy prints that it decays weights
            made: torch.optim.Optimizer = _class(self.name)(groups, lr=learning_rate, **given)
        return made


def _class(name: str) -> Any:
    """The class, imported when it is asked for: some take seconds."""
    if name == "adamw8bit":
        from bitsandbytes.optim import AdamW8bit

        return AdamW8bit
    if name == "prodigy":
        from prodigyopt import Prodigy

        return Prodigy
    if name == "adafactor":
        from transformers.optimization import Adafactor

        return Adafactor
    return torch.optim.AdamW
