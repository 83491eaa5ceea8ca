"""``ric export``: an adapter's LoRA for other programs."""

from __future__ import annotations

import argparse

from ric_diffusion.diffusion.adapter import resolve
from ric_diffusion.diffusion.kohya import export


def run(options: argparse.Namespace) -> None:
    export(resolve(options.adapter), options.out)
    print(options.out)
