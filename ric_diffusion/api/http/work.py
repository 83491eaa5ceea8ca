"""Work that requests wait for: a bounded number of them, none for a client that has gone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from ric_diffusion.api.http.guard import Receive, Refused
from ric_diffusion.api.work import Full, Job, Stopped, Work, WorkQueue

WAITING = 32  # pieces of work; one more is told to come again


class WorkThread:
    """Does what is submitted in a thread of its own. A daemon: a server that is interrupted does
    not wait for it."""

    def __init__(self, most: int = WAITING) -> None:
        self._most = most
        self.queue = WorkQueue(most)
        threading.Thread(target=self.queue.serve, daemon=True).start()

    def submit(self, work: Work) -> Future[Any]:
        """``work()``, later. Refused if as many wait as may."""
        try:
            return self.queue.submit(work)
        except Full:
            raise Refused(
                503, f"{self._most} requests wait already; try again later", retry_after="1"
            ) from None

    async def answer(self, work: Callable[[Job], Any], receive: Receive) -> Any:
        """What the work returns or raises. Stopped, and the work with it, if the client goes before
        that; Refused if the server ends before it."""
        job = Job()
        doing = asyncio.wrap_future(self.submit(lambda: work(job)))
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
            self.submit(lambda: None).result(seconds)


async def _gone(receive: Receive) -> None:
    """Until the client has closed its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
