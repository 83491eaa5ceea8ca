"""Serving the page: to this machine alone, without a word to any other."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path
from typing import Any

from ric_diffusion.app.engine import Engine
from ric_diffusion.app.front import Front
from ric_diffusion.app.jobs import ModelThread
from ric_diffusion.io.errors import InputError

HOST = "127.0.0.1"
WAITING = 32  # requests in the queue; the next is told that it is full
UPLOAD = "32mb"
LOOK_EVERY = 0.003  # s
FONT = ("system-ui", "sans-serif")


class OnlyFiles:
    """Refuses what Gradio's routes would fetch from other machines."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path", "").lower()
        if "/proxy=" in path or "/file=http" in path:
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body", "body": b"not served here"})
            return
        await self.app(scope, receive, send)


def check_port(port: int) -> None:
    """InputError unless nobody listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError):
            raise InputError(f"port {port}: cannot be used, choose another") from None


def serve(engine: Engine, front: Front | None, port: int) -> None:
    """Serve until an interruption, which is raised on when the server and its folder are gone."""
    with tempfile.TemporaryDirectory(prefix="ric-app-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # all that Gradio writes, and all that it serves
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        for name in ("NO_PROXY", "no_proxy"):  # Gradio looks whether its own page is there
            os.environ[name] = ",".join(filter(None, [os.environ.get(name), HOST]))
        thread = ModelThread()
        app = launch(engine, front, port, Path(folder), thread)
        try:
            print(f"http://{HOST}:{port}", flush=True)
            thread.serve()  # in this thread, which loaded the model
        finally:
            app.close(verbose=False)


def launch(
    engine: Engine, front: Front | None, port: int, folder: Path, thread: ModelThread
) -> Any:
    """Start serving in threads of its own, while the engine computes in ``thread``; returns the
    blocks, to close."""
    import gradio as gr
    from starlette.middleware import Middleware

    from ric_diffusion.app import gradio_seam
    from ric_diffusion.app.handlers import Handlers
    from ric_diffusion.app.layout import build
    from ric_diffusion.app.page import KEYS, STYLE

    gradio_seam.refuse_downloads()
    app = build(Handlers(engine, front, folder, thread))
    app.queue(max_size=WAITING, default_concurrency_limit=8)
    gradio_seam.look_for_work_every(app, LOOK_EVERY)
    app.launch(
        server_name=HOST,
        server_port=port,
        share=False,
        prevent_thread_lock=True,
        quiet=True,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        enable_monitoring=False,
        max_file_size=UPLOAD,
        app_kwargs={"middleware": [Middleware(OnlyFiles)]},
        theme=gr.themes.Default(font=FONT, font_mono=("ui-monospace", "monospace")),
        css=STYLE,
        head=KEYS,
    )
    return app
