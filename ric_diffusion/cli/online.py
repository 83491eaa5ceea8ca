"""``ric online``: rounds of sampling, scoring, selecting and fine-tuning, from an adapter on."""

from __future__ import annotations

import argparse

from ric_diffusion import api
from ric_diffusion.cli.options import engine_of


def run(options: argparse.Namespace) -> None:
    result = api.online(
        options.config,
        out=options.out,
        resume=options.resume,
        push_to_hub=options.push_to_hub,
        engine=engine_of(options),
    )
    if api.is_main_process():
        print(result.adapter)
        if result.url:
            print(result.url)
    api.leave_processes()
