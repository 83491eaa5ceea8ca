"""Work on the model: in one thread, counted, and stopped when its user says so."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from contextvars import copy_context
from queue import Empty, SimpleQueue
from typing import Any

import torch


class Stopped(Exception):
    """The user cancelled this job."""


class Job:
    """A count of forward passes that others may watch, and may stop between two of them."""

    def __init__(self, tell: Callable[[int, int], None] = lambda done, total: None) -> None:
        """``tell(done, total)`` is called before every pass."""
        self.tell = tell
        self.stopped = threading.Event()

    def stop(self) -> None:
        self.stopped.set()

    @contextmanager
    def watching(self, network: torch.nn.Module, total: int) -> Iterator[None]:
        """Count the network's forward passes in this block, ``total`` of them if it is not stopped.
        Raises Stopped at the first one after ``stop``."""
        done = 0

        def step(*_: object) -> None:
            nonlocal done
            if self.stopped.is_set():
                raise Stopped
            self.tell(done, total)
            done += 1

        hook = network.register_forward_pre_hook(step)
        try:
            yield
        finally:
            hook.remove()


class Jobs:
    """The job that each session has running."""

    def __init__(self) -> None:
        self.running: dict[str | None, Job] = {}

    @contextmanager
    def of(self, session: str | None, job: Job) -> Iterator[Job]:
        """``job`` is the session's in this block, or until the next one begins: one that was
        stopped lives on until its next pass."""
        self.running[session] = job
        try:
            yield job
        finally:
            if self.running.get(session) is job:
                del self.running[session]

    def stop(self, session: str | None) -> bool:
        """Stop what the session has running; False if that is nothing."""
        job = self.running.get(session)
        if job is not None:
            job.stop()
        return job is not None


class ModelThread:
    """Runs the work that other threads ask for in the thread that serves, one piece at a time.

    Of a process's threads only the first to compute has OpenMP's workers spin between two
    operations instead of sleeping; in any other the same passes of a small model take 1.7 times as
    long. So the model computes in the thread that loaded it.
    """

    def __init__(self) -> None:
        self.asked: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        self.ended = False

    def run(self, work: Callable[[], Any]) -> Any:
        """What ``work`` returns or raises in the thread that serves, in the caller's context, which
        knows whose progress it is; Stopped if that thread ends first."""
        done: Future[Any] = Future()
        self.asked.put((functools.partial(copy_context().run, work), done))
        if self.ended:
            self._stop_waiting()
        return done.result()

    def serve(self) -> None:
        """Run what is asked for until ``close``, or an interruption."""
        try:
            while asked := self.asked.get():
                work, done = asked
                try:
                    done.set_result(work())
                except Exception as error:
                    done.set_exception(error)
                except BaseException:
                    done.set_exception(Stopped())
                    raise
        finally:
            self.ended = True
            self._stop_waiting()

    def close(self) -> None:
        """``serve`` returns when what was asked for before is done."""
        self.asked.put(None)

    def _stop_waiting(self) -> None:
        with suppress(Empty):
            while True:
                if asked := self.asked.get_nowait():
                    asked[1].set_exception(Stopped())
