"""What is refused before a server reads it: foreign hosts, pages of other sites, wrong tokens, too
many requests, bodies that are too large or too slow. Each refusal is one line of JSON.

A page of any site can have a browser on this machine send requests here, and by DNS rebinding (its
own name, pointed at 127.0.0.1) read the answers as well. Such a request names that site in Host or
in Origin, so both are looked at.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import re
import socket
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Literal

from scorers.remote_client import is_loopback, shown

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGI = Callable[[Scope, Receive, Send], Awaitable[None]]
Hosts = Literal["loopback", "addresses", "any"]

BURST = 2  # seconds' worth of requests that one address may send at once
ADDRESSES = 4096  # whose requests are counted
BODIES = 4  # of the largest size: what all requests that are under way may hold together
GRACE = 10.0  # s a body may take, and beyond that …
SLOWEST = 100_000  # … as long as so many bytes a second have come on average


class Refused(Exception):
    """A request is answered with a status, one line, and nothing else."""

    def __init__(self, status: int, line: str, **headers: str) -> None:
        super().__init__(line)
        self.status, self.line = status, line
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Guard:
    """An ASGI application in front of another one, which sees only what passes.

    ``token``: what all but the ``open_paths`` want, unless it is empty. ``hosts``: which names the
    server answers to: those of this machine's loopback, any address in digits beside them, or any.
    ``rate``: requests a second from one address. ``max_bytes``: of a body, which is read whole
    before the other application is called.
    """

    def __init__(
        self,
        app: ASGI,
        *,
        token: str = "",
        hosts: Hosts = "any",
        rate: int,
        max_bytes: int,
        open_paths: frozenset[str] = frozenset({"/health"}),
    ) -> None:
        self._app = app
        self._wanted = f"Bearer {token}".encode() if token else b""
        self._hosts = hosts
        self._open_paths = open_paths
        self._bodies = Bodies(max_bytes)
        self._rates = Rates(rate)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # uvicorn is told to speak no other protocol
            await self._app(scope, receive, send)
            return
        headers = headers_of(scope)
        body = bytearray()
        try:
            self._check(scope, headers)
            if scope["method"] == "POST":
                await self._bodies.read(body, headers, receive)
            await self._app(scope, replayed(bytes(body), receive), send)
        except Refused as refused:
            await refuse(refused, send)
        finally:
            self._bodies.give(body)

    def _check(self, scope: Scope, headers: Mapping[str, str]) -> None:
        check_site(headers, self._hosts)
        address = (scope.get("client") or ("",))[0]
        if not self._rates.allow(address):
            raise Refused(
                429,
                f"more than {self._rates.rate} requests a second; try again later",
                retry_after="1",
            )
        given = headers.get("authorization", "").encode("latin-1")
        told = hmac.compare_digest(given, self._wanted) or not self._wanted
        if not told and scope["path"] not in self._open_paths:
            raise Refused(401, "wrong or no token", www_authenticate="Bearer")
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if scope["method"] == "POST" and kind != "application/json":
            # A page in a browser cannot send this type to another site unless that agrees.
            raise Refused(415, "content-type must be application/json")


class Bodies:
    """Reads bodies whole, up to the limits and no further: ``max_bytes`` of each, and BODIES times
    that of all that are under way."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held = 0

    async def read(self, body: bytearray, headers: Mapping[str, str], receive: Receive) -> None:
        """Append what comes to ``body``, which is to be given back with ``give``. Refused for what
        is too large or too slow."""
        too_large = Refused(413, f"the request has more than {self._max_bytes} bytes")
        declared = headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared) > self._max_bytes:
            raise too_large
        start = time.monotonic()
        more = True
        while more:
            left = start + GRACE + len(body) / SLOWEST - time.monotonic()
            try:
                message = await asyncio.wait_for(receive(), left)
            except TimeoutError:
                raise Refused(408, "the request takes too long to arrive") from None
            if message["type"] == "http.disconnect":
                raise Refused(400, "the request ends before its end")
            chunk = message.get("body", b"")
            if self._held + len(chunk) > BODIES * self._max_bytes:
                raise Refused(503, "too much is being sent; try again later", retry_after="1")
            body += chunk
            self._held += len(chunk)
            if len(body) > self._max_bytes:
                raise too_large
            more = message.get("more_body", False)

    def give(self, body: bytearray) -> None:
        """It is answered."""
        self._held -= len(body)


class Rates:
    """A token bucket for each address: ``rate`` requests a second, BURST times that at once."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def allow(self, address: str) -> bool:
        """Whether one more request of this address is to be answered now."""
        now = time.monotonic()
        most = float(BURST * self.rate)
        left, since = self._left.pop(address, (most, now))
        left = min(most, left + (now - since) * self.rate)
        allowed = left >= 1
        self._left[address] = (left - allowed, now)
        while len(self._left) > ADDRESSES:
            self._left.popitem(last=False)
        return allowed


def headers_of(scope: Scope) -> dict[str, str]:
    """Those of a request, by their names in small letters."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def check_site(headers: Mapping[str, str], hosts: Hosts) -> None:
    """Refused for a request to a host that the server does not answer to, and for one of a page of
    another site; ``headers`` by their names in small letters."""
    host = headers.get("host", "")
    name = _PORT.sub("", host).strip("[]").lower()
    if not (hosts == "any" or is_loopback(name) or (hosts == "addresses" and _is_own(name))):
        raise Refused(403, f"host {shown(host)!r} is none of this server's names")
    origin = headers.get("origin")
    if origin is not None and origin.lower() not in (f"{s}://{host}".lower() for s in _SCHEMES):
        raise Refused(403, f"pages of {shown(origin)!r} are not answered")


async def refuse(refused: Refused, send: Send) -> None:
    """Answer with the one line."""
    body = json.dumps({"error": refused.line}).encode()
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        **refused.headers,
    }
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refused.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})


def replayed(body: bytes, receive: Receive) -> Receive:
    """What gives a body that was read already, and then what comes after it."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return messages.pop() if messages else await receive()

    return next_message


_SCHEMES = ("http", "https")
_PORT = re.compile(r":[0-9]*$")


def _is_own(name: str) -> bool:
    """Whether no site can have this name: it is an address, or this machine's."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name == socket.gethostname().lower()
    return True
