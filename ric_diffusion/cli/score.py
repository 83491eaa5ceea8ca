"""``ric score``: print the scores of pictures."""

from __future__ import annotations

import argparse
import json
import sys

from ric_diffusion import api
from ric_diffusion.cli.arguments import printable
from ric_diffusion.cli.options import quietly


def run(options: argparse.Namespace) -> None:
    table = api.score(options.paths, options.scorers, progress=quietly())
    for path, reason in table.unreadable.items():
        print(printable(f"ric score: {path}: {reason}; skipped"), file=sys.stderr)
    if options.json:
        for row in table.rows():
            print(json.dumps(row))
        return
    columns = zip(table.names, table.units, strict=True)
    print("\t".join(["file", *(f"{name} ({unit})" for name, unit in columns)]))
    for path, scores in zip(table.files, table.scores.tolist(), strict=True):
        print("\t".join([printable(str(path)), *(f"{value:.4f}" for value in scores)]))
