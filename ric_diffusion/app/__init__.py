"""``ric app``: the sliders in a browser."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

from ric_diffusion.io.extras import require
from ric_diffusion.io.paths import expanded
from ric_diffusion.io.progress import tracking

if TYPE_CHECKING:
    from ric_diffusion.api.models import Dtype
    from ric_diffusion.models.checkpoint import ModelName


def run_app(
    model: ModelName,
    adapter: str | Path | None = None,
    *,
    dtype: Dtype = "float32",
    port: int = 7860,
    report: str | Path | None = None,
) -> None:
    """Serve the app on this machine alone until it is interrupted, with a bar while it loads, and
    open it in the browser where there is a screen and a terminal.

    ``report``: a folder of ``evaluate``, whose front is shown to choose from. InputError without
    gradio, and for a model without sliders, a port in use, or a report of something else.
    """
    require("app", "app")
    with tracking("loading", 3, unit="part") as tracker:
        from ric_diffusion.app.choice import ModelChoice
        from ric_diffusion.app.engine import Engine
        from ric_diffusion.app.front import read_front
        from ric_diffusion.app.presets import Presets, presets_path
        from ric_diffusion.app.server import check_port, serve

        check_port(port)
        choice = ModelChoice.of(model, adapter, dtype)
        tracker.advance()
        engine = Engine(choice.load(), choice)
        tracker.advance()
        front = read_front(expanded(report), engine.adapter) if report else None
        import ric_diffusion.app.layout  # noqa: F401  # gradio, which takes seconds

        tracker.advance()
    serve(engine, front, port, Presets(presets_path()), started)


def started(address: str) -> None:
    """Say where the app is, and show it to who sits in front of it."""
    print(address, flush=True)
    screen = sys.platform in ("win32", "darwin") or {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ)
    if sys.stdout.isatty() and screen:
        webbrowser.open(address)
