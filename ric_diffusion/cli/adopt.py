"""``ric adopt``: sliders for a model that others fine-tuned on reward words."""

from __future__ import annotations

import argparse

from ric_diffusion import api
from ric_diffusion.cli.options import checkpoint_of, sampling_of


def run(options: argparse.Namespace) -> None:
    found = api.adopt(
        checkpoint_of(options),
        options.rewards,
        options.out,
        denoiser=options.denoiser,
        grammar=options.grammar,
        labels=options.labels,
        separator=options.separator,
        statistics=options.statistics,
        labelled=options.labelled,
        mapping=options.mapping,
        sampling=sampling_of(options),
        dtype=options.dtype,
    )
    print(found.adapter)
    if options.denoiser:
        print(f"{found.model}: {found.size / 1e9:.2f} GB")
