"""``ric train``: supervised fine-tuning, from a labelled folder to an adapter."""

from __future__ import annotations

import argparse

from ric_diffusion import api


def run(options: argparse.Namespace) -> None:
    result = api.train(
        options.config,
        out=options.out,
        resume=options.resume,
        push_to_hub=options.push_to_hub,
    )
    if api.is_main_process():
        print(result.adapter)
        if result.url:
            print(result.url)
    api.leave_processes()
