"""One step of LoRA training, done three ways on the same model: by this library's trainer, as
diffusers' own scripts do it, and the denoiser's forward and backward passes alone."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
from accelerate import Accelerator
from diffusers.training_utils import cast_training_params
from PIL import Image

from ric_diffusion.data.records import Record
from ric_diffusion.models.diffusion.backend import DiffusionBackend, DiffusionConfig, LoraConfig
from ric_diffusion.models.diffusion.latents import to_pixels
from ric_diffusion.models.hardware import DTYPES, Precision
from ric_diffusion.rewards import RewardSpace
from ric_diffusion.training.loop import LoopConfig
from ric_diffusion.training.trainer import Trainer

REWARDS = ("colorfulness", "brightness")
RATE = 1e-4
Step = Callable[[], Any]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all of the steps have in common: batch, side of the pictures in pixels, rank of the LoRA
    in the attention layers, precision of the passes and of the frozen weights; ``compile``: ours
    alone, as the stock scripts don't."""

    batch: int
    side: int
    rank: int
    precision: Precision = "fp32"
    checkpointing: bool = False
    compile: bool = False


def write_pictures(folder: Path, count: int, side: int) -> list[str]:
    """Noise, as 0.png and so on; their captions."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        noise = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.png")
    return [f"a photo of scene number {i}" for i in range(count)]


def ours(pipe: Any, folder: Path, captions: Sequence[str], setting: Setting) -> Step:
    """The step of `ric train`, with modulation, an average of the weights and dropout; pictures and
    captions were encoded before."""
    space = RewardSpace.fit({name: np.arange(50.0) for name in REWARDS})
    config = DiffusionConfig(
        lora=LoraConfig(rank=setting.rank, alpha=setting.rank),
        gradient_checkpointing=setting.checkpointing,
        resolution=setting.side,
        mirror=False,
        compile=setting.compile,
    )
    backend = DiffusionBackend.create(pipe, "random", space, config)
    records = [
        Record(file=f"{i}.png", captions=(caption,), scores=dict.fromkeys(REWARDS, float(i)))
        for i, caption in enumerate(captions)
    ]
    backend.prepare(records, folder, folder / "cache")
    loop = LoopConfig(
        steps=10**6,
        batch_size=setting.batch,
        precision=setting.precision,
        learning_rate=RATE,
        schedule="constant",
    )
    trainer = Trainer(backend, len(records), loop, folder / "run", digest="benchmark")
    return trainer.step


def stock(pipe: Any, folder: Path, captions: Sequence[str], setting: Setting) -> Step:
    """The step of diffusers' examples (text_to_image/train_text_to_image_lora.py and those beside
    it): autoencoder and text encoders run in every step, on pictures that are decoded and resized
    for it. Losses and times are of this library's objective, which costs what theirs costs."""
    denoiser, family = pipe.denoiser, pipe.family
    _add_lora(pipe, setting)
    learned = [p for p in denoiser.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=RATE, weight_decay=0.01)
    # Mixed precision is autocast's, below: accelerate fixes its own once for the whole process.
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    denoiser, optimizer = accelerator.prepare(denoiser, optimizer)
    objective = family.objective(pipe, min_snr_gamma=None, timestep_shift=1.0)
    generator = torch.Generator().manual_seed(0)
    vae, device, turn = pipe.vae, denoiser.device, 0

    def step() -> None:
        nonlocal turn
        rows = [(turn * setting.batch + i) % len(captions) for i in range(setting.batch)]
        turn += 1
        pictures = [Image.open(folder / f"{i}.png").convert("RGB") for i in rows]
        arrays = [np.asarray(picture.resize((setting.side,) * 2)) for picture in pictures]
        images = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
        with torch.no_grad():
            pixels = to_pixels(images).to(device, vae.dtype)
            latents = vae.encode(pixels).latent_dist.sample().float() * vae.config.scaling_factor
            context = family.encode(pipe, [[captions[i] for i in rows] for _ in family.prompts])
        half = setting.precision != "fp32"
        with torch.autocast(device.type, DTYPES[setting.precision], enabled=half):
            loss = objective.loss(family.predictor(pipe, context), latents, generator)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def bare(pipe: Any, folder: Path, captions: Sequence[str], setting: Setting) -> Step:
    """The denoiser's passes forward and backward on random tensors, with the LoRA and nothing
    else."""
    denoiser, family = pipe.denoiser, pipe.family
    _add_lora(pipe, setting)
    learned = [p for p in denoiser.parameters() if p.requires_grad]
    with torch.no_grad():
        context = family.encode(pipe, [list(captions[: setting.batch])] * len(family.prompts))
    scale = 2 ** (len(pipe.vae.config.block_out_channels) - 1)
    shape = (setting.batch, pipe.vae.config.latent_channels, *[setting.side // scale] * 2)
    noisy = torch.randn(shape, device=denoiser.device)
    t = torch.full((setting.batch,), 0.5, device=denoiser.device)
    t = t if hasattr(pipe.scheduler, "shift") else (t * 1000).long()
    predict = family.predictor(pipe, context)

    def step() -> None:
        half = setting.precision != "fp32"
        with torch.autocast(noisy.device.type, DTYPES[setting.precision], enabled=half):
            predict(noisy, t).float().pow(2).mean().backward()
        for parameter in learned:
            parameter.grad = None

    return step


WAYS: Mapping[str, Callable[[Any, Path, Sequence[str], Setting], Step]] = {
    "ours": ours,
    "stock": stock,
    "bare": bare,
}


def _add_lora(pipe: Any, setting: Setting) -> None:
    denoiser, family = pipe.denoiser, pipe.family
    for part in family.parts:
        getattr(pipe, part).requires_grad_(False)
    denoiser.add_adapter(
        peft.LoraConfig(
            r=setting.rank,
            lora_alpha=setting.rank,
            init_lora_weights="gaussian",
            target_modules=list(family.lora_layers["attention"]),
        )
    )
    if setting.precision == "fp16":
        cast_training_params(denoiser, dtype=torch.float32)
    if setting.checkpointing:
        denoiser.enable_gradient_checkpointing()
    denoiser.train()


def copies(pipe: Any) -> dict[str, Any]:
    """The pipeline for every way, each with a denoiser of its own and the other parts shared."""
    part, denoiser = pipe.family.denoiser, pipe.denoiser
    return {way: type(pipe).from_pipe(pipe, **{part: copy.deepcopy(denoiser)}) for way in WAYS}


def clock() -> tuple[float, float]:
    """Seconds of this process's processors, and of the wall."""
    return time.process_time(), time.perf_counter()
