"""Stable Diffusion 3 in two sizes: small enough for any test, and of true widths but shallow."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

from scratch import clip_bpe, clip_tokenizer, pruned_tokenizer
from support.t5 import t5_tokenizer

# From stabilityai/stable-diffusion-3.5-medium, transformer/config.json but for the count of layers.
WIDE: dict[str, Any] = {
    "sample_size": 128,
    "patch_size": 2,
    "in_channels": 16,
    "num_layers": 2,
    "attention_head_dim": 64,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 1536,
    "pooled_projection_dim": 2048,
    "out_channels": 16,
    "pos_embed_max_size": 384,
    "dual_attention_layers": (0,),
    "qk_norm": "rms_norm",
}
SMALL = WIDE | {
    "sample_size": 8,
    "attention_head_dim": 8,
    "num_attention_heads": 4,
    "joint_attention_dim": 96,
    "caption_projection_dim": 32,
    "pooled_projection_dim": 64,
    "pos_embed_max_size": 16,
}
# Widths and heads of text_encoder, text_encoder_2 and text_encoder_3: the first two side by side,
# filled up with zeros to the third's width.
WIDE_TEXT, SMALL_TEXT = ((768, 12), (1280, 20), (4096, 64)), ((32, 2), (32, 2), (96, 2))
WORDS = ["red apple blue car", "colorfulness compressibility", "0 1 2 3 4 5 6 7 8 9"]


def clip_config(tokenizer: Any, width: int, heads: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        projection_dim=width,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=heads,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def clip(tokenizer: Any, width: int, heads: int) -> CLIPTextModelWithProjection:
    return CLIPTextModelWithProjection(clip_config(tokenizer, width, heads)).eval()


def t5(tokenizer: Any, width: int, heads: int) -> T5EncoderModel:
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=width,
        d_kv=16,
        d_ff=64,
        num_layers=1,
        num_heads=heads,
        feed_forward_proj="gated-gelu",
    )
    return T5EncoderModel(config).eval()


def autoencoder(channels: int) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(32, 32, 32, 32),
        layers_per_block=1,
        latent_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        sample_size=1024,
        scaling_factor=1.5305,
        shift_factor=0.0609,
        use_quant_conv=False,
        use_post_quant_conv=False,
        force_upcast=False,
    ).eval()


def parts(*, wide: bool = False, seed: int = 0, **transformer: Any) -> dict[str, Any]:
    """All parts of a pipeline, with random weights; ``transformer`` settings replace those of the
    size."""
    widths = WIDE_TEXT if wide else SMALL_TEXT
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if wide:
            clips = [clip_tokenizer(*clip_bpe(), 77) for _ in range(2)]
        else:
            clips = [pruned_tokenizer(WORDS, 32) for _ in range(2)]
        clips[1].pad_token = "!"  # as tokenizer_2/tokenizer_config.json has it
        third = t5_tokenizer(512)
        config = (WIDE if wide else SMALL) | transformer
        made = SD3Transformer2DModel(**config).eval()
        # It begins at nothing, and would predict the same whatever it reads.
        torch.nn.init.normal_(made.proj_out.weight, std=0.02)
        return {
            "vae": autoencoder(config["in_channels"]),
            "text_encoder": clip(clips[0], *widths[0]),
            "text_encoder_2": clip(clips[1], *widths[1]),
            "text_encoder_3": t5(third, *widths[2]),
            "tokenizer": clips[0],
            "tokenizer_2": clips[1],
            "tokenizer_3": third,
            "transformer": made,
            "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
        }


def write(folder: Path, **given: Any) -> Path:
    """A folder as stock diffusers writes it."""
    StableDiffusion3Pipeline(**parts(**given)).save_pretrained(folder)
    return folder
