"""A sheet of what methods of a benchmark draw for the same prompts: what no mean z tells.

    python scripts/research/benchmark_alignment.py --out runs/alignment
    python scripts/research/method_samples.py --report runs/alignment --out samples.png \\
        --methods "RiC online" DDPO "reward-conditioned DDPO"

Each method has a row for its first, middle and last preference, each prompt a column with the first
of its samples, none of them chosen.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from benchmark import title_of
from ric_diffusion.api.paths import check_out_file
from ric_diffusion.data.images import png_bytes
from ric_diffusion.data.medium import IMAGE, read_named
from ric_diffusion.evaluation.report.sheet import draw_sheet
from ric_diffusion.evaluation.runner import DRAW_AGAIN, METHODS, VERB, file_of, folder_of
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import write_bytes
from ric_diffusion.io.run import RunFolder

MOST_PROMPTS = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--report", type=Path, required=True, metavar="FOLDER",
                        help="the benchmark's --out")  # fmt: skip
    parser.add_argument("--methods", nargs="+", required=True, metavar="NAME")
    parser.add_argument("--prompts", type=int, default=12, metavar="N", help="the first of them")
    parser.add_argument("--out", type=Path, required=True, metavar="PNG", help="is written")
    options = parser.parse_args()
    try:
        if not 1 <= options.prompts <= MOST_PROMPTS:
            raise InputError(f"--prompts {options.prompts}: give 1 to {MOST_PROMPTS}")
        check_out_file(options.out)
        sheet = sheet_of(options.report, options.methods, options.prompts)
        write_bytes(options.out, png_bytes(sheet))
    except InputError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(options.out)


def sheet_of(report: Path, methods: Sequence[str], count: int) -> Image.Image:
    """The sheet. InputError for a method that ``report`` has no samples of, or whose prompts, seeds
    and preferences are not the first one's."""
    stored = [_stored(report, name) for name in methods]
    asked = [_asked(one) for one in stored]
    for name, one in zip(methods, asked, strict=True):
        if not one[0]:
            raise InputError(f"{name}: was asked for no preference; leave it out")
        if one != asked[0]:
            raise InputError(f"{name}: was not asked for the same as {methods[0]}; leave it out")
    preferences, prompts, seeds = asked[0]
    ends = [preferences[0], preferences[len(preferences) // 2], preferences[-1]]
    rows, titles = [], []
    for name in methods:
        folder = folder_of(report, name)
        for point, preference in ends:
            firsts = [(q, own[0]) for q, own in enumerate(seeds[:count])]
            paths = [folder / file_of(point, q, seed, IMAGE.suffix) for q, seed in firsts]
            rows.append([read_named(path, IMAGE, mend=DRAW_AGAIN) for path in paths])
            titles.append(f"{name}: {title_of(preference)}")
    return draw_sheet(rows, row_titles=titles, captions=[[prompt] for prompt in prompts[:count]])


def _stored(report: Path, name: str) -> dict[str, Any]:
    """What the method's samples were drawn with."""
    run = RunFolder(folder_of(report, name), VERB)
    if not run.begun:
        raise InputError(
            f"{report}: has no samples of {name} in {METHODS}/; give a method that it has"
        )
    run.check_free(resume=True)
    identity: dict[str, Any] = run.stored()["identity"]
    return identity


def _asked(identity: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Preferences with the number of their point, prompts, and seeds by prompt."""
    points = enumerate(identity["points"])
    preferences = [(i, point["preference"]) for i, point in points if point["preference"]]
    return preferences, identity["prompts"], identity["seeds"]


if __name__ == "__main__":
    main()
