"""``ric serve``: a model for other programs, over HTTP."""

from __future__ import annotations

import argparse

from ric_diffusion import api
from ric_diffusion.cli.options import checkpoint_of


def run(options: argparse.Namespace) -> None:
    api.serve(
        checkpoint_of(options),
        adapter=options.adapter,
        dtype=options.dtype,
        host=options.host,
        port=options.port,
        started=lambda line: print(line, flush=True),
    )
