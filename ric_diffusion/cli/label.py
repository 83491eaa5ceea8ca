"""``ric label``: score a folder of captioned pictures, or of responses to prompts, for training."""

from __future__ import annotations

import argparse
from collections import Counter

from ric_diffusion import api
from ric_diffusion.cli.arguments import printable
from ric_diffusion.cli.options import engine_of
from ric_diffusion.io.counting import counted

SAME = "same as "  # begins a reason that names another file


def _brief(reason: str) -> str:
    """As it is counted."""
    return f"{SAME}an earlier one" if reason.startswith(SAME) else reason


def run(options: argparse.Namespace) -> None:
    report = api.label(
        options.folder,
        options.out,
        options.scorers,
        framing=options.framing,
        resolution=options.resolution,
        captions=options.captions,
        centre_by=options.centre_by,
        shard=options.shard,
        engine=engine_of(options),
    )
    what = counted(report.count, "pictures" if report.medium == "image" else "texts")
    done = f"{what} labelled"
    if options.shard:
        done = f"{what} of part {options.shard[0]}/{options.shard[1]} done"
    for warning in report.warnings:
        print(printable(f"warning: {warning}"))
    print(f"{options.out}: {done}, {len(report.skipped)} skipped")
    for reason, count in Counter(map(_brief, report.skipped.values())).most_common():
        print(printable(f"  {count} {reason}"))
