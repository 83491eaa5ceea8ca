"""What the families of diffusion models have in common, and what each of them says itself."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ric_diffusion.adapters.adapter import Adapter
from ric_diffusion.adapters.card import Use
from ric_diffusion.adapters.format import DiffusersFormat
from ric_diffusion.data.medium import IMAGE
from ric_diffusion.models.diffusion.backend import (
    DiffusionBackend,
    DiffusionConfig,
    check_sampling,
)
from ric_diffusion.models.diffusion.context import Context
from ric_diffusion.models.diffusion.latents import Latents
from ric_diffusion.models.diffusion.objective import Objective
from ric_diffusion.models.diffusion.sampler import DiffusionSampler
from ric_diffusion.models.family import Family, Source, model_path
from ric_diffusion.models.protocol import weights_digest
from ric_diffusion.rewards import RewardSpace

TEXT_TO_IMAGE, IMAGE_TO_IMAGE = "text-to-image", "image-to-image"  # the doors of a family

USE = Use(
    library="diffusers",
    task="text-to-image",
    python="""from ric_diffusion import RiCPipeline

pipe = RiCPipeline.from_pretrained("{base}")
pipe.load_adapter("this/folder")
pipe("a prompt", targets={{"{reward}": 1.0}}).images[0].save("picture.png")""",
    prompt="a prompt",
    elsewhere={
        "text": "Other programs take the LoRA (`ric export --adapter this/folder --format kohya "
        "--out sliders.safetensors`) and, as the prompt, what `ric prompt --adapter this/folder …` "
        "prints.",
        "embedding": "ComfyUI takes it through the nodes of ric-diffusion, where it has the base. "
        "Stock diffusers loads the LoRA, but without its reward tokens it has no sliders.",
    },
)
OPTIONS = {
    "steps": "num_inference_steps",
    "guidance_scale": "guidance_scale",
    "contrast": "contrast",
    "prompt_guidance": "prompt_guidance",
}


@dataclass(frozen=True, kw_only=True)
class DiffusionFamily(Family):
    """A family of pipelines of diffusers.

    Attributes:
        pipelines: our class for each door.
        stock: the classes that a ``model_index.json`` of this family may name.
        denoiser: the pipeline's part that is trained, an attribute's name; LoRA keys begin with it.
        parts: the pipeline's parts with weights, the denoiser last.
        tokenizers: what counts a prompt's tokens, attributes' names.
        prompts: the arguments of the stock call that are prompts.
        embeds: its arguments for the tensors of a context: states first, then pooled.
        lora_layers: the ends of layers' names that a LoRA may change, by kind of layer.
    """

    pipelines: Mapping[str, type]
    stock: tuple[str, ...]
    denoiser: str
    parts: tuple[str, ...]
    tokenizers: tuple[str, ...]
    prompts: tuple[str, ...]
    embeds: tuple[str, ...]
    lora_layers: Mapping[str, tuple[str, ...]]

    # What a family says itself.

    def encode(self, pipe: Any, prompts: Sequence[Sequence[str]], **options: Any) -> Context:
        """Texts for each of ``self.prompts``, B each -> their context as the frozen text encoders
        give it; ``options``: lora_scale, clip_skip."""
        raise NotImplementedError

    def predict(
        self, pipe: Any, noisy: torch.Tensor, t: torch.Tensor, context: Context
    ) -> torch.Tensor:
        """What the denoiser predicts for noisy latents at times (B,) under a context."""
        raise NotImplementedError

    def context_width(self, denoiser: Any) -> int:
        """Width of the states that the denoiser reads."""
        raise NotImplementedError

    def modulated_layer(self, denoiser: Any) -> torch.nn.Module:
        """The layer whose output, (B, W), modulates every block."""
        raise NotImplementedError

    def modulated_width(self, denoiser: Any) -> int:
        """W of that output."""
        raise NotImplementedError

    def objective(self, pipe: Any, **settings: Any) -> Objective:
        """What the denoiser is trained on; ``settings``: min_snr_gamma, timestep_shift."""
        raise NotImplementedError

    def default_size(self, pipe: Any) -> int:
        """The side in pixels that the model was trained at."""
        raise NotImplementedError

    def is_guided(self, pipe: Any, guidance_scale: float) -> bool:
        """Whether a call with this scale has a branch that guidance steers away from."""
        return guidance_scale > 1

    def prepare_cpu_training(self, denoiser: Any) -> None:
        """Whatever makes training on a CPU faster without changing what is computed."""

    # What they have in common.

    def claims(self, source: Source) -> bool:
        return source.index is not None and source.index.get("_class_name") in self.stock

    def load(self, model: str, device: str | torch.device, dtype: torch.dtype) -> Any:
        pipe = self.pipelines[TEXT_TO_IMAGE].from_pretrained(model, dtype=dtype)  # type: ignore[attr-defined]
        pipe.set_progress_bar_config(disable=True)
        return pipe.to(device)

    def sibling(self, pipe: Any, door: str) -> Any:
        """The pipeline of another door over the same parts and with the same settings. Not by
        ``from_pipe``, which would cast the parts that both share."""
        cls = self.pipelines[door]
        settings = set(inspect.signature(cls).parameters) - set(pipe.components)
        kept = {name: pipe.config[name] for name in settings if name in pipe.config}
        sibling = cls(**pipe.components, **kept)
        sibling.set_progress_bar_config(disable=True)
        return sibling

    def sampler(self, model: Any, sampling: Mapping[str, Any] | None = None) -> DiffusionSampler:
        return DiffusionSampler(model, sampling)

    def create_backend(
        self,
        model: str,
        space: RewardSpace,
        settings: Any,
        *,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> DiffusionBackend:
        pipe = self.load(model, device, torch.float32)
        pipe.unload_adapter()
        return DiffusionBackend.create(pipe, model, space, settings, seed=seed)

    def digests(self, model: Any) -> list[str]:
        return [weights_digest(getattr(model, part)) for part in self.parts]

    def tokenizer(self, model: str, adapter: Adapter) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(model_path(model), subfolder=self.tokenizers[0])

    def check_sampling(self, sampling: Mapping[str, Any]) -> None:
        check_sampling(sampling)

    def latents(self, pipe: Any) -> Latents:
        return Latents.of(pipe.vae)


def diffusion_family(cls: type[DiffusionFamily], **spec: Any) -> DiffusionFamily:
    """A family with what all of them share filled in."""
    shared: dict[str, Any] = {
        "medium": IMAGE,
        "section": "diffusion",
        "settings": DiffusionConfig,
        "use": USE,
        "options": OPTIONS,
        "software": ("torch", "diffusers"),
        "format": DiffusersFormat(spec["denoiser"]),
    }
    return cls(**shared | spec)
