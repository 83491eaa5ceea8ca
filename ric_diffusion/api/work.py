"""Work on what is loaded: in one thread, a piece after the other, and stopped when nobody waits for
it any more."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from threading import Condition, Event
from typing import Any

Work = Callable[[], Any]


class Stopped(Exception):
    """Nobody waits for this work any more, or what does it has ended."""


class Full(Exception):
    """As many pieces of work wait as may."""


class Job:
    """A piece of work that may be stopped, which it finds out when it asks."""

    def __init__(self) -> None:
        self._stopped = Event()

    def stop(self) -> None:
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    def check(self, *_: object) -> None:
        """Stopped, if it is; also as a hook or a callback, whatever that is given."""
        if self.stopped:
            raise Stopped


class WorkQueue:
    """Does what other threads submit in the thread that serves, one piece at a time: models and
    scorers share the device.

    Of a process's threads only the first to compute has OpenMP's workers spin between two
    operations instead of sleeping; in any other the same passes of a small model take 1.7 times as
    long. So a model computes in the thread that loaded it.
    """

    def __init__(self, most: int | None = None) -> None:
        """``most``: pieces that may wait; None is no limit."""
        self._most = most
        self._waiting: deque[tuple[Future[Any], Work]] = deque()
        self._running = self._closing = self._ended = False
        self._changed = Condition()

    @property
    def waiting(self) -> int:
        """How many pieces somebody waits for that are not begun."""
        with self._changed:
            return len(self._left())

    def submit(self, work: Work) -> Future[Any]:
        """What ``work`` returns or raises, later; Stopped if its thread ends before. Whoever waits
        for it no more cancels it. Raises Full."""
        future: Future[Any] = Future()
        with self._changed:
            if self._most is not None and len(self._left()) >= self._most:
                raise Full
            if self._ended:
                future.set_exception(Stopped())
            else:
                self._waiting.append((future, work))
                self._changed.notify()
        return future

    def run(self, work: Work) -> Any:
        """What ``work`` returns or raises there."""
        return self.submit(work).result()

    def before(self, future: Future[Any]) -> int:
        """How many pieces have to be done before this one is begun."""
        with self._changed:
            left = [one for one, _ in self._left()]
            return left.index(future) + self._running if future in left else 0

    def serve(self) -> None:
        """Do what is submitted until ``close``, or an interruption, which is raised on."""
        try:
            while piece := self._next():
                future, work = piece
                try:
                    future.set_result(work())
                except KeyboardInterrupt:
                    future.set_exception(Stopped())
                    raise
                except BaseException as error:
                    future.set_exception(error)
                del piece, future, work  # and what they hold, while there is nothing to do
        finally:
            with self._changed:
                self._ended, self._running = True, False
                while self._waiting:
                    future, _ = self._waiting.popleft()
                    if future.set_running_or_notify_cancel():
                        future.set_exception(Stopped())

    def close(self) -> None:
        """``serve`` returns when what was submitted before is done."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    def _next(self) -> tuple[Future[Any], Work] | None:
        with self._changed:
            self._running = False
            while True:
                self._changed.wait_for(lambda: self._waiting or self._closing)
                if not self._waiting:
                    return None
                piece = self._waiting.popleft()
                if piece[0].set_running_or_notify_cancel():
                    self._running = True
                    return piece

    def _left(self) -> deque[tuple[Future[Any], Work]]:
        """What waits, without what was cancelled."""
        self._waiting = deque(piece for piece in self._waiting if not piece[0].cancelled())
        return self._waiting
