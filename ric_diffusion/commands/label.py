"""``ric label``: score a folder of captioned pictures, or of responses to prompts, for training."""

from __future__ import annotations

import argparse
from collections import Counter

import scorers
from ric_diffusion.data.label import label_folder


def run(options: argparse.Namespace) -> None:
    using = [scorers.load(spec) for spec in options.scorers]
    report = label_folder(options.folder, options.out, using)
    what = "pictures" if report.medium == "image" else "texts"
    print(f"{options.out}: {report.kept} {what} labelled, {len(report.skipped)} skipped")
    for reason, count in Counter(report.skipped.values()).most_common():
        print(f"  {count} {reason}")
