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
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
import torch.nn.functional as F
from accelerate import Accelerator, init_empty_weights
from accelerate.utils import set_module_tensor_to_device
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.training_utils import cast_training_params
from PIL import Image
from torch.utils.tensorboard import SummaryWriter  # noqa: F401  (it counts as an import)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ric_diffusion import RiCStableDiffusionPipeline
from ric_diffusion.data.records import Record
from ric_diffusion.models.diffusion.backend import DiffusionBackend, DiffusionConfig, LoraConfig
from ric_diffusion.models.hardware import DTYPES, default_device
from ric_diffusion.rewards import RewardSpace
from ric_diffusion.training.loop import LoopConfig
from ric_diffusion.training.trainer import Trainer

# stable-diffusion-v1-5/stable-diffusion-v1-5: unet, vae, text_encoder and scheduler, config.json.
UNET = {
    "sample_size": 64,
    "down_block_types": (*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
VAE = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 512,
}
TEXT = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "vocab_size": 49408,
    "bos_token_id": 49406,
    "eos_token_id": 49407,
}
SCHEDULER = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "steps_offset": 1,
    "clip_sample": False,
}
CAPTION, SIZE, MB = "a photo", 512, 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", choices=["fp32", "bf16", "fp16"], default="bf16")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--steps", type=int, default=2, help="the second has Adam's moments")
    parser.add_argument("--only", choices=STEPS, help="this one, in this process, as JSON")
    options = parser.parse_args()
    if options.only:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(STEPS[options.only], options, Path(folder))))
        return
    found = {}
    # What is freed goes back to the system at once, so that resident is what is in use.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    for name in STEPS:
        command = [sys.executable, __file__, *sys.argv[1:], "--only", name]
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
        found[name] = json.loads(done.stdout)
        print(f"{name}: {found[name]['peak_mb']:.0f} MB, {found[name]['seconds']:.0f} s")
    ours, theirs = (found[name]["peak_mb"] for name in ("ours", "diffusers"))
    print(f"ours / diffusers: {ours / theirs:.3f}")


def measure(
    steps: Callable[[argparse.Namespace, Path], None], options: argparse.Namespace, folder: Path
) -> dict[str, Any]:
    """The peak of the steps beyond what this process has now, and the seconds they take."""
    torch.manual_seed(0)
    noise = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "0.png")
    before, start = peak(), time.monotonic()
    steps(options, folder)
    return {"peak_mb": (peak() - before) / MB, "seconds": time.monotonic() - start}


def peak() -> int:
    """The most bytes there were so far."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def parts(precision: str) -> dict[str, Any]:
    """Autoencoder, text encoder and U-Net in a precision, which they never leave."""
    dtype, device = DTYPES[precision], default_device()
    with init_empty_weights():
        made: dict[str, Any] = {
            "vae": AutoencoderKL(**VAE),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**TEXT)),
            "unet": UNet2DConditionModel(**UNET),
        }
    for module in made.values():
        for name, parameter in list(module.named_parameters()):
            value = 0.02 * torch.randn(parameter.shape, dtype=dtype)
            set_module_tensor_to_device(module, name, device, value=value, dtype=dtype)
        module.to(device).eval().requires_grad_(False)
    return made


def tokenizer() -> CLIPTokenizer:
    """It knows no words: a caption is as long as any other."""
    vocab = {"<|startoftext|>": TEXT["bos_token_id"], "<|endoftext|>": TEXT["eos_token_id"]}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=77)


def ours(options: argparse.Namespace, folder: Path) -> None:
    """With modulation, an average of the weights and a checkpoint, as `ric train` does it."""
    pipe = RiCStableDiffusionPipeline(
        **parts(options.precision),
        tokenizer=tokenizer(),
        scheduler=DDPMScheduler(**SCHEDULER),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    space = RewardSpace.fit({name: np.arange(50.0) for name in ("colorfulness", "brightness")})
    config = DiffusionConfig(
        lora=LoraConfig(rank=options.rank, alpha=options.rank),
        gradient_checkpointing=True,
        mirror=False,
    )
    backend = DiffusionBackend.create(pipe, "stable-diffusion-1.5", space, config)
    scores = dict.fromkeys(space.names, 25.0)
    record = Record(file="0.png", captions=(CAPTION,), scores=scores)
    backend.prepare([record], folder, folder / "cache")
    loop = LoopConfig(steps=options.steps, batch_size=1, precision=options.precision)
    Trainer(backend, 1, loop, folder / "run", digest="benchmark").run()


def diffusers(options: argparse.Namespace, folder: Path) -> None:
    """What train_text_to_image_lora.py does between its data loader and its optimizer."""
    made = parts(options.precision)
    vae, text_encoder, unet = (made[name] for name in ("vae", "text_encoder", "unet"))
    mixed = "no" if options.precision == "fp32" else options.precision
    accelerator = Accelerator(mixed_precision=mixed, cpu=not torch.cuda.is_available())
    scheduler = DDPMScheduler(**SCHEDULER)
    unet.add_adapter(
        peft.LoraConfig(
            r=options.rank,
            lora_alpha=options.rank,
            init_lora_weights="gaussian",
            target_modules=["to_k", "to_q", "to_v", "to_out.0"],
        )
    )
    if mixed == "fp16":
        cast_training_params(unet, dtype=torch.float32)
    unet.enable_gradient_checkpointing()
    learned = [p for p in unet.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=1e-4, weight_decay=0.01)
    unet, optimizer = accelerator.prepare(unet, optimizer)
    device, dtype = accelerator.device, DTYPES[options.precision]
    pixels = torch.from_numpy(np.array(Image.open(folder / "0.png"))).permute(2, 0, 1)[None]
    pixels = pixels.float().div(127.5).sub(1).to(device, dtype)
    ids = tokenizer()(CAPTION, padding="max_length", return_tensors="pt").input_ids.to(device)
    unet.train()
    for _ in range(options.steps):
        latents = vae.encode(pixels).latent_dist.sample() * vae.config.scaling_factor
        noise = torch.randn_like(latents)
        t = torch.randint(0, scheduler.config.num_train_timesteps, (1,), device=device)
        noisy = scheduler.add_noise(latents, noise, t)
        states = text_encoder(ids, return_dict=False)[0]
        predicted = unet(noisy, t, states, return_dict=False)[0]
        loss = F.mse_loss(predicted.float(), noise.float())
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        optimizer.zero_grad()


STEPS = {"diffusers": diffusers, "ours": ours}


if __name__ == "__main__":
    main()
