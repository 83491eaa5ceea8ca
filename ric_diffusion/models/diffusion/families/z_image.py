"""Z-Image: a transformer over one stream of text and image, trained by flow matching."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import (
    ZImageControlNetPipeline,
    ZImageImg2ImgPipeline,
    ZImageInpaintPipeline,
    ZImagePipeline,
)

from ric_diffusion.io.errors import InputError
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
from ric_diffusion.models.family import Source
from ric_diffusion.models.known import TITLES

SIZE = 1024  # of pictures, by default in the stock calls
PATCH = 2
BLOCKS, REFINERS = 30, 2


class ZImageMixin(RiCMixin):
    """What the classes of this family have in common."""

    family_name = "z-image"

    def _encode_prompt(self, prompt: Any, *args: Any, **kwargs: Any) -> list[torch.Tensor]:
        # The stock method writes the chat template into the list of prompts that it is given.
        given = list(prompt) if isinstance(prompt, list) else prompt
        encoded: list[torch.Tensor] = super()._encode_prompt(given, *args, **kwargs)
        return encoded


class RiCZImagePipeline(ZImageMixin, ZImagePipeline):
    """Text to image, Z-Image."""


class RiCZImageImg2ImgPipeline(ZImageMixin, ZImageImg2ImgPipeline):
    """Image to image: move a given picture along the rewards."""


class RiCZImageInpaintPipeline(ZImageMixin, ZImageInpaintPipeline):
    """Inpainting: draw a part of a picture anew."""


class RiCZImageControlNetPipeline(ZImageMixin, ZImageControlNetPipeline):
    """Text to image along edges, depth, poses, as a ControlNet reads them."""


class ZImage(DiffusionFamily):
    """A caption is read without padding, and reward tokens follow it in the one stream of text and
    picture (Cai et al. 2025, arXiv 2511.22699).

    The transformer pads each caption to a multiple of 32 tokens and counts the picture's first
    coordinate from there. So up to 32 reward tokens move a picture by one block at most, as a
    caption that is a few words longer does. Their shift is added to the embedding of the time,
    which scales and gates every block.
    """

    def claims(self, source: Source) -> bool:
        if source.index and source.index.get("_class_name") == "ZImageOmniPipeline":
            raise InputError(
                f"{source.name}: Z-Image Omni, whose captions have pictures between them and no "
                "one end for rewards; give a model that ZImagePipeline draws with"
            )
        return super().claims(source)

    def encode(self, pipe: Any, prompts: Sequence[Sequence[str]], **options: Any) -> Context:
        (texts,) = prompts
        states, _ = pipe.encode_prompt(
            list(texts), pipe._execution_device, do_classifier_free_guidance=False, **options
        )
        return Context.of_rows(states)

    def tokens_around(self, tokenizer: Any) -> int:
        """Of the chat template, as the stock ``_encode_prompt`` applies it."""
        empty = tokenizer.apply_chat_template(
            [{"role": "user", "content": ""}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=True,
        )
        return len(tokenizer(empty, add_special_tokens=False).input_ids)

    def to_arguments(self, context: Context, branch: str = "") -> dict[str, Any]:
        return {f"{branch}prompt_embeds": context.rows()}

    def read_next(
        self, contexts: Mapping[str, Context], arguments: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The loop puts the branches together anew in every step."""
        given = [self.to_arguments(context, branch) for branch, context in contexts.items()]
        return {name: rows for one in given for name, rows in one.items()}

    def from_arguments(self, arguments: Mapping[str, Any], branch: str = "") -> Context | None:
        states = arguments.get(f"{branch}prompt_embeds")
        return None if states is None else Context.of_rows(states)

    def predict(
        self, pipe: Any, noisy: torch.Tensor, t: torch.Tensor, context: Context
    ) -> torch.Tensor:
        """The transformer is told how much of the noise is gone and predicts picture - noise, as
        in diffusers' ``train_dreambooth_lora_z_image.py``."""
        predicted = pipe.transformer(list(noisy[:, :, None]), 1 - t, context.rows()).sample
        return -torch.stack(predicted)[:, :, 0]

    def context_width(self, denoiser: Any) -> int:
        return int(denoiser.config.cap_feat_dim)

    def modulated_layer(self, denoiser: Any) -> torch.nn.Module:
        layer: torch.nn.Module = denoiser.t_embedder
        return layer

    def modulated_width(self, denoiser: Any) -> int:
        return int(denoiser.t_embedder.mlp[2].out_features)

    def objective(self, pipe: Any, **settings: Any) -> Flow:
        """Times are logit-normal and shifted, as in section 4.3 of the paper."""
        return Flow.of(pipe.scheduler, patch=PATCH, **settings)

    def default_size(self, pipe: Any) -> int:
        return SIZE


FAMILY = diffusion_family(
    ZImage,
    name="z-image",
    title=TITLES["z-image"],
    pipelines={
        TEXT_TO_IMAGE: RiCZImagePipeline,
        IMAGE_TO_IMAGE: RiCZImageImg2ImgPipeline,
        INPAINTING: RiCZImageInpaintPipeline,
        CONTROLNET: RiCZImageControlNetPipeline,
    },
    single_files=("z-image-turbo",),
    denoiser="transformer",
    comfyui_layer="t_embedder",
    parts=("vae", "text_encoder", "transformer"),
    tokenizers=("tokenizer",),
    prompts=("prompt",),
    embeds=("prompt_embeds",),
    guidance_off=0.0,
    context_argument="cap_feats",
    encode_options=("max_sequence_length",),
    max_length=512,
    multiple=16,
    lora_layers={
        "attention": (
            "attention.to_q", "attention.to_k", "attention.to_v", "attention.to_out.0",
        ),
        "feed_forward": ("feed_forward.w1", "feed_forward.w2", "feed_forward.w3"),
        # A block's layer goes by its whole name, for the last block has an activation there.
        "modulation": (
            *(f"layers.{block}.adaLN_modulation.0" for block in range(BLOCKS)),
            *(f"noise_refiner.{block}.adaLN_modulation.0" for block in range(REFINERS)),
            "adaLN_modulation.1",
        ),
    },
)  # fmt: skip
