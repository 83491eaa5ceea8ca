"""Stable Diffusion XL in two sizes: small enough for any test, and of true widths but shallow."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from scratch import clip_bpe, clip_tokenizer, pruned_tokenizer

# From stabilityai/stable-diffusion-xl-base-1.0, unet/config.json but for the counts of layers.
WIDE: dict[str, Any] = {
    "sample_size": 128,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "layers_per_block": 1,
    "transformer_layers_per_block": (1, 1, 1),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
SMALL = WIDE | {
    "sample_size": 8,
    "block_out_channels": (32, 32, 64),
    "attention_head_dim": (2, 2, 4),
    "cross_attention_dim": 80,
    "norm_num_groups": 16,
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 48 + 6 * 8,
}
# scheduler/scheduler_config.json
SCHEDULER = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
# Widths of text_encoder and text_encoder_2: states of both side by side are what the U-Net reads.
WIDE_TEXT, SMALL_TEXT = ((768, 12), (1280, 20)), ((32, 2), (48, 4))


def parts(*, wide: bool = False, layers: int = 2, seed: int = 0, **unet: Any) -> dict[str, Any]:
    """All parts of a pipeline, with random weights; ``layers`` of the text encoders, and ``unet``
    settings replace those of the size."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if wide:
            tokenizers = [clip_tokenizer(*clip_bpe(), 77) for _ in range(2)]
        else:
            words = ["red apple blue car", "colorfulness compressibility", "0 1 2 3 4 5 6 7 8 9"]
            tokenizers = [pruned_tokenizer(words, 32) for _ in range(2)]
        tokenizers[1].pad_token = "!"  # as tokenizer_2/tokenizer_config.json has it
        encoders = []
        for (width, heads), tokenizer, cls in zip(
            WIDE_TEXT if wide else SMALL_TEXT,
            tokenizers,
            (CLIPTextModel, CLIPTextModelWithProjection),
            strict=True,
        ):
            config = CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=width,
                projection_dim=width,
                intermediate_size=64,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                max_position_embeddings=tokenizer.model_max_length,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
            )
            encoders.append(cls(config).eval())
        vae = AutoencoderKL(
            block_out_channels=(32, 32, 32, 32),
            layers_per_block=1,
            latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            sample_size=1024,
            scaling_factor=0.13025,
            force_upcast=False,
        )
        made = UNet2DConditionModel(**(WIDE if wide else SMALL) | unet)
    return {
        "vae": vae.eval(),
        "text_encoder": encoders[0],
        "text_encoder_2": encoders[1],
        "tokenizer": tokenizers[0],
        "tokenizer_2": tokenizers[1],
        "unet": made.eval(),
        "scheduler": EulerDiscreteScheduler(**SCHEDULER),
        "force_zeros_for_empty_prompt": True,
        "add_watermarker": False,
    }


def write(folder: Path, **given: Any) -> Path:
    """A folder as stock diffusers writes it."""
    StableDiffusionXLPipeline(**parts(**given)).save_pretrained(folder)
    return folder
