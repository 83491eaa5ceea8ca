"""Pipelines of true size with random weights, and small ones of the same shape, for scripts that
measure: no hub is needed, and numbers cost what they cost.

    python scripts/random_models.py    # what the weights of each family take
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from accelerate.utils import set_module_tensor_to_device
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
)

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "tests"), str(HERE / "research")]

from ric_diffusion.models.diffusion.family import TEXT_TO_IMAGE  # noqa: E402
from ric_diffusion.models.family import family_named  # noqa: E402
from scratch import clip_bpe, clip_tokenizer  # noqa: E402
from support import flux as flux_model  # noqa: E402
from support import sd3, sdxl  # noqa: E402
from support.t5 import t5_tokenizer  # noqa: E402

STD = 0.02  # of the random weights
NOISE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
NOISE |= {"steps_offset": 1, "clip_sample": False}
# unet/config.json of stable-diffusion-v1-5; the tests' configs of true widths, with as many layers
# as stable-diffusion-xl-base-1.0, 3.5-medium and FLUX.1-dev have.
SD_UNET: dict[str, Any] = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}
SDXL_UNET = sdxl.WIDE | {"layers_per_block": 2, "transformer_layers_per_block": (1, 2, 10)}
SD3 = sd3.WIDE | {"num_layers": 24, "dual_attention_layers": tuple(range(13))}
FLUX = flux_model.WIDE | {"num_layers": 19, "num_single_layers": 38}
# text_encoder/config.json of each: width, hidden width, layers, heads.
CLIP_L, CLIP_G, T5_XXL = (768, 3072, 12, 12), (1280, 5120, 32, 20), (4096, 10240, 24, 64)
# A fifth of Stable Diffusion 1.5's widths in the network, a third in the text encoder, a quarter in
# the autoencoder.
REDUCED = {
    "unet": {"block_out_channels": (64, 128, 256, 256), "cross_attention_dim": 256},
    "text": (256, 1024, 12, 4),
    "vae": (32, 64, 128, 128),
}


def clip(tokenizer: Any, size: tuple[int, int, int, int], *, projected: bool = True) -> Any:
    width, hidden, layers, heads = size
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        projection_dim=width,
        intermediate_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)


def t5(tokenizer: Any) -> T5EncoderModel:
    width, hidden, layers, heads = T5_XXL
    config = T5Config(
        vocab_size=max(len(tokenizer), 32128),
        d_model=width,
        d_kv=width // heads,
        d_ff=hidden,
        num_layers=layers,
        num_heads=heads,
        feed_forward_proj="gated-gelu",
    )
    return T5EncoderModel(config)


def autoencoder(
    channels: int = 4, widths: tuple[int, ...] = (128, 256, 512, 512), **config: Any
) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=widths,
        layers_per_block=2,
        latent_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        **config,
    )


def stable_diffusion(*, reduced: bool = False) -> dict[str, Any]:
    tokenizer = clip_tokenizer(*clip_bpe(), 77)
    sizes: dict[str, Any] = REDUCED if reduced else {"text": CLIP_L}
    return {
        "vae": autoencoder(widths=sizes["vae"]) if reduced else autoencoder(),
        "text_encoder": clip(tokenizer, sizes["text"], projected=False),
        "tokenizer": tokenizer,
        "unet": UNet2DConditionModel(**SD_UNET | sizes.get("unet", {})),
        "scheduler": DDPMScheduler(**NOISE),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }


def stable_diffusion_xl() -> dict[str, Any]:
    tokenizers = [clip_tokenizer(*clip_bpe(), 77) for _ in range(2)]
    tokenizers[1].pad_token = "!"  # as tokenizer_2/tokenizer_config.json has it
    return {
        "vae": autoencoder(scaling_factor=0.13025, force_upcast=True),
        "text_encoder": clip(tokenizers[0], CLIP_L, projected=False),
        "text_encoder_2": clip(tokenizers[1], CLIP_G),
        "tokenizer": tokenizers[0],
        "tokenizer_2": tokenizers[1],
        "unet": UNet2DConditionModel(**SDXL_UNET),
        "scheduler": DDPMScheduler(**NOISE),
    }


def stable_diffusion_3() -> dict[str, Any]:
    tokenizers = [clip_tokenizer(*clip_bpe(), 77) for _ in range(2)]
    tokenizers[1].pad_token = "!"
    third = t5_tokenizer(512)
    shifted = {"scaling_factor": 1.5305, "shift_factor": 0.0609}
    return {
        "vae": autoencoder(16, use_quant_conv=False, use_post_quant_conv=False, **shifted),
        "text_encoder": clip(tokenizers[0], CLIP_L),
        "text_encoder_2": clip(tokenizers[1], CLIP_G),
        "text_encoder_3": t5(third),
        "tokenizer": tokenizers[0],
        "tokenizer_2": tokenizers[1],
        "tokenizer_3": third,
        "transformer": SD3Transformer2DModel(**SD3),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
    }


def flux() -> dict[str, Any]:
    first, second = clip_tokenizer(*clip_bpe(), 77), t5_tokenizer(512)
    shifted = {"scaling_factor": 0.3611, "shift_factor": 0.1159}
    return {
        "vae": autoencoder(16, use_quant_conv=False, use_post_quant_conv=False, **shifted),
        "text_encoder": clip(first, CLIP_L, projected=False),
        "text_encoder_2": t5(second),
        "tokenizer": first,
        "tokenizer_2": second,
        "transformer": FluxTransformer2DModel(**FLUX),
        "scheduler": FlowMatchEulerDiscreteScheduler(
            shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15
        ),
    }


MODELS: Mapping[str, Callable[..., dict[str, Any]]] = {
    "stable-diffusion": stable_diffusion,
    "stable-diffusion-xl": stable_diffusion_xl,
    "stable-diffusion-3": stable_diffusion_3,
    "flux": flux,
}


def pipeline(
    family: str,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    seed: int = 0,
    **size: bool,
) -> Any:
    """Our pipeline of a family in a precision, which its weights never leave while they are made;
    of Stable Diffusion 1.5 there is one with ``reduced=True``."""
    generator = torch.Generator(device).manual_seed(seed)
    with init_empty_weights(include_buffers=False):
        made = MODELS[family](**size)
    for module in made.values():
        if not isinstance(module, torch.nn.Module):
            continue
        for name, parameter in list(module.named_parameters()):
            value = torch.empty(parameter.shape, device=device, dtype=dtype)
            if parameter.ndim == 1:  # of norms, and biases
                value.fill_(float(name.endswith("weight")))
            else:
                value.normal_(std=STD, generator=generator)
            set_module_tensor_to_device(module, name, device, value=value, dtype=dtype)
        module.to(device).eval().requires_grad_(False)
    pipe = family_named(family).pipelines[TEXT_TO_IMAGE](**made)  # type: ignore[attr-defined]
    pipe.set_progress_bar_config(disable=True)
    return pipe


def weights_table() -> str:
    """GB of each family's weights in half precision: of the denoiser, which training and drawing
    keep on the GPU, and of the others, which training needs until pictures and captions are
    encoded."""
    lines = ["| model | denoiser, GB | text encoders, GB | autoencoder, GB |"]
    lines.append("| --- | --- | --- | --- |")
    for family, make in MODELS.items():
        with init_empty_weights(include_buffers=False):
            parts = make()
        sizes = {"denoiser": 0, "text": 0, "vae": 0}
        for name, part in parts.items():
            if isinstance(part, torch.nn.Module):
                kind = name if name == "vae" else "text" if name.startswith("text") else "denoiser"
                sizes[kind] += sum(parameter.numel() for parameter in part.parameters())
        cells = " | ".join(f"{2 * count / 1e9:.1f}" for count in sizes.values())
        lines.append(f"| {family} | {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(weights_table())
