"""``ric export``: an adapter's LoRA for other programs."""

from __future__ import annotations

import argparse

from ric_diffusion.commands.paths import check_out_file
from ric_diffusion.diffusion.adapter import resolve
from ric_diffusion.diffusion.kohya import export


def run(options: argparse.Namespace) -> None:
    check_out_file(options.out)
    export(resolve(options.adapter), options.out)
    print(options.out)
