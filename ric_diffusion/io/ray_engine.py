"""The engine on Ray: an actor on each device, to which the driver hands one item at a time.

Actors are started and replaced here rather than restarted by Ray: so an item is handed only to a
worker that runs (a replacement may wait long for a free device), and failures are counted by item.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import ray
from ray.exceptions import RayError

from ric_diffusion.io.engines import Item, Result, State, name_of
from ric_diffusion.io.errors import InputError, WorkerError
from ric_diffusion.io.worker import DONE, FAILED, REFUSALS, Worker

ATTEMPTS = 3  # at one item
PATIENCE = 60.0  # seconds without any worker, after which the user is told what is waited for
PROBE = 5.0  # seconds; Ray itself tries for minutes, then ends the process
OBJECT_STORE = 80 * 2**20  # bytes: Ray's least is 75 MiB, and all that passes here is small

_log = logging.getLogger(__name__)


class RayEngine:
    """An Engine whose workers are actors on Ray: one GPU each, or one CPU where there is no GPU.

    Args:
        address: as ``EngineConfig`` has it.
        workers: likewise.

    InputError if the cluster cannot be reached, or is too small.
    """

    def __init__(self, address: str | None, workers: int | None) -> None:
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Any, int | None]] = {}  # by what is waited for; None: it starts
        self._own = not ray.is_initialized()  # else a program of the user's has, who ends it, too
        if self._own:
            _connect(address or os.environ.get("RAY_ADDRESS") or "local", workers)
        resources = ray.cluster_resources()
        kind = "GPU" if resources.get("GPU") else "CPU"
        has = int(resources.get(kind, 0))
        if (workers or 1) > has:
            self.close()
            raise InputError(f"workers: {workers or 1}, and Ray has {has} {kind}s; give {has}")
        self.workers = workers or has
        self._kind = kind
        self._actor = ray.remote(num_cpus=int(kind == "CPU"), num_gpus=int(kind == "GPU"))(Worker)

    def map(
        self,
        task: Callable[[State, Item], Result],
        items: Sequence[Item],
        *,
        here: State,
        elsewhere: partial[State] | None,
        called: Callable[[Item], str],
    ) -> Iterator[Result]:
        if elsewhere is None:
            raise InputError("engine ray: this works in one process only; leave it out")
        call = name_of(elsewhere.func), dict(elsewhere.keywords), name_of(task)
        waiting, failures, starts = deque(range(len(items))), Counter[int](), 0
        heard = time.monotonic()
        found: list[Result] = []
        try:
            while waiting or any(number is not None for _, number in self._busy.values()):
                self._start(len(waiting))
                while waiting and self._idle:
                    worker, given = self._idle.pop(), waiting.popleft()
                    self._busy[worker.run.remote(*call, items[given])] = worker, given
                yield from found  # now that all workers have something to do
                found.clear()
                ready, _ = ray.wait(list(self._busy), timeout=1.0)
                if all(number is None for _, number in self._busy.values()) and not ready:
                    heard = self._say_if_late(heard)
                    continue
                heard = time.monotonic()
                for reference in ready:  # one, if any
                    worker, number = self._busy.pop(reference)
                    outcome, value = self._outcome(reference, worker)
                    if outcome == DONE:
                        self._idle.append(worker)
                        starts = 0
                        if number is not None:
                            found.append(value)
                    elif outcome in REFUSALS:
                        self._idle.append(worker)
                        raise REFUSALS[outcome](value)
                    elif number is None:
                        starts += 1
                        _give_up("worker", value, starts)
                    else:
                        failures[number] += 1
                        waiting.appendleft(number)
                        _give_up(called(items[number]), value, failures[number])
            yield from found
        finally:
            for reference, (worker, doing) in list(self._busy.items()):
                if doing is not None:  # nobody wants its result any more
                    del self._busy[reference]
                    ray.kill(worker)

    def close(self) -> None:
        """End the workers, and Ray if it was begun here."""
        if self._own:
            ray.shutdown()  # which ends the actors
            return
        for worker in [*self._idle, *(worker for worker, _ in self._busy.values())]:
            ray.kill(worker)

    def _start(self, wanted: int) -> None:
        """Start workers up to their number, no more than there is work for."""
        starting = sum(number is None for _, number in self._busy.values())
        room = self.workers - len(self._idle) - len(self._busy)
        for _ in range(min(room, wanted - starting - len(self._idle))):
            worker = self._actor.remote(os.getcwd())
            self._busy[worker.__ray_ready__.remote()] = worker, None

    def _outcome(self, reference: Any, worker: Any) -> tuple[str, Any]:
        """What a worker answers; of one that died, which is gone afterwards, why."""
        try:
            found = ray.get(reference)
        except RayError as error:
            ray.kill(worker)
            return FAILED, f"the worker died: {_cause(error)}"
        if isinstance(found, tuple) and found[0] == FAILED:
            # What it holds may be what is broken: a device's memory, a connection.
            ray.kill(worker)
        return found if isinstance(found, tuple) else (DONE, None)

    def _say_if_late(self, since: float) -> float:
        """Warn if nothing has run for long; returns from when to count on."""
        now = time.monotonic()
        if now - since < PATIENCE:
            return since
        _log.warning("engine ray: waiting for a free %s of the cluster", self._kind)
        return now


def _give_up(what: str, why: str, attempts: int) -> None:
    """WorkerError after the last attempt, else a warning. ``why`` ends with the cause; what comes
    before that, a traceback, goes to whoever catches the error."""
    cause = why.strip().splitlines()[-1]
    if attempts < ATTEMPTS:
        _log.warning("%s: attempt %d of %d failed, %s", what, attempts, ATTEMPTS, cause)
        return
    error = WorkerError(f"{what}: failed {attempts} times, at last because {cause}")
    error.add_note(why)
    raise error


def _cause(error: RayError) -> str:
    """Ray's many lines as one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if "Error" in line), lines[0] if lines else "no reason")


def _connect(address: str, workers: int | None) -> None:
    """Join a cluster, or start Ray on this machine. InputError if that cannot be done."""
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address == "local":
        options |= {
            "num_cpus": workers,
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE,
        }
    elif address != "auto":
        _probe(address)
    try:
        with _own_sigterm():
            ray.init(address=address, **options)
    except (RayError, OSError, RuntimeError, ValueError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"address {address}: no Ray cluster to work on; {why}") from error


def _probe(address: str) -> None:
    """InputError unless something listens there."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise InputError(f"address {address}: write HOST:PORT, ray://HOST:PORT or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"address {address}: cannot be reached ({error}); give the address that `ray start "
            "--head` printed, or leave it out to work on this machine"
        ) from error


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Ray handles SIGTERM in its own way; afterwards it is handled as before."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
