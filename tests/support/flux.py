"""FLUX.1 in two sizes: small enough for any test, and of true widths but shallow."""

from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from transformers import CLIPTextModel

from scratch import clip_bpe, clip_tokenizer, pruned_tokenizer
from support.sd3 import WORDS, autoencoder, clip_config, t5
from support.t5 import t5_tokenizer

# From black-forest-labs/FLUX.1-dev, transformer/config.json but for the counts of layers; schnell
# has no guidance_embeds.
WIDE: dict[str, Any] = {
    "in_channels": 64,
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 128,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 768,
    "guidance_embeds": True,
    "axes_dims_rope": (16, 56, 56),
}
SMALL = WIDE | {
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 96,
    "pooled_projection_dim": 32,
    "axes_dims_rope": (4, 6, 6),
}
# Widths and heads of text_encoder and text_encoder_2.
WIDE_TEXT, SMALL_TEXT = ((768, 12), (4096, 64)), ((32, 2), (96, 2))
# scheduler/scheduler_config.json of dev and of schnell.
SCHEDULERS = {
    True: {"shift": 3.0, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15},
    False: {"shift": 1.0},
}


def parts(*, wide: bool = False, seed: int = 0, **transformer: Any) -> dict[str, Any]:
    """All parts of a pipeline, with random weights; ``transformer`` settings replace those of the
    size."""
    widths = WIDE_TEXT if wide else SMALL_TEXT
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        first = clip_tokenizer(*clip_bpe(), 77) if wide else pruned_tokenizer(WORDS, 32)
        second = t5_tokenizer(512)
        config = (WIDE if wide else SMALL) | transformer
        made = FluxTransformer2DModel(**config).eval()
        return {
            "vae": autoencoder(config["in_channels"] // 4),
            "text_encoder": CLIPTextModel(clip_config(first, *widths[0])).eval(),
            "text_encoder_2": t5(second, *widths[1]),
            "tokenizer": first,
            "tokenizer_2": second,
            "transformer": made,
            "scheduler": FlowMatchEulerDiscreteScheduler(**SCHEDULERS[config["guidance_embeds"]]),
        }


def write(folder: Path, **given: Any) -> Path:
    """A folder as stock diffusers writes it."""
    FluxPipeline(**parts(**given)).save_pretrained(folder)
    return folder
