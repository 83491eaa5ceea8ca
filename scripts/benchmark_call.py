"""Print how long a call with rewards takes beside the stock call, on models of their true size.

    python scripts/benchmark_call.py --family stable-diffusion
    python scripts/benchmark_call.py --family stable-diffusion-xl --side 256
    python scripts/benchmark_call.py --adapters 3 --layers attention feed_forward

Weights are random, and the LoRA adds nothing to them: the same numbers go through the network in
both calls. They take turns, and the median of the ratios of neighbours is what counts. Freed
memory stays with the process: which of two calls glibc makes fetch its pages anew, at a fifth of
its time, is chance. Stable Diffusion 1.5 takes 6 GB and some minutes on two CPU cores, Stable
Diffusion XL 19 GB.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from random_models import MODELS, pipeline
from ric_diffusion.models.diffusion.backend import (
    DiffusionBackend,
    DiffusionConfig,
    Layers,
    LoraConfig,
)
from ric_diffusion.models.diffusion.pipeline import stock_class
from ric_diffusion.rewards import RewardSpace

PROMPT, TARGETS = "a photo of a mountain lake", {"aesthetic": 1.0, "compressibility": -0.5}


def adapter_for(pipe: Any, folder: Path, rewards: Sequence[str], layers: Sequence[Any]) -> Path:
    """An adapter of the settings' defaults, but for the layers of its LoRA."""
    rng = np.random.default_rng(0)
    space = RewardSpace.fit({name: rng.normal(size=1000) for name in rewards})
    config = DiffusionConfig(lora=LoraConfig(rank=16, targets=tuple(layers)))
    backend = DiffusionBackend.create(pipe, "random", space, config)
    backend.save(folder)
    pipe.denoiser.delete_adapters("ric")
    pipe.adapter = None
    return folder


def keep_freed_memory() -> None:
    """Tell glibc's allocator not to give freed pages back to the system; elsewhere, do nothing."""
    if hasattr(libc := ctypes.CDLL(None), "mallopt"):
        map_at_most, trim_above = -4, -1  # M_MMAP_MAX and M_TRIM_THRESHOLD of malloc.h
        libc.mallopt(map_at_most, 0)
        libc.mallopt(trim_above, -1)  # that is, never


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Seconds of a stock call, of the call with rewards after it, and of what is between them."""

    stock: float
    steered: float
    loading: float
    scaling: float
    unloading: float


def pairs(
    pipe: Any, count: int, *, adapters: int = 1, layers: Sequence[Any] = (), **arguments: Any
) -> Iterator[Pair]:
    """Both calls with these arguments so many times, after one of each that warms up."""
    with tempfile.TemporaryDirectory() as root:
        folders, targets = [], {}
        for number in range(adapters):
            asked = {f"{name}_{number}": z for name, z in TARGETS.items()}
            folder = Path(root, str(number))
            folders.append(adapter_for(pipe, folder, list(asked), layers or LoraConfig().targets))
            targets.update(asked)

        def load() -> None:
            for folder in folders:
                pipe.load_adapter(folder, name=folder.name)

        stock = stock_class(type(pipe)).__call__
        for pair in range(count + 1):
            found = Pair(
                stock=seconds(lambda: stock(pipe, PROMPT, **arguments)),
                loading=seconds(load),
                steered=seconds(lambda: pipe(PROMPT, targets=targets, **arguments)),
                scaling=seconds(lambda: pipe.set_adapter_scale("0", 0.5)),
                unloading=seconds(pipe.unload_adapter),
            )
            if pair:
                yield found


def seconds(call: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", choices=MODELS, default="stable-diffusion")
    parser.add_argument("--side", type=int, help="pixels; the model's own by default")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--adapters", type=int, default=1, help="loaded together")
    layers, default = get_args(Layers), LoraConfig().targets
    parser.add_argument("--layers", nargs="+", choices=layers, default=default, help="with LoRA")
    options = parser.parse_args()
    keep_freed_memory()
    given: dict[str, Any] = {"num_inference_steps": options.steps, "guidance_scale": 7.5}
    given |= {"height": options.side, "width": options.side} if options.side else {}
    found = []
    for pair in pairs(
        pipeline(options.family),
        options.pairs,
        adapters=options.adapters,
        layers=options.layers,
        **given,
    ):
        print(
            f"stock {pair.stock:.2f} s, with rewards {pair.steered:.2f} s; loading "
            f"{pair.loading:.2f} s, scaling one {pair.scaling:.2f} s, unloading "
            f"{pair.unloading:.2f} s",
            flush=True,
        )
        found.append(pair.steered / pair.stock)
    print(
        f"{options.family}, {options.adapters} adapters, {options.steps} steps, "
        f"{torch.get_num_threads()} threads"
    )
    print(f"with rewards / stock, median of {len(found)} pairs: {statistics.median(found):.3f}")


if __name__ == "__main__":
    main()
