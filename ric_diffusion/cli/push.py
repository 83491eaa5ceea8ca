"""``ric push``: an adapter folder to the hub."""

from __future__ import annotations

import argparse

from ric_diffusion import api


def run(options: argparse.Namespace) -> None:
    print(api.push(options.adapter, options.to))
