"""``ric sample-prompts``: several pictures of every prompt in a file, to label and to train on."""

from __future__ import annotations

import argparse
from collections import Counter

from ric_diffusion import api
from ric_diffusion.cli.options import checkpoint_of, sampling_of
from ric_diffusion.io.counting import counted


def run(options: argparse.Namespace) -> None:
    found = api.sample_prompts(
        checkpoint_of(options),
        options.prompts,
        options.out,
        adapter=options.adapter,
        count=options.count,
        seed=options.seed,
        shard=options.shard,
        sampling=sampling_of(options),
        dtype=options.dtype,
    )
    of = f" of shard {options.shard[0]}/{options.shard[1]}" if options.shard else ""
    print(
        f"{found.out}: {counted(found.count, 'pictures')} of "
        f"{counted(found.prompts, 'prompts')}{of}, "
        f"{len(found.rejected)} rejected"
    )
    for reason, count in Counter(one.reject_reason for one in found.rejected).most_common():
        print(f"  {count} {reason}")
