"""``ric app``: the sliders in a browser, on this machine alone."""

from __future__ import annotations

import argparse

from ric_diffusion.app import run_app
from ric_diffusion.cli.options import checkpoint_of


def run(options: argparse.Namespace) -> None:
    run_app(
        checkpoint_of(options),
        options.adapter,
        dtype=options.dtype,
        port=options.port,
        report=options.report,
    )
