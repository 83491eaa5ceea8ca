"""``serve_scorers``: scorers for other processes and machines, which ask them by ``remote``."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from ric_diffusion.api.labelling import ScorerLike, loaded_scorers
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.extras import require
from ric_diffusion.io.paths import expanded
from scorers.remote_client import TOKEN, is_loopback

HOST, PORT = "127.0.0.1", 8000
CONNECTIONS = 32  # at once; more are told to come again
LAST_ANSWERS = 2  # s that what is being scored may take when the server ends


def serve_scorers(
    scorers: Sequence[ScorerLike],
    *,
    host: str = HOST,
    port: int = PORT,
    root: Sequence[str | Path] = (),
    without_token: bool = False,
    started: Callable[[str], None] = print,
) -> None:
    """Serve scorers until an interruption, which is raised on.

    Whoever asks needs the token that is in the environment variable RIC_SCORER_TOKEN here; without
    one, only this machine is served.

    Args:
        scorers: names with their options, or scorers; with one, ``remote:url=http://HOST:PORT``
            asks it, with several, ``remote:url=http://HOST:PORT/scorers/NAME``.
        host: the address to listen on.
        port: 0 takes any free one.
        root: folders; pictures in or below them are read where a request names their path.
        without_token: serve other machines although there is no token.
        started: called with one line when the server answers.

    InputError if the address cannot be used, or would be open to other machines without a token.
    """
    require("scale", "serve-scorer", "fastapi", "uvicorn")
    import uvicorn

    from ric_diffusion.api.scorer_app import build_app

    token = os.environ.get(TOKEN, "")
    if re.search(r"[^\x21-\x7e]", token):
        raise InputError(f"{TOKEN}: must be ASCII without spaces")
    if not token and not is_loopback(host) and not without_token:
        raise InputError(
            f"host {host}: other machines would be served without a token; export {TOKEN}, or give "
            f"--without-token"
        )
    roots = [expanded(folder) for folder in root]
    for folder in roots:
        if not folder.is_dir():
            raise InputError(f"root {folder}: no such folder")
    with _listening(host, port) as listener:  # before models are loaded
        using = loaded_scorers(scorers)
        names = [scorer.name for scorer in using]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise InputError(f"scorers: {twice[0]} is given twice; give one of them called=…")
        app = build_app(using, token=token, roots=roots)
        address = f"[{host}]" if ":" in host else host
        config = uvicorn.Config(
            app,
            log_level="critical",  # what fails is logged by the app; the rest ends with the server
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=LAST_ANSWERS,
            server_header=False,
        )
        # The socket listens already, so whoever comes between this line and the next waits.
        started(f"http://{address}:{listener.getsockname()[1]} serves {', '.join(names)}")
        uvicorn.Server(config).run(sockets=[listener])


def _listening(host: str, port: int) -> socket.socket:
    """A socket at the address. InputError if it cannot be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise InputError(
            f"port {port}: cannot be listened on at host {host} "
            f"({getattr(error, 'strerror', None) or error}); choose another"
        ) from None
