"""The diffusion backend: LoRA in the U-Net and a conditioner, behind the backend protocol."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel

from ric_diffusion.backend import Batch
from ric_diffusion.conditioning import lora
from ric_diffusion.conditioning.conditioner import Mode, Words, fresh
from ric_diffusion.conditioning.dropout import Dropout
from ric_diffusion.conditioning.lora import LORA_NAME
from ric_diffusion.conditioning.trained import Trained
from ric_diffusion.config import above_zero
from ric_diffusion.data.records import Record
from ric_diffusion.diffusion import lora_file
from ric_diffusion.diffusion.adapter import Adapter
from ric_diffusion.diffusion.latents import cached_latents
from ric_diffusion.diffusion.modulation import time_width
from ric_diffusion.diffusion.objective import denoising_loss, plain_attention
from ric_diffusion.diffusion.pipeline import RiCStableDiffusionPipeline
from ric_diffusion.diffusion.sampler import DiffusionSampler
from ric_diffusion.errors import suggest
from ric_diffusion.rewards import RewardSpace

LORA_MODULES = {
    "attention": ("to_q", "to_k", "to_v", "to_out.0"),
    "feed_forward": ("ff.net.0.proj", "ff.net.2"),
    "convolution": ("conv1", "conv2"),
    # Where time, and in some U-Nets the pooled context, scale and shift the residual blocks.
    "modulation": ("time_emb_proj", "pool.q_proj", "pool.k_proj", "pool.v_proj"),
}
STATES_KEPT = 2**30  # bytes of text states held in memory


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank updates of the U-Net. ``targets`` names kinds of layers; a small U-Net needs
    more than attention, which alone is too few weights there."""

    rank: int = 16
    alpha: float = 16
    targets: tuple[Literal["attention", "feed_forward", "convolution", "modulation"], ...] = (
        "attention",
    )


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """What the diffusion backend trains and how it conditions.

    ``resolution`` in pixels, the model's own by default; ``mirror``: also train on the mirror
    images; ``name_share``: how often a picture's first caption is used where it has more.
    ``timestep_shift`` above 1 trains more on high noise, where a small model decides what its
    picture will be. ``modulation``: reward tokens also shift the time embedding. Without it they
    are learned far more slowly, but work wherever a context can be extended.
    """

    mode: Mode = "embedding"
    modulation: bool = True
    grammar: Words = "words"
    dropout: Dropout = field(default_factory=Dropout)
    lora: LoraConfig = field(default_factory=LoraConfig)
    min_snr_gamma: float | None = None
    timestep_shift: float = 1.0
    mapping: str = "front"
    sampling: Mapping[str, int | float] = field(  # a whole number of steps stays one
        default_factory=lambda: {"guidance_scale": 7.5, "num_inference_steps": 50}
    )
    resolution: int | None = None
    mirror: bool = True
    name_share: float = 0.6
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        above_zero(self, "timestep_shift")
        stock = inspect.signature(StableDiffusionPipeline.__call__).parameters
        accepted = [*stock, "contrast", "prompt_guidance"]
        accepted.remove("self")
        for key in self.sampling:
            if key not in accepted:
                raise ValueError(f"sampling: unknown field {key!r}{suggest(key, accepted)}")


class DiffusionBackend(DiffusionSampler, Trained):
    """A Stable Diffusion pipeline with an adapter in training."""

    def __init__(
        self, pipe: RiCStableDiffusionPipeline, config: DiffusionConfig | None = None
    ) -> None:
        """``pipe`` with its adapter in place; without ``config``, to sample from only."""
        super().__init__(pipe)
        self.config = config or DiffusionConfig()
        self.hold(pipe)
        self.moments = torch.empty(0)
        self.states: dict[str, torch.Tensor] = {}

    @classmethod
    def create(
        cls,
        model: str,
        space: RewardSpace,
        config: DiffusionConfig,
        *,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> DiffusionBackend:
        """A fresh adapter on a base model; ``seed`` draws its first weights."""
        pipe = RiCStableDiffusionPipeline.from_pretrained(model)
        pipe.unload_adapter()
        pipe.to(device)
        pipe.set_progress_bar_config(disable=True)
        for part in (pipe.unet, pipe.vae, pipe.text_encoder):
            part.requires_grad_(False)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            _add_lora(pipe.unet, config.lora)
            conditioner = fresh(
                config.mode,
                config.grammar,
                space.names,
                pipe.unet.config.cross_attention_dim,
                time_width=time_width(pipe.unet) * config.modulation,
            )
        conditioner.to(device)
        pipe.adapter = Adapter(
            base_model=str(model),
            space=space,
            conditioner=conditioner,
            mapping=config.mapping,
            sampling=config.sampling,
        )
        if torch.device(device).type == "cpu":
            plain_attention(pipe.unet)
        if config.gradient_checkpointing:
            pipe.unet.enable_gradient_checkpointing()
        return cls(pipe, config)

    def prepare(self, records: Sequence[Record], folder: Path, cache: Path) -> None:
        """Take the records to train on; their pictures are encoded once, into ``cache``."""
        self.take(records, folder)
        size = self.config.resolution or self.pipe.unet.config.sample_size * (
            self.pipe.vae_scale_factor
        )
        self.moments = cached_latents(
            self.pipe.vae,
            [folder / record.file for record in records],
            size,
            cache,
            mirrored=self.config.mirror,
        )

    def loss(self, batch: Batch) -> torch.Tensor:
        generator, rows = batch.generator, list(batch.indices)
        draws = torch.rand(len(rows), 3, generator=generator).tolist()
        captions = [self._caption(i, d[:2]) for i, d in zip(rows, draws, strict=True)]
        prompts, targets = self.config.dropout(captions, [self.z[i] for i in rows], generator)
        views = [int(d[2] * self.moments.shape[1]) for d in draws]
        mean, std = self.moments[rows, views].unbind(1)
        latents = mean + std * torch.randn(mean.shape, generator=generator)
        unet = self.pipe.unet.train()
        return denoising_loss(
            unet,
            self.pipe.scheduler,
            latents.to(unet.device),
            self.context(prompts, targets),
            generator,
            min_snr_gamma=self.config.min_snr_gamma,
            timestep_shift=self.config.timestep_shift,
        )

    def context(
        self, prompts: Sequence[str], targets: Sequence[Mapping[str, float]]
    ) -> torch.Tensor:
        """(B, T, D) as in inference, with the frozen text encoder's states kept by text."""
        conditioner = self.adapter.conditioner
        texts = conditioner.texts(prompts, targets, self.pipe.tokenizer)
        missing = sorted({text for text in texts if text not in self.states})
        if missing:
            with torch.no_grad():
                new, _ = self.pipe.encode_prompt(missing, self.pipe.device, 1, False)
            if (len(self.states) + len(new)) * new[0].nbytes > STATES_KEPT:
                self.states = {text: self.states[text] for text in texts if text in self.states}
            self.states |= dict(zip(missing, new.cpu(), strict=True))
        states = torch.stack([self.states[text] for text in texts]).to(self.pipe.device)
        return conditioner.context(states, targets)

    def stored(self, folder: Path) -> tuple[Adapter, lora.Lora]:
        return Adapter.load(folder), lora_file.read(folder / lora_file.LORA_FILE)

    def _caption(self, index: int, draws: Sequence[float]) -> str:
        captions = self.records[index].captions or ("",)
        if draws[0] < self.config.name_share:
            return captions[0]
        return captions[int(draws[1] * len(captions))]


def _add_lora(unet: UNet2DConditionModel, config: LoraConfig) -> None:
    import peft

    modules = [name for kind in config.targets for name in LORA_MODULES[kind]]
    unet.add_adapter(
        peft.LoraConfig(
            r=config.rank,
            lora_alpha=config.alpha,
            target_modules=modules,
            init_lora_weights="gaussian",
        ),
        adapter_name=LORA_NAME,
    )
