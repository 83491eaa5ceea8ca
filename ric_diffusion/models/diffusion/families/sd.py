"""Stable Diffusion 1.x and 2.x: a U-Net, one text encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import (
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
)
from diffusers.models.attention_processor import AttnProcessor

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
from ric_diffusion.models.diffusion.objective import DiscreteDiffusion
from ric_diffusion.models.diffusion.pipeline import RiCMixin
from ric_diffusion.models.known import BUNDLED, TITLES

SMALL = 32  # latents to a side; with more of them plain attention takes gigabytes

UNET_LAYERS = {
    "attention": ("to_q", "to_k", "to_v", "to_out.0"),
    "feed_forward": ("ff.net.0.proj", "ff.net.2"),
    "convolution": ("conv1", "conv2"),
    # Where time, and in some U-Nets the pooled context, scale and shift the residual blocks.
    "modulation": ("time_emb_proj", "pool.q_proj", "pool.k_proj", "pool.v_proj"),
}


def known_to_kohya(base: ModelSpec) -> dict[str, str]:
    """As ``library/model_util.py`` of sd-scripts has it; A1111 takes a LoRA for 2.x if ``ss_v2``
    says so, and else for 1.x."""
    second = base.architecture.startswith("stable-diffusion-v2")
    version = "sd_v2" if second else "sd_v1"
    if base.prediction_type == "v":
        version += "_v"
    return {"ss_v2": str(second), "ss_base_model_version": version}


class RiCStableDiffusionPipeline(RiCMixin, StableDiffusionPipeline):
    """Text to image, Stable Diffusion 1.x and 2.x."""

    family_name = "stable-diffusion"


class RiCStableDiffusionImg2ImgPipeline(RiCMixin, StableDiffusionImg2ImgPipeline):
    """Image to image: move a given picture along the rewards."""

    family_name = "stable-diffusion"


class RiCStableDiffusionInpaintPipeline(RiCMixin, StableDiffusionInpaintPipeline):
    """Inpainting: draw a part of a picture anew."""

    family_name = "stable-diffusion"


class RiCStableDiffusionControlNetPipeline(RiCMixin, StableDiffusionControlNetPipeline):
    """Text to image along edges, depth, poses, as a ControlNet reads them."""

    family_name = "stable-diffusion"


class StableDiffusion(DiffusionFamily):
    """The U-Net reads the text encoder's last states; its time embedding modulates every block."""

    def encode(self, pipe: Any, prompts: Sequence[Sequence[str]], **options: Any) -> Context:
        (texts,) = prompts
        states, _ = pipe.encode_prompt(list(texts), pipe._execution_device, 1, False, **options)
        return Context(states=states)

    def predict(
        self, pipe: Any, noisy: torch.Tensor, t: torch.Tensor, context: Context
    ) -> torch.Tensor:
        predicted: torch.Tensor = pipe.unet(noisy, t, encoder_hidden_states=context.states).sample
        return predicted

    def context_width(self, denoiser: Any) -> int:
        return int(denoiser.config.cross_attention_dim)

    def modulated_layer(self, denoiser: Any) -> torch.nn.Module:
        layer: torch.nn.Module = denoiser.time_embedding
        return layer

    def modulated_width(self, denoiser: Any) -> int:
        return int(denoiser.time_embedding.linear_2.out_features)

    def objective(self, pipe: Any, **settings: Any) -> DiscreteDiffusion:
        return DiscreteDiffusion.of(pipe.scheduler, **settings)

    def default_size(self, pipe: Any) -> int:
        return int(pipe.unet.config.sample_size * pipe.vae_scale_factor)

    def architecture(self, pipe: Any) -> str:
        """By the width of the text encoder; one of another width is no published Stable
        Diffusion."""
        if (width := self.context_width(pipe.unet)) == 1024:
            velocity = pipe.scheduler.config.prediction_type == "v_prediction"
            return "stable-diffusion-v2-768-v" if velocity else "stable-diffusion-v2-512"
        return "stable-diffusion-v1" if width == 768 else self.name

    def is_guided(self, pipe: Any, scale: float) -> bool:
        return scale > 1 and pipe.unet.config.time_cond_proj_dim is None

    def prepare_cpu_training(self, denoiser: Any) -> None:
        """There the fused attention's backward pass takes a third of the step of a small U-Net, and
        matrix products a twentieth."""
        if denoiser.config.sample_size <= SMALL:
            denoiser.set_attn_processor(AttnProcessor())


FAMILY = diffusion_family(
    StableDiffusion,
    name="stable-diffusion",
    title=TITLES["stable-diffusion"],
    bundled=tuple(BUNDLED),
    pipelines={
        TEXT_TO_IMAGE: RiCStableDiffusionPipeline,
        IMAGE_TO_IMAGE: RiCStableDiffusionImg2ImgPipeline,
        INPAINTING: RiCStableDiffusionInpaintPipeline,
        CONTROLNET: RiCStableDiffusionControlNetPipeline,
    },
    stock=("LatentConsistencyModelPipeline",),
    single_files=("v1", "v2", "inpainting", "inpainting_v2"),
    denoiser="unet",
    format=DiffusersFormat(
        "unet", kohya=Kohya(base=known_to_kohya, encoders={"text_encoder": "lora_te_"})
    ),
    left_out_of_training={"safety_checker": None, "requires_safety_checker": False},
    comfyui_layer="time_embed",
    parts=("vae", "text_encoder", "unet"),
    text_encoders=("text_encoder",),
    tokenizers=("tokenizer",),
    prompts=("prompt",),
    embeds=("prompt_embeds",),
    lora_layers=UNET_LAYERS,
)
