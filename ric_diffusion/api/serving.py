"""``serve``: a model for programs of any kind, over HTTP. ``serve_scorers``: scorers for other
processes and machines, which ask them by ``remote``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ric_diffusion.api.http.listening import (
    HOST,
    LAST_ANSWERS,
    address_of,
    answer_until_interrupted,
    hosts_of,
    listening,
    token_in,
)
from ric_diffusion.api.http.work import WorkThread
from ric_diffusion.api.labelling import ScorerLike, loaded_scorers
from ric_diffusion.api.models import Dtype
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.extras import require
from ric_diffusion.io.paths import expanded
from ric_diffusion.models.checkpoint import ModelName
from scorers.remote_client import TOKEN, is_loopback

PORT, MODEL_PORT = 8000, 8080
MODEL_TOKEN = "RIC_SERVE_TOKEN"


def serve(
    model: ModelName = "emoji-64",
    *,
    adapter: Sequence[str | Path] = (),
    dtype: Dtype = "float32",
    host: str = HOST,
    port: int = MODEL_PORT,
    started: Callable[[str], None] = print,
) -> None:
    """Serve a model over HTTP until an interruption, which is raised on: POST /generate, /sweep and
    /score, GET /adapters, all of them described at / and in /openapi.json.

    Whoever asks needs the token that is in the environment variable RIC_SERVE_TOKEN here; without
    one, only this machine is served.

    Args:
        model: what ``load`` takes.
        adapter: folders or hub ids, of which a request names one; a bundled model has its own.
        dtype: of the model's weights.
        host: the address to listen on.
        port: 0 takes any free one.
        started: called with one line when the server answers.

    InputError for what cannot be loaded, for an address that cannot be used, and for one that would
    be open to other machines without a token.
    """
    require("scale", "serve", "fastapi", "uvicorn")
    from ric_diffusion.api.model_app import build_model_app
    from ric_diffusion.api.served_model import ServedModel

    token = token_in(MODEL_TOKEN)
    if not token and not is_loopback(host):
        raise InputError(
            f"host {host}: other machines would be served without a token; export {MODEL_TOKEN}"
        )
    names = [str(one) for one in adapter]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"adapter {twice[0]}: given twice; keep one of them")
    with listening(host, port) as listener:  # before the model is loaded
        thread = WorkThread()
        # Of a process's threads the first to compute is the fastest: see api/work.py.
        served = thread.submit(lambda: ServedModel(model, names, dtype)).result()
        app = build_model_app(served, thread, token=token, hosts=hosts_of(host, token))
        # The socket listens already, so whoever comes between this line and the next waits.
        started(f"{address_of(host, listener)} serves {served.name}")
        try:
            answer_until_interrupted(app, listener)
        finally:
            thread.settle(LAST_ANSWERS)


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
    from ric_diffusion.api.scorer_app import build_app

    token = token_in(TOKEN)
    if not token and not is_loopback(host) and not without_token:
        raise InputError(
            f"host {host}: other machines would be served without a token; export {TOKEN}, or give "
            f"--without-token"
        )
    roots = [expanded(folder) for folder in root]
    for folder in roots:
        if not folder.is_dir():
            raise InputError(f"root {folder}: no such folder")
    with listening(host, port) as listener:  # before models are loaded
        using = loaded_scorers(scorers)
        names = [scorer.name for scorer in using]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise InputError(f"scorers: {twice[0]} is given twice; give one of them called=…")
        app = build_app(using, token=token, hosts=hosts_of(host, token), roots=roots)
        # The socket listens already, so whoever comes between this line and the next waits.
        started(f"{address_of(host, listener)} serves {', '.join(names)}")
        answer_until_interrupted(app, listener)
