"""How to optimise: the settings under ``loop`` of a training config."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from ric_diffusion.io.config import above_zero, at_least, to_dict
from ric_diffusion.models.hardware import Precision, resolve_precision

TRAINS_NOTHING = ("log_every", "checkpoint_minutes", "validate_every")


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How to optimise. One step is one update: ``accumulate`` micro-batches on each process.

    ``precision``: what the passes are computed in; the trained weights are kept in full. ``auto``
    is bf16 where the device has it in hardware, else fp32, or what the model's frozen weights are
    in if that is half precision. With fp16 the loss is scaled, so that no gradient vanishes.
    """

    steps: int
    batch_size: int
    accumulate: int = 1
    learning_rate: float = 1e-4
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup: int = 0
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    ema: float = 0.999
    precision: Precision = "auto"
    seed: int = 0
    checkpoint_minutes: float = 5.0
    log_every: int = 50
    validate_every: int = 0

    def __post_init__(self) -> None:
        at_least(self, 1, "steps", "batch_size", "accumulate", "log_every")
        at_least(self, 0, "warmup", "weight_decay", "checkpoint_minutes", "validate_every", "seed")
        above_zero(self, "learning_rate", "max_grad_norm")
        for name, values in (("ema", (self.ema,)), ("betas", self.betas)):
            if not all(0 <= value < 1 for value in values):
                raise ValueError(f"{name} is {getattr(self, name)}; give 0 or more, below 1")

    def resolved(self, device: str | torch.device) -> LoopConfig:
        """The same with the precision that ``device`` computes in instead of ``auto``."""
        return replace(self, precision=resolve_precision(self.precision, device))

    def identity(self) -> dict[str, Any]:
        """The settings that decide what is trained, as plain data: two runs that agree in them, in
        model and in data are the same run. Resolve the precision first."""
        return {name: value for name, value in to_dict(self).items() if name not in TRAINS_NOTHING}
