"""Serving the page: to this machine alone, without a word to any other."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ric_diffusion.api.http.guard import (
    Bodies,
    Rates,
    Refused,
    check_site,
    headers_of,
    refuse,
    replayed,
)
from ric_diffusion.api.work import WorkQueue
from ric_diffusion.app.choice import ModelChoice
from ric_diffusion.app.engine import Engine
from ric_diffusion.app.front import Front
from ric_diffusion.app.presets import Presets
from ric_diffusion.io.errors import InputError

HOST = "127.0.0.1"
WAITING = 32  # requests in the queue; the next is told that it is full
UPLOAD = "32mb"  # of a file
MAX_BYTES = 33 * 2**20  # of a request
QUOTA = 2**30  # bytes of all that is dropped on the app and written by it while it runs
RATE = 500  # requests a second from one address; a page is a hundred
LOOK_EVERY = 0.003  # s
FONT = ("system-ui", "sans-serif")


class OnlyOurs:
    """Refuses what Gradio's routes would fetch from other machines, what the pages of others ask
    for in the browser of who uses the app, and what would fill the memory or ``folder``, where
    uploads lie until the app ends."""

    def __init__(self, app: Any, folder: Path) -> None:
        self.app, self._folder = app, folder
        self._bodies, self._rates = Bodies(MAX_BYTES), Rates(RATE)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path", "").lower()
        body = bytearray()
        try:
            if "/proxy=" in path or "/file=http" in path:
                raise Refused(403, "not served here")
            if scope["type"] == "http":
                headers = headers_of(scope)
                check_site(headers, "loopback")
                if not self._rates.allow((scope.get("client") or ("",))[0]):
                    raise Refused(429, "too many requests; try again later", retry_after="1")
                if scope["method"] in ("POST", "PUT", "PATCH"):
                    await self._bodies.read(body, headers, receive)
                    if "/upload" in path and _size(self._folder) + len(body) > QUOTA:
                        raise Refused(413, f"{QUOTA} bytes are dropped here; start the app anew")
                    receive = replayed(bytes(body), receive)
            await self.app(scope, receive, send)
        except Refused as refused:
            await refuse(refused, send)
        except FileNotFoundError:  # a picture of a page that was closed while it was sent
            if "/file=" not in path:
                raise
        finally:
            self._bodies.give(body)


def _size(folder: Path) -> int:
    """Bytes of all files in it, which others may remove meanwhile."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.path.getsize(os.path.join(place, name))
    return total


def check_port(port: int) -> None:
    """InputError unless nobody listens there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError):
            raise InputError(f"port {port}: cannot be used, choose another") from None


def serve(
    engine: Engine,
    front: Front | None,
    port: int,
    presets: Presets,
    started: Callable[[str], None] = print,
) -> None:
    """Serve until an interruption, which is raised on when the server and its folder are gone;
    ``started`` is called with the address once it answers."""
    with tempfile.TemporaryDirectory(prefix="ric-app-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # all that Gradio writes, and all that it serves
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        for name in ("NO_PROXY", "no_proxy"):  # Gradio looks whether its own page is there
            os.environ[name] = ",".join(filter(None, [os.environ.get(name), HOST]))
        thread = WorkQueue()
        app = launch(engine, front, port, Path(folder), thread, presets)
        try:
            started(f"http://{HOST}:{port}")
            thread.serve()  # in this thread, which loaded the model
        finally:
            app.close(verbose=False)


def launch(
    engine: Engine,
    front: Front | None,
    port: int,
    folder: Path,
    thread: WorkQueue,
    presets: Presets,
) -> Any:
    """Start serving in threads of its own, while the engine computes in ``thread``; returns the
    blocks, to close."""
    import gradio as gr
    from starlette.middleware import Middleware

    from ric_diffusion.app import gradio_seam
    from ric_diffusion.app.handlers import Handlers
    from ric_diffusion.app.layout import build
    from ric_diffusion.app.page import HEAD, STYLE

    handlers: Handlers

    def change(choice: ModelChoice) -> None:
        """Show another model from the next time that the page is loaded."""
        nonlocal handlers
        before, other = handlers, handlers.engine.exchanged(choice)
        kept = front if front and front.names == frozenset(other.space.names) else None
        handlers = Handlers(other, kept, folder, thread, presets, change)
        gradio_seam.show_instead(app, build(handlers))
        before.galleries.clear()

    handlers = Handlers(engine, front, folder, thread, presets, change)
    gradio_seam.refuse_downloads()
    app = build(handlers)
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
        app_kwargs={"middleware": [Middleware(OnlyOurs, folder=folder)]},
        theme=_theme(gr.themes),
        css=STYLE,
        head=HEAD,
    )
    gradio_seam.end_slow_connections(app)
    return app


def _theme(themes: Any) -> Any:
    """Gradio's own, with text that has the contrast of WCAG 2.2 AA on everything."""
    theme = themes.Default(font=FONT, font_mono=("ui-monospace", "monospace"))
    return theme.set(
        color_accent="*primary_700",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_label_text_color="*neutral_700",
        block_title_text_color="*neutral_700",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        slider_color="*primary_700",
        slider_color_dark="*primary_500",
    )
