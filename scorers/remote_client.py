"""HTTP to one server: bounded in time and size, retried, and to no other server than that."""

from __future__ import annotations

import http.client
import ipaddress
import itertools
import logging
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn
from urllib.parse import SplitResult, urlsplit

from scorers.base import ScorerError, WeightsError, first_line
from scorers.remote_schema import Message, Problem, parse

TOKEN = "RIC_SCORER_TOKEN"
HOSTS = "RIC_SCORER_HOSTS"
BUSY = (429, 502, 503, 504)  # a later try may be answered
BACKOFF = 0.5  # s before the second try; twice as long before each one after it
LONGEST_WAIT = 60.0  # s, whatever a server asks for
_CHUNK = 65536
_SHOWN = 300  # characters of what a server says

_log = logging.getLogger(__name__)


class Busy(Exception):
    """A try that failed, and may be repeated: why, and after how many seconds at least."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class Stop:
    """Ends what several threads ask, once, from another thread."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._connections: set[http.client.HTTPConnection] = set()

    def set(self) -> None:
        """What is asked fails now, what is to be asked later at once."""
        self._event.set()
        with self._lock:
            for connection in self._connections:
                if connection.sock is not None:
                    with suppress(OSError):  # it ended by itself in the meantime
                        connection.sock.shutdown(socket.SHUT_RDWR)

    def is_set(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> None:
        """So long, or until it is set."""
        self._event.wait(seconds)

    @contextmanager
    def watching(self, connection: http.client.HTTPConnection) -> Iterator[None]:
        """Inside the block the connection is one that is ended; it is closed behind it."""
        with self._lock:
            self._connections.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._connections.discard(connection)
            connection.close()


class Client:
    """Asks the server at ``url``; may be used by several threads at once.

    The token is read from the environment variable, goes into the header of requests to this
    server alone, and is nowhere else. Redirects are not followed, proxies not used.
    """

    def __init__(
        self, url: str, *, token_variable: str, timeout: float, retries: int, where: str
    ) -> None:
        """``timeout``: seconds that connecting, sending, waiting and reading may take, each;
        ``retries``: how often a request is repeated; ``where`` begins errors."""
        self._where = where
        self._parts = check_url(url, where)
        self.url = url.rstrip("/")
        self._token = _token(token_variable, where)
        self._token_variable = token_variable
        self._timeout = timeout
        self._retries = retries
        host = self._parts.hostname or ""
        if self._token and self._parts.scheme == "http" and not is_loopback(host):
            _log.warning(
                "%s: the token goes to %s unencrypted, for all on the way to read; use https, or "
                "a tunnel to this machine",
                where,
                host,
            )

    def ask(
        self,
        expected: type[Message],
        body: bytes | None = None,
        *,
        most_bytes: int,
        stop: Stop | None = None,
    ) -> Message:
        """What the server answers to GET, or with a ``body`` to POST.

        ScorerError if it answers anything else, or more than ``most_bytes``; WeightsError if it
        does not answer.
        """
        found = self._answer(body, most_bytes, stop or Stop())
        try:
            return parse(expected, found)
        except ScorerError as error:
            raise ScorerError(
                f"{self._where}: {self.url} answers with no {expected.__name__.lower()} "
                f"({error}); see that it is a server of remote scorers"
            ) from error

    def _answer(self, body: bytes | None, most_bytes: int, stop: Stop) -> bytes:
        """The body of a 200, which some try may bring."""
        for attempt in itertools.count():
            try:
                return self._try(body, most_bytes, stop)
            except Busy as busy:
                if attempt == self._retries or stop.is_set():
                    tries = "once" if attempt == 0 else f"{attempt + 1} times"
                    raise WeightsError(
                        f"{self._where}: {self.url} does not answer ({busy}; tried {tries}); see "
                        f"that the server runs, or raise timeout or retries"
                    ) from busy
                stop.wait(min(max(BACKOFF * 2**attempt, busy.wait), LONGEST_WAIT))
        raise AssertionError("unreachable")

    def _try(self, body: bytes | None, most_bytes: int, stop: Stop) -> bytes:
        """The body of a 200. Busy if another try may help, else ScorerError."""
        connection = self._connect()
        try:
            with stop.watching(connection):
                if stop.is_set():
                    raise Busy("stopped")
                status, headers, found = self._exchange(connection, body, most_bytes)
        except ssl.SSLCertVerificationError as error:
            self._fail(f"cannot be trusted ({first_line(error)}); mend its certificate")
        except (OSError, http.client.HTTPException) as error:
            raise Busy(first_line(error)) from error
        if status == 200:
            return found
        if status in BUSY:
            asked = headers.get("Retry-After", "")
            wait = float(asked) if re.fullmatch("[0-9]{1,6}", asked) else 0.0
            raise Busy(f"status {status}{_said(found)}", wait)
        self._refuse(status, headers, found)

    def _exchange(
        self, connection: http.client.HTTPConnection, body: bytes | None, most_bytes: int
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        connection.connect()
        # A server may refuse before it has read all: then its answer is there nevertheless.
        with suppress(BrokenPipeError, ConnectionResetError):
            method = "GET" if body is None else "POST"
            connection.request(method, self._parts.path or "/", body, headers)
        response = connection.getresponse()
        deadline = time.monotonic() + self._timeout
        found = b""
        while chunk := response.read1(_CHUNK):
            found += chunk
            if len(found) > most_bytes:
                self._fail(f"answers with more than {most_bytes} bytes; that is no answer")
            if time.monotonic() > deadline:
                raise TimeoutError("timed out")
        return response.status, response.headers, found

    def _connect(self) -> http.client.HTTPConnection:
        secure = self._parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        return kind(self._parts.hostname or "", self._parts.port, timeout=self._timeout)

    def _refuse(self, status: int, headers: http.client.HTTPMessage, found: bytes) -> NoReturn:
        if 300 <= status < 400:
            target = shown(headers.get("Location", "elsewhere"))
            self._fail(f"redirects to {target}, which is not followed; give the url of the server")
        if status == 401:
            state = "is not the server's" if self._token else "is not set"
            self._fail(f"wants a token, and {self._token_variable} {state}; export it")
        self._fail(f"refuses: status {status}{_said(found)}")

    def _fail(self, what: str) -> NoReturn:
        raise ScorerError(f"{self._where}: {self.url} {what}")


def check_url(url: Any, where: str) -> SplitResult:
    """The parts of the URL of a server. ScorerError for one that may not be stored or shown."""
    try:
        parts = urlsplit(str(url))
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # no port
        usable = False
    if not usable or re.search(r"[^\x21-\x7e]", str(url)):
        raise ScorerError(f"{where}: url={url!r} is no address; write http://host:port")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        # not shown: what stands there may be a secret
        raise ScorerError(
            f"{where}: url for {parts.hostname} holds a name, a password or a query; urls are "
            f"stored in adapters, put a token into the environment variable {TOKEN}"
        )
    return parts


def check_consented(url: Any, where: str) -> None:
    """WeightsError unless the server is on this machine, or the user's environment names it."""
    host = check_url(url, where).hostname or ""
    consented = {name.strip().lower() for name in os.environ.get(HOSTS, "").split(",")}
    if not is_loopback(host) and host not in consented:
        raise WeightsError(
            f"{where}: would be scored by {url}, which an adapter or labelled folder names; if "
            f"that server may see samples and prompts, export {HOSTS}={host}"
        )


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by its name alone; nothing is looked up."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def shown(text: str) -> str:
    """What others say, as part of a line: its first line, cut, without what steers a terminal."""
    line = next(iter(text.strip().splitlines()), "")
    return "".join(c if c.isprintable() else "?" for c in line[:_SHOWN])


def _said(body: bytes) -> str:
    try:
        return f" ({shown(parse(Problem, body).error)})"
    except ScorerError:
        return ""  # an error page of some proxy


def _token(variable: str, where: str) -> str:
    """Of the environment, "" if there is none.

    Only variables whose names begin alike are read: an adapter names the variable, and must not
    have other secrets sent.
    """
    if not isinstance(variable, str) or not re.fullmatch(f"{TOKEN}(_[A-Z0-9_]+)?", variable):
        raise ScorerError(
            f"{where}: token_variable={variable!r} is not allowed; give {TOKEN}, or {TOKEN}_ and "
            f"more capitals"
        )
    token = os.environ.get(variable, "")
    if re.search(r"[^\x21-\x7e]", token):
        raise ScorerError(f"{where}: {variable} is no token; it must be ASCII without spaces")
    return token
