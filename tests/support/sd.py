"""Stable Diffusion 1.5 with its true widths, but two levels and few layers."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel

from scratch import clip_bpe, clip_tokenizer

# From stable-diffusion-v1-5/stable-diffusion-v1-5, unet/config.json but for the levels.
WIDE: dict[str, Any] = {
    "sample_size": 64,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "block_out_channels": (320, 640),
    "layers_per_block": 1,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
SCHEDULER = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
}


def parts(*, wide: bool = True, seed: int = 0, **unet: Any) -> dict[str, Any]:
    """All parts of a pipeline, with random weights; ``unet`` settings replace those of the size.
    There is none but wide: the small model is in tests/models/diffusion/conftest.py."""
    assert wide
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        text = CLIPTextConfig(
            vocab_size=49408,
            max_position_embeddings=77,
            hidden_size=768,
            intermediate_size=256,
            num_hidden_layers=1,
            num_attention_heads=12,
            bos_token_id=49406,
            eos_token_id=49407,
        )
        vae = AutoencoderKL(
            block_out_channels=(32, 32, 32, 32),
            layers_per_block=1,
            latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            sample_size=512,
        )
        return {
            "vae": vae.eval(),
            "text_encoder": CLIPTextModel(text).eval(),
            "tokenizer": clip_tokenizer(*clip_bpe(), 77),
            "unet": UNet2DConditionModel(**WIDE | unet).eval(),
            "scheduler": PNDMScheduler(**SCHEDULER),
            "safety_checker": None,
            "feature_extractor": None,
            "requires_safety_checker": False,
        }


def write(folder: Path, **given: Any) -> Path:
    """A folder as stock diffusers writes it."""

    StableDiffusionPipeline(**parts(**given)).save_pretrained(folder)
    return folder
