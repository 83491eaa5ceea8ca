"""Work that can be watched and stopped: one job at a time for each session."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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
        """``job`` is the session's in this block."""
        self.running[session] = job
        try:
            yield job
        finally:
            self.running.pop(session, None)

    def stop(self, session: str | None) -> bool:
        """Stop what the session has running; False if that is nothing."""
        job = self.running.get(session)
        if job is not None:
            job.stop()
        return job is not None
