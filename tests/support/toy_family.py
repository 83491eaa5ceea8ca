"""A third model family, whole in this file: a transformer that is trained by flow matching.

What its tests show is that a family needs nothing elsewhere but its line in FAMILIES.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.image_processor import VaeImageProcessor
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.stable_diffusion import StableDiffusionPipelineOutput

from ric_diffusion.models.checkpoint import Checkpoint, ModelName
from ric_diffusion.models.diffusion.context import Context
from ric_diffusion.models.diffusion.family import (
    TEXT_TO_IMAGE,
    DiffusionFamily,
    diffusion_family,
)
from ric_diffusion.models.diffusion.objective import Predict, stratified
from ric_diffusion.models.diffusion.pipeline import RiCMixin
from ric_diffusion.models.protocol import Note, unnoted
from scratch import pruned_tokenizer, small_text_encoder
from support.model import TEXT, autoencoder

WIDTH, STATES = 48, 32
WORDS = ["red apple blue car", "colorfulness compressibility", "0 1 2 3 4 5 6 7 8 9"]


class ToyTransformer(ModelMixin, ConfigMixin, PeftAdapterMixin):
    """Every latent place attends to the context; the time is added to all of them."""

    @register_to_config
    def __init__(self, channels: int = 4, width: int = WIDTH, states: int = STATES) -> None:
        super().__init__()
        self.enter, self.leave = torch.nn.Linear(channels, width), torch.nn.Linear(width, channels)
        self.to_q = torch.nn.Linear(width, width)
        self.to_k, self.to_v = torch.nn.Linear(states, width), torch.nn.Linear(states, width)
        self.clock = torch.nn.Linear(1, width)

    def forward(
        self, hidden_states: torch.Tensor, *, encoder_hidden_states: torch.Tensor, t: torch.Tensor
    ) -> torch.Tensor:
        x = self.enter(hidden_states.flatten(2).mT) + self.clock(t[:, None])[:, None]
        k, v = self.to_k(encoder_hidden_states), self.to_v(encoder_hidden_states)
        x = x + F.scaled_dot_product_attention(self.to_q(x), k, v)
        return self.leave(F.silu(x)).mT.reshape(hidden_states.shape)


class ToyPipeline(DiffusionPipeline):
    """What a stock class would be: rewards are unknown to it."""

    def __init__(
        self, vae: Any, text_encoder: Any, tokenizer: Any, transformer: Any, scheduler: Any
    ) -> None:
        super().__init__()
        self.register_modules(
            vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, transformer=transformer,
            scheduler=scheduler,
        )  # fmt: skip
        self.image_processor = VaeImageProcessor(vae_scale_factor=8)

    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        ids = self.tokenizer(
            list(texts), padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids
        return self.text_encoder(ids).last_hidden_state

    @torch.no_grad()
    def __call__(
        self,
        prompt: Any = None,
        num_inference_steps: int = 4,
        guidance_scale: float = 2.0,
        negative_prompt: Any = None,
        num_images_per_prompt: int = 1,
        generator: Any = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> Any:
        if prompt_embeds is None:
            prompts = [prompt] if isinstance(prompt, str) else prompt
            prompt_embeds = self.encode(prompts)
            negative_prompt_embeds = self.encode([negative_prompt or ""] * len(prompts))
        generators = generator if isinstance(generator, list) else [generator] * len(prompt_embeds)
        x = torch.stack([torch.randn(4, 8, 8, generator=g) for g in generators])
        for i in range(num_inference_steps):
            t = torch.full((len(x),), 1 - i / num_inference_steps)
            flow = self.transformer(x, encoder_hidden_states=prompt_embeds, t=t)
            if guidance_scale > 1:
                other = self.transformer(x, encoder_hidden_states=negative_prompt_embeds, t=t)
                flow = other + guidance_scale * (flow - other)
            x = x - flow / num_inference_steps
        if output_type != "latent":
            pixels = self.vae.decode(x / self.vae.config.scaling_factor).sample
            x = self.image_processor.postprocess(pixels, output_type=output_type)
        return StableDiffusionPipelineOutput(images=x, nsfw_content_detected=None)


@dataclass(frozen=True)
class Flow:
    """Rectified flow (Liu et al. 2022, arXiv 2209.03003): x_t = (1 - t) x + t noise, and the
    velocity noise - x is predicted."""

    def loss(
        self,
        predict: Predict,
        latents: torch.Tensor,
        generator: torch.Generator,
        note: Note = unnoted,
    ) -> torch.Tensor:
        noise, t = (
            torch.randn(latents.shape, generator=generator),
            stratified(len(latents), generator),
        )
        losses = self.errors(predict, latents, noise, t)
        note(t, losses)
        return losses.mean()

    def errors(
        self, predict: Predict, latents: torch.Tensor, noise: torch.Tensor, t: torch.Tensor
    ) -> torch.Tensor:
        at = t.view(-1, 1, 1, 1)
        predicted = predict((1 - at) * latents + at * noise, t)
        return F.mse_loss(predicted, noise - latents, reduction="none").mean((1, 2, 3))

    def at(self, level: float, count: int, device: torch.device) -> torch.Tensor:
        return torch.full((count,), level, device=device)


class RiCToyPipeline(RiCMixin, ToyPipeline):
    family_name = "toy"


class Toy(DiffusionFamily):
    def load(self, model: ModelName, device: Any, dtype: torch.dtype | None) -> Any:
        """The folder says the seed of the weights, which is all that a toy needs."""
        folder = Checkpoint.of(model).model
        seed = json.loads(Path(folder, "model_index.json").read_text())["seed"]
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            tokenizer = pruned_tokenizer(WORDS, 32)
            pipe = RiCToyPipeline(
                vae=autoencoder().eval(),
                text_encoder=small_text_encoder(tokenizer, TEXT).eval(),
                tokenizer=tokenizer,
                transformer=ToyTransformer().eval(),
                scheduler=FlowMatchEulerDiscreteScheduler(),
            )
        pipe.set_progress_bar_config(disable=True)
        return pipe.to(device)

    def encode(self, pipe: Any, prompts: Sequence[Sequence[str]], **options: Any) -> Context:
        return Context(states=pipe.encode(prompts[0]))

    def predict(
        self, pipe: Any, noisy: torch.Tensor, t: torch.Tensor, context: Context
    ) -> torch.Tensor:
        return pipe.transformer(noisy, encoder_hidden_states=context.states, t=t)

    def context_width(self, denoiser: Any) -> int:
        return denoiser.config.states

    def channels(self, denoiser: Any) -> int:
        return denoiser.config.channels

    def modulated_layer(self, denoiser: Any) -> torch.nn.Module:
        return denoiser.clock

    def modulated_width(self, denoiser: Any) -> int:
        return denoiser.config.width

    def objective(self, pipe: Any, **settings: Any) -> Flow:
        return Flow()

    def default_size(self, pipe: Any) -> int:
        return 64


FAMILY = diffusion_family(
    Toy,
    name="toy",
    title="Toy",
    pipelines={TEXT_TO_IMAGE: RiCToyPipeline},
    stock=("ToyPipeline",),
    denoiser="transformer",
    parts=("vae", "text_encoder", "transformer"),
    tokenizers=("tokenizer",),
    prompts=("prompt",),
    embeds=("prompt_embeds",),
    lora_layers={"attention": ("to_q", "to_k", "to_v"), "feed_forward": ("leave",)},
)


def write(folder: Path, seed: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    index = {"_class_name": "ToyPipeline", "seed": seed}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder
