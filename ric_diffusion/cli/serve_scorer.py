"""``ric serve-scorer``: scorers for other processes and machines."""

from __future__ import annotations

import argparse

from ric_diffusion import api


def run(options: argparse.Namespace) -> None:
    api.serve_scorers(
        options.scorers,
        host=options.host,
        port=options.port,
        root=options.root,
        without_token=options.without_token,
        started=lambda line: print(line, flush=True),
    )
