"""Training by the clock: a phase has a share of the minutes, and as many steps as fit into it.

How long a step takes is measured before the phase begins. From then on it has a number of steps
like any other phase, so that it can be resumed, and its learning rate ends at 0 on every machine.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ric_diffusion.io.config import above_zero
from ric_diffusion.models.protocol import Trainable
from ric_diffusion.training.loop import LoopConfig
from ric_diffusion.training.optimizers import OptimizerConfig
from ric_diffusion.training.trainer import Trainer

WARMING, MEASURED = 3, 10  # steps
MEASURING = 0.1  # of a phase's time, at most, once it is warm
USED = 0.96  # of it: the checkpoint at its end takes time as well


@dataclass(frozen=True, kw_only=True)
class TimedPhase:
    """A phase of training whose number of steps is not known yet; what else depends on time is a
    fraction of it.

    ``share``: of the minutes, relative to the other shares. ``warmup``: of the steps, after which
    the learning rate falls along half a cosine to 0. ``average``: how far back the average of the
    weights reaches, as a part of the steps.
    """

    share: float
    batch_size: int
    learning_rate: float
    warmup: float = 0.05
    average: float = 0.05
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        above_zero(self, "share", "average")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup is {self.warmup}; give 0 or more, below 1")

    def loop(self, steps: int) -> LoopConfig:
        """The same with its number of steps."""
        return LoopConfig(
            steps=steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            warmup=int(self.warmup * steps),
            ema=max(0.0, 1.0 - 1.0 / max(1.0, self.average * steps)),
            optimizer=self.optimizer,
            seed=self.seed,
            trackers=(),
        )


class Clock:
    """The minutes of a run, from when it is made, in ``shares`` for what comes one after the other.

    What is late takes from all that comes after it, and what is early gives to it.
    """

    def __init__(self, minutes: float, shares: Mapping[str, float]) -> None:
        self.begun = time.monotonic()
        self._end = self.begun + 60 * minutes
        self._shares = shares

    @property
    def spent(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.begun

    def seconds(self, name: str) -> float:
        """What part ``name`` has of the seconds that are left now, none if they are over."""
        names: Sequence[str] = list(self._shares)
        left = max(0.0, self._end - time.monotonic())
        coming = sum(self._shares[later] for later in names[names.index(name) :])
        return left * self._shares[name] / coming


def seconds_per_step(trainer: Trainable, count: int, phase: TimedPhase, at_most: float) -> float:
    """How long a step on ``count`` records takes, behind those that warm the device up; measured
    for ``at_most`` seconds, and one step in any case. The trained weights are as before."""
    probe = Trainer(trainer, count, phase.loop(WARMING + MEASURED), Path(), digest="")
    before = {name: p.detach().clone() for name, p in probe.state.parameters.items()}
    try:
        for _ in range(WARMING):
            probe.step()
        begun, done = time.monotonic(), 0
        while done < MEASURED and (not done or time.monotonic() - begun < at_most):
            probe.step()
            done += 1
        if torch.cuda.is_available():  # where a step is under way when it returns
            torch.cuda.synchronize()
        return (time.monotonic() - begun) / done
    finally:
        with torch.no_grad():
            for name, parameter in probe.state.parameters.items():
                parameter.copy_(before[name])


def steps_within(trainer: Trainable, count: int, phase: TimedPhase, seconds: float) -> int:
    """How many steps fit into ``seconds``, of which some are spent on measuring; at least one."""
    begun = time.monotonic()
    each = seconds_per_step(trainer, count, phase, MEASURING * seconds)
    left = USED * seconds - (time.monotonic() - begun)
    return max(1, int(left / each))
