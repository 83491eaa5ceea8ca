"""Schedules of the learning rate by the names of transformers, as pure functions of the step."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Literal

import torch

from ric_diffusion.io.errors import reason_of, suggest

# Those of transformers.get_scheduler that depend on the step alone, and not on the losses.
Schedule = Literal[
    "constant",
    "constant_with_warmup",
    "linear",
    "cosine",
    "cosine_with_restarts",
    "cosine_with_min_lr",
    "polynomial",
    "inverse_sqrt",
    "warmup_stable_decay",
]
# Those whose rate at a step is the same however many steps there are.
ENDLESS: tuple[Schedule, ...] = ("constant", "constant_with_warmup", "inverse_sqrt")
# What the run's own settings say.
FIXED = {"optimizer", "num_warmup_steps", "num_training_steps", "last_epoch", "warmup_type"}


def check_schedule(
    name: Schedule, arguments: Mapping[str, Any], *, rate: float, warmup: int, steps: int
) -> None:
    """ValueError for arguments that the schedule does not take."""
    if name == "constant":  # whose function transformers calls without any
        known: set[str] = set()
    else:
        from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION

        known = set(inspect.signature(TYPE_TO_SCHEDULER_FUNCTION[name]).parameters) - FIXED
    for argument in arguments:
        if argument not in known:
            hint = suggest(argument, sorted(known))
            raise ValueError(f"schedule_arguments.{argument}: {name} has no such argument{hint}")
    if arguments or name in ("cosine_with_min_lr", "warmup_stable_decay"):  # which need some
        try:
            factor = factor_of(name, tuple(arguments.items()), rate, warmup, steps)
            factor(min(warmup, steps - 1)), factor(steps - 1)
        except Exception as error:  # of whatever kind each has
            reason = reason_of(error)
            raise ValueError(f"schedule_arguments do not suit {name} ({reason})") from error


@lru_cache(maxsize=8)
def factor_of(
    name: Schedule, arguments: tuple[tuple[str, Any], ...], rate: float, warmup: int, steps: int
) -> Callable[[int], float]:
    """By what the learning rate ``rate`` is multiplied at a step behind the ``warmup``."""
    if name in ("constant", "constant_with_warmup"):
        return lambda step: 1.0
    from transformers.optimization import get_scheduler

    unused = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=rate)
    scheduler = get_scheduler(
        name, unused, warmup, steps, scheduler_specific_kwargs=dict(arguments)
    )
    factor: Callable[[int], float] = scheduler.lr_lambdas[0]
    return factor
