"""``ric sweep``: one prompt and seed along a line of preferences or of one reward's targets."""

from __future__ import annotations

import argparse

from ric_diffusion import api
from ric_diffusion.cli.options import checkpoint_of, sampling_of


def run(options: argparse.Namespace) -> None:
    if options.mapping is not None and options.along is not None:
        raise api.InputError(
            "--mapping: makes targets of a preference, and --along moves one reward"
        )
    found = api.sweep(
        checkpoint_of(options),
        options.prompt,
        adapter=options.adapter,
        points=options.points,
        along=options.along,
        seed=options.seed,
        refine=options.refine,
        mapping=options.mapping,
        sampling=sampling_of(options),
        dtype=options.dtype,
        device=options.device,
        out=options.out,
    )
    print(found.path)
