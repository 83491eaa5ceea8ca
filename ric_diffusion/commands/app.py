"""``ric app``: the sliders in a browser, on this machine alone."""

from __future__ import annotations

import argparse
from importlib.util import find_spec

from ric_diffusion.app.engine import Engine
from ric_diffusion.app.front import read_front
from ric_diffusion.app.server import check_port, serve
from ric_diffusion.commands.model import load_model, require_adapter
from ric_diffusion.errors import InputError


def run(options: argparse.Namespace) -> None:
    if find_spec("gradio") is None:
        raise InputError("gradio is not installed: pip install 'ric-diffusion[app]'")
    check_port(options.port)
    model = load_model(options.model, options.adapter)
    require_adapter(model, options.model)
    front = read_front(options.report, model.adapter) if options.report else None
    serve(Engine(model, options.model), front, options.port)
