"""A model that others fine-tuned on reward words: the tiny one with another denoiser."""

import json
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

STATISTICS = {
    "colorfulness": {"mean": 40.0, "std": 20.0},
    "compressibility": {"mean": -4.0, "std": 0.5},
}
REWARDS = ["colorfulness", "compressibility:resize=none"]


def write_tuned(model: Path, folder: Path) -> Path:
    """``folder`` with the whole fine-tune of ``model`` in model/, its denoiser alone in
    checkpoint/unet, and statistics.json."""
    pipe = StableDiffusionPipeline.from_pretrained(model, use_safetensors=True)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in pipe.unet.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    pipe.save_pretrained(folder / "model")
    pipe.unet.save_pretrained(folder / "checkpoint" / "unet")
    (folder / "statistics.json").write_text(json.dumps(STATISTICS))
    return folder
