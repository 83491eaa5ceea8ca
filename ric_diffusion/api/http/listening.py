"""Where a server listens, who may ask it, and how it ends."""

from __future__ import annotations

import os
import re
import socket

from ric_diffusion.api.http.guard import ASGI, Hosts
from ric_diffusion.io.errors import InputError
from scorers.remote_client import is_loopback

HOST = "127.0.0.1"
CONNECTIONS = 64  # at once; more are told to come again
LAST_ANSWERS = 2  # s that what is under way may take when the server ends


def token_in(variable: str) -> str:
    """The token of the environment, "" if there is none. InputError for one that no header can
    hold."""
    token = os.environ.get(variable, "")
    if re.search(r"[^\x21-\x7e]", token):
        raise InputError(f"{variable}: must be ASCII without spaces")
    return token


def hosts_of(host: str, token: str) -> Hosts:
    """Which names a server at this address answers to. With a token a page cannot ask it, whatever
    name it gives to it."""
    if is_loopback(host):
        return "loopback"
    return "any" if token else "addresses"


def listening(host: str, port: int) -> socket.socket:
    """A socket at the address. InputError if it cannot be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise InputError(
            f"port {port}: cannot be listened on at host {host} "
            f"({getattr(error, 'strerror', None) or error}); choose another"
        ) from None


def address_of(host: str, listener: socket.socket) -> str:
    """What to type to reach it."""
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{listener.getsockname()[1]}"


def answer_until_interrupted(app: ASGI, listener: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM, which is raised on when the last answers are given."""
    import uvicorn

    from ric_diffusion.api.http.connections import TimedProtocol

    config = uvicorn.Config(
        app,
        http=TimedProtocol,
        ws="none",
        lifespan="off",
        log_level="critical",  # what fails is logged by the app; the rest ends with the server
        access_log=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=LAST_ANSWERS,
        proxy_headers=False,  # an address that a client claims is not the one that is counted
        server_header=False,
    )
    uvicorn.Server(config).run(sockets=[listener])
