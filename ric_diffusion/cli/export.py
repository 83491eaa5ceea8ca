"""``ric export``: an adapter's LoRA for other programs."""

from __future__ import annotations

import argparse

from ric_diffusion import api


def run(options: argparse.Namespace) -> None:
    print(api.export(options.adapter, options.out, options.format))
