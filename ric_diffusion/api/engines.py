"""The engine of a verb."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ric_diffusion.io.engines import Engine, EngineConfig, opened
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.hardware import this_process


@contextmanager
def working(engine: EngineConfig) -> Iterator[Engine]:
    """The engine, for a program that may be one of several processes. InputError for both at once:
    each process would have workers of its own; and for workers of this machine, which would share
    its device."""
    if engine.name == "local" and engine.workers is not None:
        raise InputError("workers: goes with the engine ray here; add that, or leave it out")
    if engine.name != "local" and this_process().num_processes > 1:
        raise InputError(
            f"engine: {engine.name} shares the work itself; start it without accelerate launch"
        )
    with opened(engine) as running:
        yield running
