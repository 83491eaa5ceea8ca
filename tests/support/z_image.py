"""Z-Image in two sizes: small enough for any test, and of true widths but shallow."""

from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
from diffusers.models.controlnets.controlnet_z_image import ZImageControlNetModel
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

from support.sd3 import autoencoder
from support.words import byte_level

# From Tongyi-MAI/Z-Image-Turbo, transformer/config.json but for the counts of layers.
WIDE: dict[str, Any] = {
    "in_channels": 16,
    "dim": 3840,
    "n_layers": 1,
    "n_refiner_layers": 1,
    "n_heads": 30,
    "n_kv_heads": 30,
    "cap_feat_dim": 2560,
    "axes_dims": (32, 48, 48),
    "axes_lens": (1536, 512, 512),
}
SMALL = WIDE | {
    "in_channels": 4,
    "dim": 48,
    "n_layers": 2,
    "n_heads": 2,
    "n_kv_heads": 2,
    "cap_feat_dim": 32,
    "axes_dims": (8, 8, 8),
}
# text_encoder/config.json but for the counts of layers and words, and the feed-forward's width.
WIDE_TEXT = {"hidden_size": 2560, "num_attention_heads": 32, "num_key_value_heads": 8}
WIDE_TEXT |= {"head_dim": 128}
SMALL_TEXT = {"hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}
# Of tokenizer/tokenizer_config.json, what a single prompt makes of it.
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def tokenizer() -> PreTrainedTokenizerFast:
    """Of Qwen's kind: bytes and a chat template, and room for far more than the pipeline reads."""
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    made = byte_level(special, length=131072, pad_token=special[0], eos_token=special[2])
    made.chat_template = TEMPLATE
    return made


def text_encoder(words: int, **widths: int) -> Qwen3Model:
    config = Qwen3Config(
        vocab_size=words,
        intermediate_size=64,
        num_hidden_layers=2,
        max_position_embeddings=40960,
        initializer_range=0.3,
        **widths,
    )
    return Qwen3Model(config).eval()


def parts(*, wide: bool = False, seed: int = 0, **transformer: Any) -> dict[str, Any]:
    """All parts of a pipeline, with random weights; ``transformer`` settings replace those of the
    size."""
    config = (WIDE if wide else SMALL) | transformer
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        words = tokenizer()
        made = ZImageTransformer2DModel(**config).eval()
        for token in (made.x_pad_token, made.cap_pad_token):  # they begin as zeros, or as anything
            torch.nn.init.normal_(token, std=0.02)
        return {
            "vae": autoencoder(config["in_channels"]),
            "text_encoder": text_encoder(len(words), **(WIDE_TEXT if wide else SMALL_TEXT)),
            "tokenizer": words,
            "transformer": made,
            "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
        }


def controlnet(seed: int = 1) -> ZImageControlNetModel:
    """For the small size; it says something, which an untrained one does not."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = ZImageControlNetModel(
            control_layers_places=[0],
            control_in_dim=SMALL["in_channels"],
            dim=SMALL["dim"],
            n_refiner_layers=SMALL["n_refiner_layers"],
            n_heads=SMALL["n_heads"],
            n_kv_heads=SMALL["n_kv_heads"],
        )
        for parameter in made.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        return made.eval()


def write(folder: Path, **given: Any) -> Path:
    """A folder as stock diffusers writes it."""
    ZImagePipeline(**parts(**given)).save_pretrained(folder)
    return folder
