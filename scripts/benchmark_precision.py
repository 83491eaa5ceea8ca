"""Print how long a training step of emoji-64's adapter takes in float32 and in bfloat16.

    python scripts/benchmark_precision.py

Half a minute on two CPU cores. The two take turns, so that what else the machine does weighs on
both; CPU seconds count. What `precision: auto` takes here is printed too. On x86 the environment
variables ONEDNN_MAX_CPU_ISA=AVX2 and ATEN_CPU_CAPABILITY=avx2 show what a processor without
AVX-512 and AMX would do.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from ric_diffusion.api import TrainConfig
from ric_diffusion.io import config
from ric_diffusion.models.family import load_model
from ric_diffusion.models.hardware import resolve_precision
from ric_diffusion.models.protocol import Batch

CONFIG = Path(__file__).parent / "configs" / "emoji-embedding.yaml"
RECORDS = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=4)
    options = parser.parse_args()
    settings = config.load_yaml(CONFIG, TrainConfig)
    model = load_model("emoji-64")
    space, family = model.adapter.space, model.family
    backend = family.create_backend("emoji-64", space, settings.diffusion)
    generator = torch.Generator().manual_seed(0)
    moments = torch.rand(RECORDS, 2, 2, 16, 8, 8, generator=generator)
    backend.latents = SimpleNamespace(views=2, moments=lambda rows, views: moments[rows, views])
    backend.pictures = SimpleNamespace(told=lambda rows, views: torch.zeros(len(rows), 6))
    backend.records = [type("Record", (), {"captions": ("red apple",)})] * RECORDS
    backend.z = np.full((RECORDS, len(space.names)), 0.5)
    seconds: dict[str, list[float]] = {"fp32": [], "bf16": []}
    for turn in range(options.turns + 1):
        for name, times in seconds.items():
            start = time.process_time()
            step(backend, settings.loop.batch_size, name, turn)
            times.append(time.process_time() - start)
    fp32, bf16 = (statistics.median(times[1:]) for times in seconds.values())  # the first warms up
    print(f"{torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads")
    print(f"precision: auto takes {resolve_precision('auto', 'cpu')}")
    size = settings.loop.batch_size
    print(f"CPU seconds of a step of {size}: fp32 {fp32:.2f}, bf16 {bf16:.2f}")
    print(f"bf16 / fp32: {bf16 / fp32:.2f}")


def step(backend: Any, size: int, precision: str, turn: int) -> None:
    """Forward and backward, as training has them."""
    batch = Batch(indices=tuple(range(size)), generator=torch.Generator().manual_seed(turn))
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        loss = backend.loss(batch)
    loss.backward()
    for parameter in backend.named_parameters().values():
        parameter.grad = None


if __name__ == "__main__":
    main()
