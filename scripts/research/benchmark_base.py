"""Compare base models side by side: how sharp, how true to the prompt, how large, how fast.

    python scripts/research/benchmark_base.py --data data/emoji-128 \
        --models ric_diffusion/assets/emoji-64 runs/emoji-128/pipeline --out report

Needs the `dev` extra and the pictures of build_emoji_dataset.py, as large as the largest model
draws. Every model is held against them at its own size. What was drawn already is in --out and is
not drawn again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import autoencoder
from base_samples import check_pipeline, draw, pipeline, sheet
from retrieval import efficientnet_features, retrieval_rate
from ric_diffusion.data.images import open_image, save_png
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import write_json, write_text
from ric_diffusion.models.hardware import default_device
from scratch import megabytes, read_pictures

NAMES, SEEDS = 200, (2001, 2002)
ROWS = {  # of the table -> how its numbers are written
    "side": "{:.0f}",
    "parameters_m": "{:.1f}",
    "megabytes": "{:.1f}",
    "held_out_psnr_db": "{:.2f}",
    "retrieval": "{:.3f}",
    "seconds_per_picture": "{:.2f}",
}


def request(names: Sequence[str]) -> tuple[list[str], list[int]]:
    """The prompts to draw, of the names, and a seed for each."""
    rng = np.random.default_rng(0)
    some = sorted(set(names))
    chosen = sorted(rng.choice(some, min(NAMES, len(some)), replace=False).tolist())
    return [name for name in chosen for _ in SEEDS], list(SEEDS) * len(chosen)


def figures_of(folder: Path, data: Path, out: Path) -> dict[str, Any]:
    """A row of the report for the pipeline in ``folder``; its samples go to ``out``."""
    device = torch.device(default_device())
    pipe = pipeline(folder, device)
    side = pipe.unet.config.sample_size * pipe.vae_scale_factor
    records, real = read_pictures(data / "train", side)
    names = [record.captions[0] for record in records]
    prompts, seeds = request(names)
    files = [out / f"{i:03d}.png" for i in range(len(prompts))]
    found: dict[str, Any] = {"model": folder.as_posix(), "side": side}
    if not all(file.exists() for file in files):
        begun = time.monotonic()
        samples = draw(pipe, prompts, seeds)
        found["seconds_per_picture"] = (time.monotonic() - begun) / len(prompts)
        for file, sample in zip(files, samples, strict=True):
            save_png(file, sample)
    _, held_out = read_pictures(data / "held-out", side)
    held_out = held_out.to(device)
    features = efficientnet_features([open_image(file) for file in files])
    real_features = efficientnet_features(
        [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in real]
    )
    save_png(out.with_suffix(".png"), sheet(folder, device))
    return found | {
        "parameters_m": sum(p.numel() for p in pipe.unet.parameters()) / 1e6,
        "megabytes": sum(megabytes(folder / part) for part in ("unet", "vae", "text_encoder")),
        "held_out_psnr_db": autoencoder.psnr(held_out, autoencoder.reconstruct(pipe.vae, held_out)),
        "retrieval": retrieval_rate(features, prompts, real_features, names),
    }


def table(report: Sequence[dict[str, Any]]) -> str:
    """The figures as Markdown, a column for each model."""
    lines = ["| what | " + " | ".join(each["model"] for each in report) + " |"]
    lines.append("| --- |" + " --- |" * len(report))
    for name, form in ROWS.items():
        values = [form.format(each[name]) if name in each else "" for each in report]
        lines.append(f"| {name.replace('_', ' ')} | " + " | ".join(values) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data/emoji-128"))
    parser.add_argument("--models", type=Path, nargs="+", required=True, metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=Path("report"))
    options = parser.parse_args()
    try:
        for folder in options.models:
            check_pipeline(folder, "--models")
        report = [
            figures_of(folder, options.data, options.out / f"model-{i}")
            for i, folder in enumerate(options.models)
        ]
    except InputError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    write_json(options.out / "figures.json", report)
    write_text(options.out / "table.md", table(report))
    print(table(report), end="")


if __name__ == "__main__":
    main()
