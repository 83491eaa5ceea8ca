"""``ric init``: a training config to begin with."""

from __future__ import annotations

import argparse

from ric_diffusion import api


def run(options: argparse.Namespace) -> None:
    print(api.recipe(options.recipe), end="")
