"""FLUX.1, dev and schnell: a transformer over text and packed latents, its guidance distilled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import (
    FluxControlNetPipeline,
    FluxImg2ImgPipeline,
    FluxInpaintPipeline,
    FluxPipeline,
)

from ric_diffusion.adapters.format import DiffusersFormat
from ric_diffusion.adapters.kohya import Kohya
from ric_diffusion.adapters.modelspec import ModelSpec
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.diffusion.context import Context
from ric_diffusion.models.diffusion.family import (
    CONTROLNET,
    IMAGE_TO_IMAGE,
    INPAINTING,
    OPTIONS,
    TEXT_TO_IMAGE,
    DiffusionFamily,
    diffusion_family,
)
from ric_diffusion.models.diffusion.objective import Flow
from ric_diffusion.models.diffusion.pipeline import RiCMixin
from ric_diffusion.models.family import Source
from ric_diffusion.models.known import TITLES

PATCH = 2  # latents to the side of a token
SINGLE_BLOCKS = 38
GUIDANCE = 3.5  # that a training step is told, as in diffusers' train_dreambooth_lora_flux.py
SCHNELL = {"num_inference_steps": 4, "max_sequence_length": 256}  # as its model card draws with it


def known_to_kohya(base: ModelSpec) -> dict[str, str]:
    """As ``library/flux_utils.py`` of sd-scripts has it."""
    return {"ss_v2": "False", "ss_base_model_version": "flux1"}


# As Black Forest Labs published the transformer (``networks/lora_flux.py`` of sd-scripts trains it
# so); Forge knows a LoRA for it by ``implementation``.
KOHYA = Kohya(
    base=known_to_kohya,
    module="networks.lora_flux",
    encoders={"text_encoder": "lora_te1_"},
    implementation="https://github.com/black-forest-labs/flux",
    layers={
        f"{theirs}_blocks.{{}}.{layer}": tuple(f"{ours}_blocks.{{}}.{name}" for name in names)
        for theirs, ours, layers in (
            (
                "double",
                "transformer",
                {
                    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
                    "img_attn.proj": ("attn.to_out.0",),
                    "img_mlp.0": ("ff.net.0.proj",),
                    "img_mlp.2": ("ff.net.2",),
                    "img_mod.lin": ("norm1.linear",),
                    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
                    "txt_attn.proj": ("attn.to_add_out",),
                    "txt_mlp.0": ("ff_context.net.0.proj",),
                    "txt_mlp.2": ("ff_context.net.2",),
                    "txt_mod.lin": ("norm1_context.linear",),
                },
            ),
            (
                "single",
                "single_transformer",
                {
                    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
                    "linear2": ("proj_out",),
                    "modulation.lin": ("norm.linear",),
                },
            ),
        )
        for layer, names in layers.items()
    },
    widths={"single_transformer_blocks.{}.proj_mlp": 4},
)


class RiCFluxPipeline(RiCMixin, FluxPipeline):
    """Text to image, FLUX.1."""

    family_name = "flux"


class RiCFluxImg2ImgPipeline(RiCMixin, FluxImg2ImgPipeline):
    """Image to image: move a given picture along the rewards."""

    family_name = "flux"


class RiCFluxInpaintPipeline(RiCMixin, FluxInpaintPipeline):
    """Inpainting: draw a part of a picture anew."""

    family_name = "flux"


class RiCFluxControlNetPipeline(RiCMixin, FluxControlNetPipeline):
    """Text to image along edges, depth, poses, as a ControlNet reads them."""

    family_name = "flux"


class Flux(DiffusionFamily):
    """Reward tokens follow T5's; all text has the position 0, so they need no place of their own.
    CLIP's pooled text is added to the embedding of the time, and so is the rewards' shift.

    ``guidance_scale`` is a number that the network of FLUX.1 dev is told (Meng et al. 2022, arXiv
    2210.03142), and none that of schnell is: what steers away from anything is ``true_cfg_scale``,
    at a second pass for every step.
    """

    def claims(self, source: Source) -> bool:
        if super().claims(source):
            return True
        named = str((source.index or {}).get("_class_name"))
        if named.startswith("Flux") and not named.startswith("Flux2"):
            raise InputError(
                f"{source.name}: {named} reads a picture beside noise and text, or is no pipeline "
                "of its own; give FLUX.1 dev or schnell, or a fine-tune of them"
            )
        return False

    def encode(self, pipe: Any, prompts: Sequence[Sequence[str]], **options: Any) -> Context:
        first, second = (list(texts) for texts in prompts)
        states, pooled, _ = pipe.encode_prompt(
            first, second, device=pipe._execution_device, **options
        )
        return Context(states=states, pooled=pooled)

    def predict(
        self, pipe: Any, noisy: torch.Tensor, t: torch.Tensor, context: Context
    ) -> torch.Tensor:
        height, width = (side // PATCH for side in noisy.shape[-2:])
        device, dtype = noisy.device, noisy.dtype
        told = pipe.transformer.config.guidance_embeds
        packed: torch.Tensor = pipe.transformer(
            hidden_states=torch.nn.functional.pixel_unshuffle(noisy, PATCH).flatten(2).mT,
            timestep=t.to(noisy.dtype),
            guidance=noisy.new_full((len(noisy),), GUIDANCE) if told else None,
            pooled_projections=context.pooled,
            encoder_hidden_states=context.states,
            txt_ids=noisy.new_zeros(context.states.shape[1], 3),
            img_ids=pipe._prepare_latent_image_ids(len(noisy), height, width, device, dtype),
        ).sample
        return unpacked(packed, height, width)

    def unpacked(self, pipe: Any, latents: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        width, height = (side // (PATCH * pipe.vae_scale_factor) for side in size)
        return unpacked(latents, height, width)

    def context_width(self, denoiser: Any) -> int:
        return int(denoiser.config.joint_attention_dim)

    def modulated_layer(self, denoiser: Any) -> torch.nn.Module:
        layer: torch.nn.Module = denoiser.time_text_embed
        return layer

    def modulated_width(self, denoiser: Any) -> int:
        return int(denoiser.inner_dim)

    def objective(self, pipe: Any, **settings: Any) -> Flow:
        return Flow.of(pipe.scheduler, patch=PATCH, **settings)

    def default_size(self, pipe: Any) -> int:
        return int(pipe.default_sample_size * pipe.vae_scale_factor)

    def architecture(self, pipe: Any) -> str:
        return "flux-1-dev" if pipe.transformer.config.guidance_embeds else "flux-1-schnell"

    def channels(self, denoiser: Any) -> int:
        return int(denoiser.config.in_channels) // PATCH**2

    def default_sampling(self, model: Any = None) -> dict[str, Any]:
        told = model is None or model.transformer.config.guidance_embeds
        return super().default_sampling(model) if told else dict(SCHNELL)

    def read_next(
        self, contexts: Mapping[str, Context], arguments: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The loop takes no other tensors than those of the call, which it reads in every step."""
        for branch, context in contexts.items():
            for name, tensor in self.to_arguments(context, branch).items():
                arguments[name].copy_(tensor)
        return {}

    def passes_per_step(self, pipe: Any, sampling: Mapping[str, Any]) -> int:
        """The branch to steer away from is a pass of its own, not half of a batch."""
        return 2 if self.is_guided(pipe, self.scale(sampling)) else 1

    def unguided(self, scale: float) -> str:
        return (
            f"give {self.guidance} above 1, not {scale}, at a second pass a step: FLUX.1's own "
            "guidance is distilled into the network and has no branch to steer away from"
        )


def unpacked(latents: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """(B, height * width, C) tokens -> (B, C / 4, 2 * height, 2 * width) latents."""
    return torch.nn.functional.pixel_shuffle(latents.mT.unflatten(2, (height, width)), PATCH)


FAMILY = diffusion_family(
    Flux,
    name="flux",
    title=TITLES["flux"],
    pipelines={
        TEXT_TO_IMAGE: RiCFluxPipeline,
        IMAGE_TO_IMAGE: RiCFluxImg2ImgPipeline,
        INPAINTING: RiCFluxInpaintPipeline,
        CONTROLNET: RiCFluxControlNetPipeline,
    },
    single_files=("flux-dev", "flux-schnell"),
    denoiser="transformer",
    format=DiffusersFormat("transformer", kohya=KOHYA),
    comfyui_layer="time_in",
    parts=("vae", "text_encoder", "text_encoder_2", "transformer"),
    text_encoders=("text_encoder",),
    tokenizers=("tokenizer", "tokenizer_2"),
    prompts=("prompt", "prompt_2"),
    embeds=("prompt_embeds", "pooled_prompt_embeds"),
    guidance="true_cfg_scale",
    options=OPTIONS | {"true_cfg_scale": "true_cfg_scale"},
    repeats_embeds=False,
    encode_options=("lora_scale", "max_sequence_length"),
    max_length=512,
    multiple=16,
    lora_layers={
        "attention": (
            "attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0",
            "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out",
        ),
        # A single block has one layer out of attention and feed-forward together; it goes by its
        # whole name, for the network's last layer is called proj_out as well.
        "feed_forward": (
            "ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2", "proj_mlp",
            *(f"single_transformer_blocks.{block}.proj_out" for block in range(SINGLE_BLOCKS)),
        ),
        "modulation": ("norm.linear", "norm1.linear", "norm1_context.linear"),
    },
)  # fmt: skip
