"""Connections that do not wait for ever: uvicorn's, with a time for a request's head to arrive and
for an answer to be read."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD = 10.0  # s from the first byte of a request, or the connection, to the end of its headers
READING = 60.0  # s that an answer may lie here unread


class TimedProtocol(H11Protocol):
    """Ends a connection whose other end takes too long. uvicorn itself closes only those that say
    nothing between two requests."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._head: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reading = self.loop.call_later(READING, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        _cancel(self._reading)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        _cancel(self._head)
        _cancel(self._reading)

    def _watch(self) -> None:
        """Time runs while no request is being answered, whatever comes meanwhile: half a head, or
        the rest of a body that was refused."""
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering:
            _cancel(self._head)
            self._head = None
        elif self._head is None:
            self._head = self.loop.call_later(HEAD, self.transport.abort)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
