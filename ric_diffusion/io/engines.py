"""Engines: one task for many items, done in this process, by several on this machine, or by
workers on Ray.

An engine knows nothing of what it runs. What crosses to a worker is the names of importable
functions and plain data; what a worker needs beside an item (a model, scorers) it makes itself,
once. Several processes are in ``local_engine``, Ray is in ``ray_engine``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, Protocol, TypeVar

from ric_diffusion.io.bounds import check_count
from ric_diffusion.io.errors import InputError, suggest
from ric_diffusion.io.extras import require

State = TypeVar("State")
Item = TypeVar("Item")
Result = TypeVar("Result")

EngineName = Literal["local", "ray"]
NAMES: tuple[EngineName, ...] = ("local", "ray")
MOST_WORKERS = 4096


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Where work is done. It decides nothing of the result, so it is in no run's identity.

    Attributes:
        name: ``"local"``, on this machine, or ``"ray"``.
        address: of a Ray cluster: ``"host:port"``, ``"ray://host:port"``, or ``"auto"`` for the one
            that this machine is part of. By default what RAY_ADDRESS says, else Ray is started on
            this machine for as long as the work takes.
        workers: how many processes share the work. Of Ray by default one for each GPU of the
            cluster, or where it has none for each CPU; on this machine by default only this one,
            but where labelling knows that more are faster.

    InputError for an unknown name, and for what only Ray has.
    """

    name: EngineName = "local"
    address: str | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise InputError(f"engine: {self.name!r} is unknown{suggest(self.name, NAMES)}")
        if self.name != "ray" and self.address is not None:
            raise InputError("address: goes with the engine ray; add that, or leave it out")
        if self.workers is not None:
            check_count("workers", self.workers, MOST_WORKERS)


LOCAL = EngineConfig()
RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent to its makers
    # It prints a paragraph for every worker that dies, for which there is a line of ours.
    "RAY_DEDUP_LOGS_SKIP_REGEX": "^A worker died or was killed",
}


class Engine(Protocol):
    """Does tasks.

    Attributes:
        workers: how many of them it does at a time.
    """

    workers: int

    def map(
        self,
        task: Callable[[State, Item], Result],
        items: Sequence[Item],
        *,
        here: State,
        elsewhere: partial[State] | None,
        called: Callable[[Item], str],
    ) -> Iterator[Result]:
        """What ``task`` makes of the items, as it is done, in any order.

        A task may be done twice, as a worker can die before it is heard of; what it leaves behind
        must be the same then.

        Args:
            task: of what a worker holds and an item. For workers elsewhere it is a function of a
                module, and items and results are plain data.
            here: what a worker in this process holds.
            elsewhere: makes what another one holds: a function of a module with plain keyword
                arguments. None if only this process can have it.
            called: an item's name in messages.

        InputError and ScorerError of a task stop all of them; WorkerError for an item that workers
        have failed on several times.
        """


class InProcess:
    """One item after the other, here."""

    workers = 1

    def map(
        self,
        task: Callable[[State, Item], Result],
        items: Sequence[Item],
        *,
        here: State,
        elsewhere: partial[State] | None,
        called: Callable[[Item], str],
    ) -> Iterator[Result]:
        return (task(here, item) for item in items)


@contextmanager
def opened(config: EngineConfig) -> Iterator[Engine]:
    """The engine; its workers end with the block."""
    if config.name == "local":
        workers = config.workers or 1
        if workers == 1:
            yield InProcess()
        else:
            from ric_diffusion.io.local_engine import LocalEngine

            yield LocalEngine(workers)
        return
    require("scale", "engine ray", "ray")
    for name, value in RAY_ENVIRONMENT.items():  # read when Ray is imported
        os.environ.setdefault(name, value)
    from ric_diffusion.io.ray_engine import RayEngine

    engine = RayEngine(config.address, config.workers)
    try:
        yield engine
    finally:
        engine.close()


@dataclass(frozen=True, kw_only=True)
class Workers:
    """An engine, and ``elsewhere``: what makes that which workers in other processes hold."""

    engine: Engine = field(default_factory=InProcess)
    elsewhere: partial[Any] | None = None

    def map(
        self,
        task: Callable[[State, Item], Result],
        items: Sequence[Item],
        *,
        here: State,
        called: Callable[[Item], str],
        **arguments: Any,
    ) -> Iterator[Result]:
        """As the engine does it; ``arguments`` go to ``elsewhere``."""
        elsewhere = partial(self.elsewhere, **arguments) if self.elsewhere else None
        return self.engine.map(task, items, here=here, elsewhere=elsewhere, called=called)


HERE = Workers()


def name_of(function: Callable[..., Any]) -> str:
    """``"module:name"``, under which other processes import the function."""
    return f"{function.__module__}:{function.__qualname__}"
