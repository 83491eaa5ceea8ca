"""Print the peak memory of LoRA steps on Stable Diffusion 1.5, by this library's trainer and by the
steps of diffusers' own script.

    python scripts/benchmark_memory.py

The true sizes with random weights; 512 px, one picture a step, gradient checkpointing, LoRA of the
same rank in the same layers, AdamW. Each runs in a process of its own: making the weights, encoding
the picture and its caption, and the steps. Counted is the GPU memory that PyTorch had allocated at
most or, without a GPU, the resident memory beyond what the imports take. The other side is
examples/text_to_image/train_text_to_image_lora.py. Two minutes and 3 GB on two CPU cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter  # noqa: F401  (it counts as an import)

from random_models import pipeline
from ric_diffusion.models.hardware import DTYPES, default_device, peak_memory
from training_steps import Setting, ours, stock, write_pictures

SIZE, MB = 512, 2**20
WAYS = {"diffusers": stock, "ours": ours}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", choices=["fp32", "bf16", "fp16"], default="bf16")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--steps", type=int, default=2, help="the second has Adam's moments")
    parser.add_argument("--only", choices=WAYS, help="this one, in this process, as JSON")
    options = parser.parse_args()
    if options.only:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(options, Path(folder))))
        return
    found = {}
    # What is freed goes back to the system at once, so that resident is what is in use.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    for name in WAYS:
        command = [sys.executable, __file__, *sys.argv[1:], "--only", name]
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
        found[name] = json.loads(done.stdout)
        print(f"{name}: {found[name]['peak_mb']:.0f} MB, {found[name]['seconds']:.0f} s")
    ours, theirs = (found[name]["peak_mb"] for name in ("ours", "diffusers"))
    print(f"ours / diffusers: {ours / theirs:.3f}")


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The peak of the steps beyond what this process has now, and the seconds they take."""
    captions = write_pictures(folder, 1, SIZE)
    setting = Setting(
        batch=1, side=SIZE, rank=options.rank, precision=options.precision, checkpointing=True
    )
    before, start = peak(), time.monotonic()
    pipe = pipeline("stable-diffusion", default_device(), DTYPES[options.precision])
    step = WAYS[options.only](pipe, folder, captions, setting)
    for _ in range(options.steps):
        step()
    return {
        "peak_mb": (peak() - before) / MB,
        "seconds": time.monotonic() - start,
    }


def peak() -> int:
    """The most bytes there were so far."""
    return peak_memory(default_device()) or 0


if __name__ == "__main__":
    main()
