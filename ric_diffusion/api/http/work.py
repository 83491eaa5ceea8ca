"""Work that requests wait for: one piece after the other in one thread, a bounded number waiting,
none for a client that has gone."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from ric_diffusion.api.http.guard import Receive, Refused

WAITING = 32  # pieces of work; one more is told to come again

Work = Callable[["Job"], Any]


class Stopped(Exception):
    """Nobody waits for this work any more."""


class Job:
    """A piece of work that may be stopped, which it finds out when it asks."""

    def __init__(self) -> None:
        self._stopped = threading.Event()

    def stop(self) -> None:
        self._stopped.set()

    def check(self, *_: object) -> None:
        """Stopped, if it is; also as a hook or a callback, whatever that is given."""
        if self._stopped.is_set():
            raise Stopped


class WorkThread:
    """Does what is submitted in a thread of its own, in that order: models and scorers share the
    device. A daemon, so that a server which is interrupted does not wait for it."""

    def __init__(self, most: int = WAITING) -> None:
        self._most = most
        self._waiting: deque[tuple[Future[Any], Job, Work]] = deque()
        self._changed = threading.Condition()
        threading.Thread(target=self._run, daemon=True).start()

    def submit(self, work: Work, job: Job | None = None) -> Future[Any]:
        """``work(job)``, later. Refused if as many wait as may."""
        future: Future[Any] = Future()
        with self._changed:
            self._waiting = deque(one for one in self._waiting if not one[0].cancelled())
            if len(self._waiting) >= self._most:
                raise Refused(
                    503, f"{self._most} requests wait already; try again later", retry_after="1"
                )
            self._waiting.append((future, job or Job(), work))
            self._changed.notify()
        return future

    async def answer(self, work: Work, receive: Receive) -> Any:
        """What the work returns or raises. Stopped, and the work with it, if the client goes before
        that; Refused if the server ends before it."""
        job = Job()
        doing = asyncio.wrap_future(self.submit(work, job))
        going = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({doing, going}, return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                raise Stopped
            return doing.result()
        except asyncio.CancelledError:  # one that is started again in its place may answer
            raise Refused(503, "the server ends") from None
        finally:
            going.cancel()
            job.stop()
            doing.cancel()

    def settle(self, seconds: float) -> None:
        """Wait until all that was submitted is done or stopped, so long at most: an interpreter
        that ends while a thread computes may crash."""
        with suppress(TimeoutError, Refused):
            self.submit(lambda job: None).result(seconds)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                future, job, work = self._waiting.popleft()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work(job))
                except BaseException as error:
                    future.set_exception(error)
            del future, job, work  # and what they hold, while there is nothing to do


async def _gone(receive: Receive) -> None:
    """Until the client has closed its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
