"""Work that a session has running on the model: counted, looked at, and stopped when its user says
so."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from PIL import Image

from ric_diffusion.api import work

PREVIEWS_FROM = 3.0  # s into a run: what ends sooner is seen soon enough
PREVIEWS_COST = 10  # a preview is made after ten times as long as the last one took


class Job(work.Job):
    """A count of forward passes that others may watch, and may stop between two of them.

    Attributes:
        done: passes so far, of ``total``; both 0 before the first.
        preview: what the sample looked like last, None before anything can be seen of it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.done, self.total = 0, 0
        self.preview: Image.Image | None = None
        self._preview_at = PREVIEWS_FROM + time.monotonic()

    @contextmanager
    def watching(self, network: torch.nn.Module, total: int) -> Iterator[None]:
        """Count the network's forward passes in this block, ``total`` of them if it is not stopped.
        Raises Stopped at the first one after ``stop``."""
        self.done, self.total = 0, total
        self._preview_at = PREVIEWS_FROM + time.monotonic()

        def step(*_: object) -> None:
            self.check()
            self.done += 1

        hook = network.register_forward_pre_hook(step)
        try:
            yield
        finally:
            hook.remove()

    def look(self, draw: Callable[[], Image.Image]) -> None:
        """Have a preview drawn, if it is time for one."""
        start = time.monotonic()
        if start >= self._preview_at:
            self.preview = draw()
            end = time.monotonic()
            self._preview_at = end + max(1.0, PREVIEWS_COST * (end - start))


class Jobs:
    """The jobs that each session has running or waiting, by what they are for."""

    def __init__(self) -> None:
        self.running: dict[tuple[str, str], Job] = {}

    @contextmanager
    def of(self, session: str, purpose: str, job: Job) -> Iterator[Job]:
        """``job`` is the session's in this block, in place of one for the same purpose, which is
        stopped: of what is set while something is drawn, the last is wanted."""
        key = session, purpose
        if (before := self.running.get(key)) is not None:
            before.stop()
        self.running[key] = job
        try:
            yield job
        finally:
            if self.running.get(key) is job:
                del self.running[key]

    def current(self, session: str, purpose: str, job: Job) -> bool:
        """Whether nothing else took the place of ``job``."""
        return self.running.get((session, purpose)) is job

    def stop(self, session: str) -> bool:
        """Stop what the session has running or waiting; False if that is nothing."""
        jobs = [job for (owner, _), job in list(self.running.items()) if owner == session]
        for job in jobs:
            job.stop()
        return bool(jobs)
