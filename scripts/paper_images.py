"""The table of the image experiment of Rewards-in-Context (arXiv 2402.10207): the mean z of each
reward at 11 preferences, and of the base model beside them.

    python scripts/paper_images.py --model runs/paper-sd15/model --prompts coco.txt --out runs/paper

The paper draws one picture at each preference for each of 1000 captions of COCO, which are not
here: the file of prompts is yours, one to a line. Killed and started again, it goes on. Pictures
are scored and not kept.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ric_diffusion.api import InputError, load
from ric_diffusion.api.models import require_adapter, require_pictures, sampling_arguments
from ric_diffusion.api.paths import check_out_folder
from ric_diffusion.cli.arguments import as_option
from ric_diffusion.data.prompts import read_prompts
from ric_diffusion.data.scoring import load_scorers, scores_of
from ric_diffusion.evaluation.grid import sweep_points
from ric_diffusion.evaluation.metrics import means_of
from ric_diffusion.evaluation.standard import Standard
from ric_diffusion.io import config
from ric_diffusion.io.files import write_json, write_text
from ric_diffusion.io.journal import Journal
from ric_diffusion.io.paths import expanded
from ric_diffusion.io.progress import tracking
from ric_diffusion.io.run import RunFolder
from ric_diffusion.rewards import RewardSpace

BASE = "base model"  # a row of the table
SIZE = ("width", "height")  # of an adapter's sampling, what the base model is drawn with as well


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the table; ``preference`` is empty for the base model, which is asked nothing."""

    preference: Mapping[str, float]
    targets: Mapping[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="what `ric train` wrote, or a base model")
    parser.add_argument("--adapter", help="by default the model's own")
    parser.add_argument("--base", help="to compare with; by default what the model was made from")
    parser.add_argument("--prompts", type=expanded, required=True, help="one to a line")
    parser.add_argument("--out", type=expanded, required=True)
    parser.add_argument("--points", type=int, default=11)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--guidance-scale", type=float, default=7.5)
    parser.add_argument("--seed", type=int, default=0, help="of the first prompt; then one more")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--dtype", choices=["auto", "float32", "float16"], default="auto")
    options = parser.parse_args()
    try:
        print(run(options))
    except InputError as error:
        parser.exit(2, f"{parser.prog}: {as_option(str(error), parser)}\n")


def run(options: argparse.Namespace) -> str:
    """Draw and score what is missing, and write the table: its text."""
    check_out_folder(options.out)
    if options.batch_size < 1:
        raise InputError(f"--batch-size {options.batch_size}: give 1 or more")
    prompts = read_prompts(options.prompts)
    pipe = load(options.model, options.adapter, dtype=options.dtype)
    require_pictures(pipe.family, options.model)
    require_adapter(pipe, options.model)
    adapter, space = pipe.adapter, pipe.adapter.space
    base = _base(pipe, options)
    asked = {"steps": options.steps, "guidance_scale": options.guidance_scale}
    sampling = sampling_arguments(pipe.family, asked)
    size = {name: adapter.sampling[name] for name in SIZE if name in adapter.sampling}
    drawing = {
        True: pipe.family.sampler(pipe, {**adapter.sampling, **sampling}),
        False: base.family.sampler(base, {**size, **sampling}),
    }
    points = [
        Row(preference=point.preference or {}, targets=point.targets)
        for point in sweep_points(adapter, options.points)
    ]
    rows = [*points, Row(preference={}, targets={})]
    scorers = load_scorers(space)
    RunFolder(options.out, "scripts/paper_images.py").begin(
        {
            "weights": config.digest([*pipe.family.digests(pipe), *base.family.digests(base)]),
            "adapter": config.digest(adapter.about()),
            "rows": rows,
            "prompts": config.digest(prompts),
            "sampling": sampling,
            "seed": options.seed,
            "batch_size": options.batch_size,
            "scorers": [scorer.fingerprint for scorer in scorers],
        }
    )
    scores = np.full((len(rows), len(prompts), len(space.names)), math.nan)
    with (
        closing(Journal(options.out, "drawn")) as journal,
        tracking("paper images", scores[:, :, 0].size, unit="picture") as tracker,
    ):
        done = {(entry["row"], entry["start"]): entry["scores"] for entry in journal.entries()}
        for row, start in _batches(len(rows), len(prompts), options.batch_size):
            some = prompts[start : start + options.batch_size]
            if (row, start) not in done:
                seeds = [options.seed + start + i for i in range(len(some))]
                sampler = drawing[bool(rows[row].preference)]
                found = _scored(sampler, some, rows[row], seeds, scorers)
                journal.append({"row": row, "start": start, "scores": found})
                done[row, start] = found
            scores[row, start : start + len(some)] = np.array(done[row, start], dtype=float)
            tracker.advance(len(some))
    return _write(rows, scores, space, options.out)


def _base(pipe: Any, options: argparse.Namespace) -> Any:
    """What the adapter was made for, or its model was made from."""
    made_from = pipe.adapter.training.get("base_model")
    if options.base is None and pipe.adapter.lora:
        return pipe
    if (name := options.base or made_from) is None:
        raise InputError(
            f"--base: nothing says what {options.model} was fine-tuned from; give its base model"
        )
    return load(name, dtype=options.dtype)


def _batches(rows: int, prompts: int, size: int) -> Iterator[tuple[int, int]]:
    """Row and first prompt of each."""
    return ((row, start) for row in range(rows) for start in range(0, prompts, size))


def _scored(
    sampler: Any, prompts: Sequence[str], row: Row, seeds: Sequence[int], scorers: Sequence[Any]
) -> list[list[float | None]]:
    """The scores of a picture for each prompt; None where it is rejected or has none."""
    targets = [row.targets] * len(prompts)
    if row.preference:
        drawn = sampler.sample(prompts, targets, seeds)
    else:
        with sampler.pipe.without_adapter():
            drawn = sampler.sample(prompts, targets, seeds)
    scores = scores_of(drawn, prompts, scorers)
    for sample, values in zip(drawn, scores, strict=True):
        if sampler.medium.reject_reason(sample) is not None:
            values[:] = math.nan
    return [[v if math.isfinite(v) else None for v in values] for values in scores.tolist()]


def _write(rows: Sequence[Row], scores: np.ndarray, space: RewardSpace, out: Path) -> str:
    """``table.json`` and ``table.md``; the text of the latter."""
    names, prompts = space.names, scores.shape[1]
    grid = scores[:, :, None, :]  # one seed
    z = Standard.of(space, [grid]).z(grid)
    means, left_out = means_of(z), np.isnan(z).any(axis=(2, 3)).sum(axis=1)
    header = ["preference", *(f"asked {n} (z)" for n in names), *(f"mean {n} (z)" for n in names)]
    lines = [[*header, "left out"], ["---"] * (len(header) + 1)]
    table = []
    for row, mean, missing in zip(rows, means.tolist(), left_out.tolist(), strict=True):
        weights = " : ".join(f"{row.preference[n]:.1f}" for n in names if row.preference) or BASE
        asked = [f"{row.targets[n]:+.2f}" if n in row.targets else "" for n in names]
        lines.append([weights, *asked, *(f"{value:+.3f}" for value in mean), str(missing)])
        obtained = {n: v if math.isfinite(v) else None for n, v in zip(names, mean, strict=True)}
        told = {"preference": dict(row.preference) or None, "targets": dict(row.targets)}
        table.append({**told, "mean_z": obtained, "left_out": missing})
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    write_json(out / "table.json", {"prompts": prompts, "rows": table})
    write_text(out / "table.md", text + "\n")
    return text


if __name__ == "__main__":
    main()
