"""Print what sliders are worth by the number of pictures that they were learned from.

    python scripts/how_many_pictures.py --pictures data/emoji/train --out runs/how-many

For each of --counts, so many pictures of an imagefolder with metadata.jsonl are drawn by --seed,
labelled, and trained on with the settings of --config, for --steps; then all adapters are compared
on the same prompts. Whatever is there already is not made again.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ric_diffusion import api
from ric_diffusion.api import EvaluationResult, InputError, TrainConfig
from ric_diffusion.api.models import prompts_of
from ric_diffusion.io import config as configs
from ric_diffusion.io.files import write_text

HERE = Path(__file__).parent
SCORERS = ("compressibility:resize=none", "colorfulness")
METADATA = "metadata.jsonl"


def subset(pictures: Path, count: int, seed: int, out: Path) -> None:
    """Copy ``count`` of the pictures with their lines of metadata; more of them hold all that fewer
    do."""
    lines = (pictures / METADATA).read_text(encoding="utf-8").splitlines()
    if count > len(lines):
        raise InputError(f"--counts {count}: {pictures} has {len(lines)} pictures; ask for fewer")
    order = np.random.default_rng(seed).permutation(len(lines))[:count]
    chosen = [lines[i] for i in sorted(order.tolist())]
    for line in chosen:
        name = json.loads(line)["file_name"]
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(pictures / name, out / name)
    write_text(out / METADATA, "".join(f"{line}\n" for line in chosen))


def train(settings: TrainConfig, pictures: Path, count: int, seed: int, out: Path) -> Path:
    """The adapter learned from so many of the pictures; ``out`` holds all that leads to it."""
    folder, labelled, run = out / "pictures", out / "labelled", out / "run"
    if not (run / "adapter").is_dir():
        if not (folder / METADATA).is_file():
            subset(pictures, count, seed, folder)
        api.label(folder, labelled, SCORERS)
        api.train(replace(settings, data=labelled, out=None), out=run, resume=run.is_dir())
    return run / "adapter"


def table(result: EvaluationResult, counts: Sequence[int]) -> str:
    """A row for each count and reward, and of the model without an adapter what it keeps of its
    prompts."""
    header = "pictures | reward | Spearman of means | per picture | span, z | R-precision"
    rows = [f"| {header} |", "|" + " --- |" * 6]
    *adapters, none = result.methods
    for method, count in zip(adapters, counts, strict=True):
        kept = method.prompt_r_precision.value
        for sweep in method.control:
            means = [estimate.value for estimate in sweep.obtained]
            rows.append(
                f"| {count} | {sweep.reward} | {sweep.spearman_of_means:.2f} "
                f"| {sweep.spearman_per_sample:.2f} | {means[-1] - means[0]:.2f} | {kept:.3f} |"
            )
    rows.append(f"| none | | | | | {none.prompt_r_precision.value:.3f} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=Path, required=True, help="an imagefolder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=HERE / "configs" / "emoji-embedding.yaml")
    parser.add_argument("--counts", type=int, nargs="+", default=[60, 500, 4500])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--prompts", type=Path, default=HERE / "prompts.txt")
    parser.add_argument("--points", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    settings = configs.load_yaml(options.config, TrainConfig)
    loop = replace(settings.loop.in_steps(options.steps), validate_every=0)
    settings = replace(settings, loop=loop, prompts=())
    try:
        adapters = [
            train(settings, options.pictures, count, options.seed, options.out / str(count))
            for count in options.counts
        ]
        result = api.evaluate(
            settings.model,
            prompts_of(options.prompts),
            options.out / "report",
            adapters=[*adapters, "none"],
            points=options.points,
            seeds=options.seeds,
        )
    except InputError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(table(result, options.counts))


if __name__ == "__main__":
    main()
