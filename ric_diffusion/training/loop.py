"""How to optimise: the settings under ``loop`` of a training config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch

from ric_diffusion.io.bounds import MOST_RUN_SEED
from ric_diffusion.io.config import above_zero, to_dict, within
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.hardware import Precision, resolve_precision
from ric_diffusion.training.log import Tracker, check_installed
from ric_diffusion.training.optimizers import OptimizerConfig
from ric_diffusion.training.rates import Schedule, check_schedule

# The optimizers that train parameters in shards. Torch stops Adafactor, its own and transformers'
# ("got mixed torch.Tensor and DTensor"); the others read and sum up numbers of whole parameters.
TRAIN_SHARDS = ("adamw",)
TRAINS_NOTHING = ("log_every", "checkpoint_minutes", "validate_every", "trackers")
MOST_UPDATES, MOST_AT_ONCE, MOST_RATE = 10**9, 2**20, 1000.0
ARGUMENTS = "belongs to the optimizer now: write optimizer: {arguments: {%s}}"


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How to optimise. One step is one update: ``accumulate`` micro-batches on each process.

    ``precision``: what the passes are computed in; the trained weights are kept in full. ``auto``
    is bf16 where the device has it in hardware, else fp32, or what the model's frozen weights are
    in if that is half precision. With fp16 the loss is scaled, so that no gradient vanishes.

    ``schedule``: of the learning rate, by the names of ``transformers.get_scheduler``, after a
    linear rise in ``warmup`` steps; ``schedule_arguments``: of that schedule, as ``{num_cycles:
    3}``. ``trackers``: where figures and validation sheets go beside ``log.jsonl``.
    """

    REMOVED: ClassVar[Mapping[str, str]] = {
        "betas": ARGUMENTS % "betas: [0.9, 0.999]",
        "weight_decay": ARGUMENTS % "weight_decay: 0.01",
    }

    steps: int
    batch_size: int
    accumulate: int = 1
    learning_rate: float = 1e-4
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: Schedule = "cosine"
    schedule_arguments: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    warmup: int = 0
    max_grad_norm: float = 1.0
    ema: float = 0.999
    precision: Precision = "auto"
    seed: int = 0
    checkpoint_minutes: float = 5.0
    log_every: int = 50
    validate_every: int = 0
    trackers: tuple[Tracker, ...] = ("tensorboard",)

    def __post_init__(self) -> None:
        within(self, 1, MOST_UPDATES, "steps", "log_every")
        within(self, 1, MOST_AT_ONCE, "batch_size", "accumulate")
        within(self, 0, MOST_UPDATES, "checkpoint_minutes", "validate_every")
        within(self, 0, MOST_RUN_SEED, "seed")
        above_zero(self, "learning_rate", most=MOST_RATE)
        above_zero(self, "max_grad_norm")
        if not 0 <= self.warmup <= self.steps:
            raise ValueError(f"warmup is {self.warmup}; give 0 to steps, which is {self.steps}")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema is {self.ema}; give 0 or more, below 1")
        if self.optimizer.name == "prodigy" and self.learning_rate < 0.1:
            raise ValueError(
                f"learning_rate is {self.learning_rate}, a factor on the one that prodigy finds; "
                "give 1"
            )
        check_schedule(
            self.schedule,
            self.schedule_arguments,
            rate=self.learning_rate,
            warmup=self.warmup,
            steps=self.steps,
        )
        check_installed(self.trackers)

    def check_shards(self) -> None:
        """InputError for what trains no parameters in shards."""
        if self.optimizer.name not in TRAIN_SHARDS:
            raise InputError(
                f"loop.optimizer: {self.optimizer.name} reads whole weights, and FSDP with train: "
                f"full has parts of them; give {' or '.join(TRAIN_SHARDS)}"
            )
        if self.precision == "fp16":
            raise InputError(
                "loop.precision: fp16 is not for FSDP with train: full; give bf16 or fp32"
            )

    def in_steps(self, steps: int) -> LoopConfig:
        """The same in so many steps, of which no more than all warm up."""
        return replace(self, steps=steps, warmup=min(self.warmup, steps))

    def resolved(self, device: str | torch.device) -> LoopConfig:
        """The same with the precision that ``device`` computes in instead of ``auto``."""
        return replace(self, precision=resolve_precision(self.precision, device))

    def identity(self) -> dict[str, Any]:
        """The settings that decide what is trained, as plain data: two runs that agree in them, in
        model and in data are the same run. Resolve the precision first."""
        return {name: value for name, value in to_dict(self).items() if name not in TRAINS_NOTHING}
