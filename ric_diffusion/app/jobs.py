"""Work on the model: in one thread, counted, and stopped when its user says so."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from threading import Condition, Event
from typing import Any

import torch
from PIL import Image

PREVIEWS_FROM = 3.0  # s into a run: what ends sooner is seen soon enough
PREVIEWS_COST = 10  # a preview is made after ten times as long as the last one took


class Stopped(Exception):
    """The user cancelled this job."""


class Job:
    """A count of forward passes that others may watch, and may stop between two of them.

    Attributes:
        done: passes so far, of ``total``; both 0 before the first.
        preview: what the sample looked like last, None before anything can be seen of it.
    """

    def __init__(self) -> None:
        self.done, self.total = 0, 0
        self.preview: Image.Image | None = None
        self._stopped = Event()
        self._preview_at = PREVIEWS_FROM + time.monotonic()

    def stop(self) -> None:
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    @contextmanager
    def watching(self, network: torch.nn.Module, total: int) -> Iterator[None]:
        """Count the network's forward passes in this block, ``total`` of them if it is not stopped.
        Raises Stopped at the first one after ``stop``."""
        self.done, self.total = 0, total
        self._preview_at = PREVIEWS_FROM + time.monotonic()

        def step(*_: object) -> None:
            if self.stopped:
                raise Stopped
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


class Piece:
    """A piece of work that was asked for."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work = work
        self.future: Future[Any] = Future()

    def done(self, within: float) -> bool:
        """Whether it is done, at the latest after so many seconds."""
        return bool(wait([self.future], within).done)

    def result(self) -> Any:
        """What it returns or raises; Stopped if its thread ended before."""
        return self.future.result()


class ModelThread:
    """Runs the work that other threads ask for in the thread that serves, one piece at a time.

    Of a process's threads only the first to compute has OpenMP's workers spin between two
    operations instead of sleeping; in any other the same passes of a small model take 1.7 times as
    long. So the model computes in the thread that loaded it.
    """

    def __init__(self) -> None:
        self.waiting: deque[Piece] = deque()
        self._running: Piece | None = None
        self._changed = Condition()
        self._closing = self._ended = False

    def ask(self, work: Callable[[], Any]) -> Piece:
        """Have ``work`` done in the thread that serves, after what was asked for before."""
        piece = Piece(work)
        with self._changed:
            if self._ended:
                piece.future.set_exception(Stopped())
            else:
                self.waiting.append(piece)
                self._changed.notify()
        return piece

    def run(self, work: Callable[[], Any]) -> Any:
        """What ``work`` returns or raises there."""
        return self.ask(work).result()

    def before(self, piece: Piece) -> int:
        """How many pieces have to be done before this one is begun."""
        with self._changed:
            if piece not in self.waiting:
                return 0
            return self.waiting.index(piece) + (self._running is not None)

    def take_back(self, piece: Piece) -> None:
        """Leave out a piece that nobody waits for any more, unless it is begun."""
        with self._changed:
            if piece in self.waiting:
                self.waiting.remove(piece)

    def serve(self) -> None:
        """Do what is asked for until ``close``, or an interruption."""
        try:
            while piece := self._next():
                try:
                    piece.future.set_result(piece.work())
                except Exception as error:
                    piece.future.set_exception(error)
                except BaseException:
                    piece.future.set_exception(Stopped())
                    raise
        finally:
            with self._changed:
                self._ended, self._running = True, None
                while self.waiting:
                    self.waiting.popleft().future.set_exception(Stopped())

    def close(self) -> None:
        """``serve`` returns when what was asked for before is done."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    def _next(self) -> Piece | None:
        with self._changed:
            self._running = None
            self._changed.wait_for(lambda: self.waiting or self._closing)
            self._running = self.waiting.popleft() if self.waiting else None
            return self._running
