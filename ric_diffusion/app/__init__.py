"""``ric app``: the sliders in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ric_diffusion.io.extras import require
from ric_diffusion.io.paths import expanded

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
    """Serve the app on this machine alone until it is interrupted.

    ``report``: a folder of ``evaluate``, whose front is shown to choose from. InputError without
    gradio, and for a model without sliders, a port in use, or a report of something else.
    """
    require("app", "app")
    from ric_diffusion.api import Checkpoint, load
    from ric_diffusion.app.engine import Engine
    from ric_diffusion.app.front import read_front
    from ric_diffusion.app.server import check_port, serve

    check_port(port)
    engine = Engine(load(model, adapter, dtype=dtype), Checkpoint.of(model).model)
    front = read_front(expanded(report), engine.adapter) if report else None
    serve(engine, front, port)
