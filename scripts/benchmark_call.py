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
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

sys.path.insert(0, str(Path(__file__).parent / "research"))

from ric_diffusion.models.diffusion.backend import (
    DiffusionBackend,
    DiffusionConfig,
    Layers,
    LoraConfig,
)
from ric_diffusion.models.diffusion.family import TEXT_TO_IMAGE
from ric_diffusion.models.diffusion.pipeline import stock_class
from ric_diffusion.models.family import family_named
from ric_diffusion.rewards import RewardSpace
from scratch import clip_bpe, clip_tokenizer

# unet/config.json of stable-diffusion-v1-5 and of stable-diffusion-xl-base-1.0.
UNETS: dict[str, dict[str, Any]] = {
    "stable-diffusion": {
        "sample_size": 64,
        "block_out_channels": (320, 640, 1280, 1280),
        "attention_head_dim": 8,
        "cross_attention_dim": 768,
    },
    "stable-diffusion-xl": {
        "sample_size": 128,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (320, 640, 1280),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}
# text_encoder/config.json, and text_encoder_2's: width, hidden width, layers, heads.
TEXT = ((768, 3072, 12, 12), (1280, 5120, 32, 20))
PROMPT, TARGETS = "a photo of a mountain lake", {"aesthetic": 1.0, "compressibility": -0.5}
STD = 0.02  # of the random weights


@contextmanager
def quick_weights() -> Iterator[None]:
    """Parts made inside begin with small weights at once, not by their own slow recipes."""
    recipes = {
        name: getattr(torch.nn.init, name)
        for name in ("kaiming_uniform_", "xavier_uniform_", "uniform_", "trunc_normal_", "normal_")
    }
    generator = torch.Generator().manual_seed(0)

    def fill(tensor: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return tensor.data.normal_(std=STD, generator=generator)

    for name in recipes:
        setattr(torch.nn.init, name, fill)
    try:
        yield
    finally:
        for name, recipe in recipes.items():
            setattr(torch.nn.init, name, recipe)


def parts(family: str) -> dict[str, Any]:
    """All parts of a pipeline."""
    tokenizer = clip_tokenizer(*clip_bpe(), 77)
    with quick_weights():
        classes = (CLIPTextModel, CLIPTextModelWithProjection)
        encoders = [
            cls(
                CLIPTextConfig(
                    vocab_size=len(tokenizer),
                    hidden_size=width,
                    projection_dim=width,
                    intermediate_size=hidden,
                    num_hidden_layers=layers,
                    num_attention_heads=heads,
                    bos_token_id=tokenizer.bos_token_id,
                    eos_token_id=tokenizer.eos_token_id,
                )
            ).eval()
            for cls, (width, hidden, layers, heads) in zip(classes, TEXT, strict=True)
        ]
        found: dict[str, Any] = {
            "vae": AutoencoderKL(
                block_out_channels=(128, 256, 512, 512),
                layers_per_block=2,
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
            ).eval(),
            "text_encoder": encoders[0],
            "tokenizer": tokenizer,
            "unet": UNet2DConditionModel(**UNETS[family]).eval(),
            "scheduler": EulerDiscreteScheduler(
                beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012
            ),
        }
    if family == "stable-diffusion-xl":
        return found | {"text_encoder_2": encoders[1], "tokenizer_2": tokenizer}
    more = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return found | more


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


def seconds(call: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", choices=UNETS, default="stable-diffusion")
    parser.add_argument("--side", type=int, help="pixels; the model's own by default")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--adapters", type=int, default=1, help="loaded together")
    layers, default = get_args(Layers), LoraConfig().targets
    parser.add_argument("--layers", nargs="+", choices=layers, default=default, help="with LoRA")
    options = parser.parse_args()
    keep_freed_memory()
    pipe = family_named(options.family).pipelines[TEXT_TO_IMAGE](**parts(options.family))  # type: ignore[attr-defined]
    pipe.set_progress_bar_config(disable=True)
    with tempfile.TemporaryDirectory() as root:
        adapters: list[Path] = []
        targets: dict[str, float] = {}
        for number in range(options.adapters):
            asked = {f"{name}_{number}": z for name, z in TARGETS.items()}
            adapters.append(adapter_for(pipe, Path(root, str(number)), list(asked), options.layers))
            targets |= asked

        def load() -> None:
            for adapter in adapters:
                pipe.load_adapter(adapter, name=adapter.name)

        given = {"num_inference_steps": options.steps, "guidance_scale": 7.5}
        given |= {"height": options.side, "width": options.side} if options.side else {}
        stock = stock_class(type(pipe)).__call__
        ratios: list[float] = []
        for pair in range(options.pairs + 1):
            plain = seconds(lambda: stock(pipe, PROMPT, **given))
            loading = seconds(load)
            steered = seconds(lambda: pipe(PROMPT, targets=targets, **given))
            scaling = seconds(lambda: pipe.set_adapter_scale("0", 0.5))
            unloading = seconds(pipe.unload_adapter)
            if pair:  # the first warms up
                ratios.append(steered / plain)
            print(
                f"stock {plain:.2f} s, with rewards {steered:.2f} s; loading {loading:.2f} s, "
                f"scaling one {scaling:.2f} s, unloading {unloading:.2f} s",
                flush=True,
            )
    print(
        f"{options.family}, {options.adapters} adapters, {options.steps} steps, "
        f"{torch.get_num_threads()} threads"
    )
    print(f"with rewards / stock, median of {len(ratios)} pairs: {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
