"""Stable Diffusion XL: a larger U-Net that reads two text encoders and is told sizes and crops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from diffusers import (
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
)

from ric_diffusion.adapters.format import DiffusersFormat
from ric_diffusion.adapters.kohya import Kohya
from ric_diffusion.adapters.modelspec import ModelSpec
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.diffusion.context import Context
from ric_diffusion.models.diffusion.families.sd import UNET_LAYERS, StableDiffusion
from ric_diffusion.models.diffusion.family import (
    CONTROLNET,
    IMAGE_TO_IMAGE,
    INPAINTING,
    TEXT_TO_IMAGE,
    diffusion_family,
)
from ric_diffusion.models.diffusion.pipeline import RiCMixin
from ric_diffusion.models.family import Source
from ric_diffusion.models.known import TITLES

SIZES = "sizes"  # in a context's ``extra``: (B, 6), what a training picture's size and crop are


def known_to_kohya(base: ModelSpec) -> dict[str, str]:
    """As ``library/sdxl_model_util.py`` of sd-scripts has it, by which A1111 knows it."""
    return {"ss_v2": "False", "ss_base_model_version": "sdxl_base_v1-0"}


KOHYA = Kohya(
    base=known_to_kohya,
    encoders={"text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"},
)


class RiCStableDiffusionXLPipeline(RiCMixin, StableDiffusionXLPipeline):
    """Text to image, Stable Diffusion XL."""

    family_name = "stable-diffusion-xl"


class RiCStableDiffusionXLImg2ImgPipeline(RiCMixin, StableDiffusionXLImg2ImgPipeline):
    """Image to image: move a given picture along the rewards."""

    family_name = "stable-diffusion-xl"


class RiCStableDiffusionXLInpaintPipeline(RiCMixin, StableDiffusionXLInpaintPipeline):
    """Inpainting: draw a part of a picture anew."""

    family_name = "stable-diffusion-xl"


class RiCStableDiffusionXLControlNetPipeline(RiCMixin, StableDiffusionXLControlNetPipeline):
    """Text to image along edges, depth, poses, as a ControlNet reads them."""

    family_name = "stable-diffusion-xl"


class StableDiffusionXL(StableDiffusion):
    """States of both text encoders side by side, the second one's pooled text, and what the
    training picture's size and crop were (Podell et al. 2023, sections 2.2 and 2.3)."""

    def claims(self, source: Source) -> bool:
        if source.header is not None:
            refiner = source.header.type == "xl_refiner"
        else:
            index = source.index or {}
            refiner = super().claims(source) and not (index.get("text_encoder") or [None])[0]
        if refiner:
            raise InputError(
                f"{source.name}: the refiner of Stable Diffusion XL, which only finishes pictures "
                "of the base model; give that"
            )
        return super().claims(source)

    def architecture(self, pipe: Any) -> str:
        return "stable-diffusion-xl-v1-base"

    def encode(self, pipe: Any, prompts: Sequence[Sequence[str]], **options: Any) -> Context:
        """Where the pipeline guides away from nothing at all instead of from an empty text
        (``force_zeros_for_empty_prompt``), an empty prompt is that nothing."""
        pairs = list(zip(*prompts, strict=True))
        zeros = pipe.config.force_zeros_for_empty_prompt
        said = [i for i, texts in enumerate(pairs) if any(texts) or not zeros]
        # Where nothing is said, one row is encoded for its shape.
        first, second = (
            list(texts) for texts in zip(*[pairs[i] for i in said or [0]], strict=True)
        )
        states, _, pooled, _ = pipe.encode_prompt(
            first, second, pipe._execution_device, 1, False, **options
        )
        if len(said) < len(pairs):
            states, pooled = (_rows_at(said, rows, len(pairs)) for rows in (states, pooled))
        return Context(states=states, pooled=pooled)

    def empty_states(self, pipe: Any, context: Context, **options: Any) -> torch.Tensor:
        """More of nothing where a context is nothing, as in the stock pipeline; else of an empty
        text."""
        states: torch.Tensor = pipe.encode_prompt(
            "", "", pipe._execution_device, 1, False, **options
        )[0]
        nothing = (context.states == 0).flatten(1).all(dim=1)
        return states.masked_fill(nothing[:, None, None], 0.0)

    def with_sizes(self, context: Context, sizes: torch.Tensor) -> Context:
        return replace(context, extra={**context.extra, SIZES: sizes.to(context.states.device)})

    def predict(
        self, pipe: Any, noisy: torch.Tensor, t: torch.Tensor, context: Context
    ) -> torch.Tensor:
        """For pictures of the sizes that the context has, or whole ones of the latents' own."""
        height, width = (side * pipe.vae_scale_factor for side in noisy.shape[-2:])
        ids = context.extra.get(SIZES)
        if ids is None:
            whole = torch.tensor([height, width, 0, 0, height, width])
            ids = whole.expand(len(noisy), -1)
        added = {"text_embeds": context.pooled, "time_ids": ids.to(noisy)}
        predicted: torch.Tensor = pipe.unet(
            noisy, t, encoder_hidden_states=context.states, added_cond_kwargs=added
        ).sample
        return predicted


def _rows_at(places: Sequence[int], rows: torch.Tensor, count: int) -> torch.Tensor:
    """The rows at these places among ``count``, and zeros at the others."""
    found = rows.new_zeros(count, *rows.shape[1:])
    found[list(places)] = rows[: len(places)]
    return found


FAMILY = diffusion_family(
    StableDiffusionXL,
    name="stable-diffusion-xl",
    title=TITLES["stable-diffusion-xl"],
    pipelines={
        TEXT_TO_IMAGE: RiCStableDiffusionXLPipeline,
        IMAGE_TO_IMAGE: RiCStableDiffusionXLImg2ImgPipeline,
        INPAINTING: RiCStableDiffusionXLInpaintPipeline,
        CONTROLNET: RiCStableDiffusionXLControlNetPipeline,
    },
    single_files=("xl_base", "xl_inpaint"),
    denoiser="unet",
    format=DiffusersFormat("unet", kohya=KOHYA),
    comfyui_layer="time_embed",
    parts=("vae", "text_encoder", "text_encoder_2", "unet"),
    text_encoders=("text_encoder", "text_encoder_2"),
    tokenizers=("tokenizer", "tokenizer_2"),
    prompts=("prompt", "prompt_2"),
    embeds=("prompt_embeds", "pooled_prompt_embeds"),
    in_loop={"pooled_prompt_embeds": "add_text_embeds"},
    lora_layers=UNET_LAYERS,
)
