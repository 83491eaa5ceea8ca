"""``ric app``: the sliders in a browser, on this machine alone."""

from __future__ import annotations

import argparse

from ric_diffusion.app import run_app


def run(options: argparse.Namespace) -> None:
    run_app(options.model, options.adapter, port=options.port, report=options.report)
