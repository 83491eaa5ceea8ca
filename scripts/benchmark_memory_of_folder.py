"""Print the peak resident memory of training emoji-64 on folders of 10 000 and of 100 000 pictures,
and how long training takes to start on a folder whose cache is whole.

    python scripts/benchmark_memory_of_folder.py --folder big/

The pictures are distinct and 64 px; they and their labels are written into the folder once, and are
used again if they are there. Each run is a process of its own, with the training config of
emoji-64's own adapter but for its steps, and no mirror images. The first run on a folder encodes
every picture, about 8 ms each on one core; the second finds the cache whole. Anonymous memory,
which is what a process has beside pages of files, is printed too. Half an hour on one core.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ric_diffusion.data.images import pixel_digest
from ric_diffusion.data.records import METADATA, REWARD_SPACE, Record, write_metadata
from ric_diffusion.io import config
from ric_diffusion.io.manifest import write_manifest
from ric_diffusion.rewards import RewardSpace

CONFIG = Path(__file__).parent / "configs" / "emoji-embedding.yaml"
COUNTS = (10_000, 100_000)
SIDE, STEPS, MB = 64, 20, 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--counts", type=int, nargs=2, default=COUNTS, metavar="N")
    parser.add_argument("--only", type=int, help="train on so many, in this process; JSON")
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options.folder / str(options.only))))
        return
    found: dict[int, list[dict[str, Any]]] = {}
    for count in options.counts:
        make(options.folder / str(count), count)
        command = [sys.executable, __file__, "--folder", options.folder, "--only", str(count)]
        for state in ("new", "whole"):
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            run = json.loads(done.stdout.splitlines()[-1])
            found.setdefault(count, []).append(run)
            print(
                f"{count} pictures, cache {state}: peak {run['peak_mb']:.0f} MB, anonymous "
                f"{run['anonymous_mb']:.0f} MB at the end; first step after {run['start']:.1f} s "
                f"({run['imports']:.1f} s of it imports)",
                flush=True,
            )
    for i, state in enumerate(("new", "whole")):
        few, many = (found[count][i]["peak_mb"] for count in options.counts)
        print(f"cache {state}: {many:.0f} / {few:.0f} MB = {many / few:.3f}")


def make(folder: Path, count: int) -> None:
    """A labelled folder of ``count`` pictures, as ``ric label`` leaves one."""
    if (folder / METADATA).exists():
        return
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rng, records = np.random.default_rng(0), []
    scores = rng.normal(size=(count, 2)) * (20, 0.5) + (60, -2.5)
    names = ("colorfulness", "compressibility")
    for i in range(count):
        image = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        image = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        file = f"images/{pixel_digest(image)[:32]}.png"
        image.save(folder / file, compress_level=1)
        captions = (f"picture {i}", f"colours of number {i}", "a pattern")
        row = dict(zip(names, scores[i].tolist(), strict=True))
        records.append(
            Record(file=file, captions=captions, scores=row, extra={"original": f"{i}.png"})
        )
    space = RewardSpace.fit(dict(zip(names, scores.T, strict=True)))
    space.save(folder / REWARD_SPACE)
    write_metadata(folder, records)
    write_manifest(folder, [METADATA, REWARD_SPACE])


def measure(folder: Path) -> dict[str, Any]:
    """Train on a folder, with the cache beside it: peak memory and seconds to the first step."""
    began = time.monotonic()
    from ric_diffusion.api import TrainConfig, train
    from ric_diffusion.io.progress import Progress

    imports, first = time.monotonic() - began, 0.0

    def watch(progress: Progress) -> None:
        nonlocal first
        if progress.stage == "train" and progress.done == 0:
            first = time.monotonic() - began

    settings = config.load_yaml(CONFIG, TrainConfig)
    settings = replace(
        settings,
        data=folder,
        cache=folder.with_name(f"{folder.name}-cache"),
        out=folder.with_name(f"{folder.name}-run-{int(time.time())}"),
        where={},
        diffusion=replace(settings.diffusion, mirror=False),
        loop=replace(settings.loop, steps=STEPS, warmup=0, validate_every=0),
    )
    train(settings, progress=watch)
    status = Path("/proc/self/status").read_text()
    anonymous = next(line for line in status.splitlines() if line.startswith("RssAnon"))
    return {
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MB,
        "anonymous_mb": int(anonymous.split()[1]) * 1024 / MB,
        "start": first,
        "imports": imports,
    }


if __name__ == "__main__":
    main()
