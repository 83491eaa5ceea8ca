"""Stable Diffusion 3 and 3.5: a transformer over text and image, trained by flow matching."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from diffusers import (
    StableDiffusion3ControlNetPipeline,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusion3InpaintPipeline,
    StableDiffusion3Pipeline,
)

from ric_diffusion.adapters.format import DiffusersFormat
from ric_diffusion.adapters.kohya import Kohya
from ric_diffusion.adapters.modelspec import ModelSpec
from ric_diffusion.models.diffusion.context import Context
from ric_diffusion.models.diffusion.family import (
    CONTROLNET,
    IMAGE_TO_IMAGE,
    INPAINTING,
    TEXT_TO_IMAGE,
    DiffusionFamily,
    diffusion_family,
)
from ric_diffusion.models.diffusion.objective import Flow
from ric_diffusion.models.diffusion.pipeline import RiCMixin
from ric_diffusion.models.known import TITLES

STEPS = 1000  # of the schedule, in which the transformer is told the time


def known_to_kohya(base: ModelSpec) -> dict[str, str]:
    """As ``library/sd3_utils.py`` of sd-scripts has it."""
    versions = {
        "stable-diffusion-v3-medium": "medium",
        "stable-diffusion-v3.5-medium": "5-medium",
        "stable-diffusion-v3.5-large": "5-large",
    }
    return {"ss_v2": "False", "ss_base_model_version": versions[base.architecture]}


# As Stability published the transformer (``networks/lora_sd3.py`` of sd-scripts trains it so).
KOHYA = Kohya(
    base=known_to_kohya,
    module="networks.lora_sd3",
    encoders={"text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"},
    layers={
        f"joint_blocks.{{}}.{theirs}": tuple(f"transformer_blocks.{{}}.{name}" for name in ours)
        for theirs, ours in {
            "x_block.attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
            "x_block.attn.proj": ("attn.to_out.0",),
            "x_block.attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
            "x_block.attn2.proj": ("attn2.to_out.0",),
            "x_block.mlp.fc1": ("ff.net.0.proj",),
            "x_block.mlp.fc2": ("ff.net.2",),
            "x_block.adaLN_modulation.1": ("norm1.linear",),
            "context_block.attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
            "context_block.attn.proj": ("attn.to_add_out",),
            "context_block.mlp.fc1": ("ff_context.net.0.proj",),
            "context_block.mlp.fc2": ("ff_context.net.2",),
            "context_block.adaLN_modulation.1": ("norm1_context.linear",),
        }.items()
    },
    reversed_halves=("transformer_blocks.{}.norm1_context.linear",),  # of the last block
)


class RiCStableDiffusion3Pipeline(RiCMixin, StableDiffusion3Pipeline):
    """Text to image, Stable Diffusion 3 and 3.5."""

    family_name = "stable-diffusion-3"


class RiCStableDiffusion3Img2ImgPipeline(RiCMixin, StableDiffusion3Img2ImgPipeline):
    """Image to image: move a given picture along the rewards."""

    family_name = "stable-diffusion-3"


class RiCStableDiffusion3InpaintPipeline(RiCMixin, StableDiffusion3InpaintPipeline):
    """Inpainting: draw a part of a picture anew."""

    family_name = "stable-diffusion-3"


class RiCStableDiffusion3ControlNetPipeline(RiCMixin, StableDiffusion3ControlNetPipeline):
    """Text to image along edges, depth, poses, as a ControlNet reads them."""

    family_name = "stable-diffusion-3"


class StableDiffusion3(DiffusionFamily):
    """Tokens of two CLIPs and of T5 follow one another, and reward tokens follow them: joint
    attention has no positions and no mask on that side. What the CLIPs pool is added to the
    embedding of the time, and so is the rewards' shift (Esser et al. 2024, figure 2)."""

    def encode(self, pipe: Any, prompts: Sequence[Sequence[str]], **options: Any) -> Context:
        first, second, third = (list(texts) for texts in prompts)
        states, _, pooled, _ = pipe.encode_prompt(
            first,
            second,
            third,
            device=pipe._execution_device,
            do_classifier_free_guidance=False,
            **options,
        )
        return Context(states=states, pooled=pooled)

    def predict(
        self, pipe: Any, noisy: torch.Tensor, t: torch.Tensor, context: Context
    ) -> torch.Tensor:
        predicted: torch.Tensor = pipe.transformer(
            hidden_states=noisy,
            timestep=t * STEPS,
            encoder_hidden_states=context.states,
            pooled_projections=context.pooled,
        ).sample
        return predicted

    def read_first(
        self, pipe: Any, contexts: dict[str, Context], later: Mapping[str, Context]
    ) -> dict[str, Context]:
        """All stock loops but that from text to image take no other pooled text than the first."""
        if "pooled_prompt_embeds" in pipe._callback_tensor_inputs:
            return contexts
        return {
            branch: replace(context, pooled=later[branch].pooled)
            for branch, context in contexts.items()
        }

    def context_width(self, denoiser: Any) -> int:
        return int(denoiser.config.joint_attention_dim)

    def modulated_layer(self, denoiser: Any) -> torch.nn.Module:
        layer: torch.nn.Module = denoiser.time_text_embed
        return layer

    def modulated_width(self, denoiser: Any) -> int:
        return int(denoiser.inner_dim)

    def objective(self, pipe: Any, **settings: Any) -> Flow:
        return Flow.of(pipe.scheduler, patch=pipe.transformer.config.patch_size, **settings)

    def architecture(self, pipe: Any) -> str:
        config = pipe.transformer.config
        if config.dual_attention_layers:
            return "stable-diffusion-v3.5-medium"
        return "stable-diffusion-v3.5-large" if config.qk_norm else "stable-diffusion-v3-medium"

    def default_size(self, pipe: Any) -> int:
        return int(pipe.transformer.config.sample_size * pipe.vae_scale_factor)


FAMILY = diffusion_family(
    StableDiffusion3,
    name="stable-diffusion-3",
    title=TITLES["stable-diffusion-3"],
    pipelines={
        TEXT_TO_IMAGE: RiCStableDiffusion3Pipeline,
        IMAGE_TO_IMAGE: RiCStableDiffusion3Img2ImgPipeline,
        INPAINTING: RiCStableDiffusion3InpaintPipeline,
        CONTROLNET: RiCStableDiffusion3ControlNetPipeline,
    },
    single_files=("sd3", "sd35_medium", "sd35_large"),
    denoiser="transformer",
    format=DiffusersFormat("transformer", kohya=KOHYA),
    comfyui_layer="t_embedder",
    parts=("vae", "text_encoder", "text_encoder_2", "text_encoder_3", "transformer"),
    text_encoders=("text_encoder", "text_encoder_2"),
    tokenizers=("tokenizer", "tokenizer_2", "tokenizer_3"),
    prompts=("prompt", "prompt_2", "prompt_3"),
    embeds=("prompt_embeds", "pooled_prompt_embeds"),
    repeats_embeds=False,
    encode_options=("lora_scale", "clip_skip", "max_sequence_length"),
    max_length=256,
    multiple=16,
    lora_layers={
        "attention": (
            "attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0",
            "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out",
            "attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0",
        ),
        "feed_forward": ("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"),
        "modulation": ("norm1.linear", "norm1_context.linear"),
    },
)  # fmt: skip
