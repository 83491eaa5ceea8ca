"""What a base model draws without any adapter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from ric_diffusion.data.prompts import read_prompts
from ric_diffusion.evaluation.report.sheet import draw_sheet
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.progress import tracked

PROMPTS = Path(__file__).parents[1] / "prompts.txt"
SEEDS = (1001, 1002, 1003, 1004)
SAMPLING = {"num_inference_steps": 20, "guidance_scale": 3.0}
BATCH = 40


def check_pipeline(folder: Path, option: str) -> None:
    """InputError, which names the ``option``, unless a pipeline is there."""
    if not (folder / "model_index.json").is_file():
        raise InputError(f"{option}: {folder} holds no pipeline; name a folder that has its "
                         "model_index.json")  # fmt: skip


def pipeline(folder: Path, device: torch.device) -> StableDiffusionPipeline:
    """A stock one, in full precision."""
    pipe = StableDiffusionPipeline.from_pretrained(
        folder, use_safetensors=True, trust_remote_code=False
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def draw(
    pipe: StableDiffusionPipeline, prompts: Sequence[str], seeds: Sequence[int]
) -> list[Image.Image]:
    """A picture for each prompt and seed, the same in whatever company."""
    images: list[Image.Image] = []
    for start in tracked(range(0, len(prompts), BATCH), "draw", unit="batch"):
        some = slice(start, start + BATCH)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds[some]]
        images += pipe(list(prompts[some]), generator=generators, **SAMPLING).images
    return images


def sheet(folder: Path, device: torch.device) -> Image.Image:
    """Sixteen prompts, four seeds each."""
    pipe, prompts = pipeline(folder, device), read_prompts(PROMPTS)
    rows = [draw(pipe, prompts, [seed] * len(prompts)) for seed in SEEDS]
    return draw_sheet(rows, captions=[[prompt] for prompt in prompts])
