"""Print how fast a LoRA step is beside the step of diffusers' own script and beside the denoiser's
passes alone, on the same model with random weights.

    python scripts/benchmark_training.py                              # reduced SD 1.5, one thread
    python scripts/benchmark_training.py --size true --side 256 --batch 1 --steps 3 --threads 2

The ways take turns, each on a denoiser of its own, and the median of the ratios of neighbours is
what counts. Encoding pictures and captions once, before the first step, is not counted, as it is
not in the stock script's first step; `encoding` says what it takes.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import torch

from benchmark_call import keep_freed_memory
from random_models import pipeline
from training_steps import WAYS, Setting, clock, copies, write_pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=("reduced", "true"), default="reduced")
    parser.add_argument("--side", type=int, default=128, help="pixels")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    setting = Setting(
        batch=options.batch, side=options.side, rank=options.rank, precision=options.precision
    )
    pipes = copies(pipeline("stable-diffusion", reduced=options.size == "reduced"))
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        captions = write_pictures(folder, 4 * options.batch, options.side)
        steps = {}
        for way, make in WAYS.items():
            begun = clock()[0]
            steps[way] = make(pipes[way], folder, captions, setting)
            if way == "ours":
                print(f"encoding {len(captions)} pictures, {clock()[0] - begun:.2f} CPU s")
        taken: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
        for number in range(options.steps + 1):
            for way, step in steps.items():
                before = clock()
                step()
                if number:  # the first warms up
                    cpu, wall = (b - a for a, b in zip(before, clock(), strict=True))
                    taken[way].append((cpu, wall))
    print(f"{options.size} size, {setting}, {options.threads} threads; medians of {options.steps}")
    for way, times in taken.items():
        cpu, wall = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"{way}: {cpu:.3f} CPU s, {wall:.3f} s a step")
    for what, column in (("CPU time", 0), ("time", 1)):
        for name, over, under in (
            ("ours / stock", "stock", "ours"),
            ("ours / bare", "bare", "ours"),
        ):
            ratios = [a[column] / b[column] for a, b in zip(taken[over], taken[under], strict=True)]
            print(f"images/s by {what}, {name}: {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
