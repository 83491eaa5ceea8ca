"""The diffusion backend: LoRA in the denoiser and a conditioner, behind the backend protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from ric_diffusion.adapters.adapter import Adapter
from ric_diffusion.adapters.lora import LORA_NAME
from ric_diffusion.adapters.modelspec import ModelSpec
from ric_diffusion.conditioning.conditioner import Mode, Words, new_conditioner
from ric_diffusion.conditioning.dropout import Dropout
from ric_diffusion.data.framing import check_framed
from ric_diffusion.data.records import Record
from ric_diffusion.io.config import above_zero, at_least
from ric_diffusion.models.adapted import AdaptedBackend
from ric_diffusion.models.diffusion.context import Context, ContextCache
from ric_diffusion.models.diffusion.latents import cached_latents
from ric_diffusion.models.diffusion.sampler import DiffusionSampler
from ric_diffusion.models.hardware import BasePrecision
from ric_diffusion.models.protocol import Batch
from ric_diffusion.rewards import RewardSpace

PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v"}  # diffusers' words -> modelspec's
Layers = Literal["attention", "feed_forward", "convolution", "modulation"]


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank updates of the denoiser. ``targets`` names kinds of layers; a small network needs
    more than attention, which alone is too few weights there."""

    rank: int = 16
    alpha: float = 16
    targets: tuple[Layers, ...] = ("attention",)

    def __post_init__(self) -> None:
        at_least(self, 1, "rank")
        above_zero(self, "alpha")


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """What the diffusion backend trains and how it conditions.

    ``resolution`` in pixels, the model's own by default; ``mirror``: also train on the mirror
    images; ``first_caption_probability``: how often a picture's first caption is used where it has
    more. ``timestep_shift`` above 1 trains more on high noise, where a small model decides what its
    picture will be. ``modulation``: reward tokens also shift the time embedding. Without it they
    are learned far more slowly, but work wherever a context can be extended. ``sampling``: of the
    finished adapter; steps and guidance are the stock pipeline's where it does not say.

    ``base_precision``: what the frozen weights are kept in; what is trained is float32. ``auto`` is
    half precision on a GPU, unless the passes are asked for in fp32, and fp32 on a CPU. With
    ``int8`` and ``nf4`` the denoiser's linear layers are quantised, and the rest is in half
    precision (Dettmers et al. 2022, arXiv 2208.07339; 2023, arXiv 2305.14314).
    """

    RENAMED: ClassVar[Mapping[str, str]] = {"name_share": "first_caption_probability"}

    mode: Mode = "embedding"
    base_precision: BasePrecision = "auto"
    modulation: bool = True
    grammar: Words = "words"
    dropout: Dropout = field(default_factory=Dropout)
    lora: LoraConfig = field(default_factory=LoraConfig)
    min_snr_gamma: float | None = None
    timestep_shift: float = 1.0
    mapping: str = "front"
    sampling: Mapping[str, int | float] = field(default_factory=dict)  # whole steps stay whole
    resolution: int | None = None
    mirror: bool = True
    first_caption_probability: float = 0.6
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        above_zero(self, "timestep_shift")
        if self.min_snr_gamma is not None:
            above_zero(self, "min_snr_gamma")
        if self.resolution is not None and (self.resolution < 16 or self.resolution % 8):
            raise ValueError(f"resolution is {self.resolution}; give a multiple of 8 from 16 up")
        if not 0 <= self.first_caption_probability <= 1:
            raise ValueError(
                f"first_caption_probability is {self.first_caption_probability}; give 0 to 1"
            )
        check_steps(self.sampling)


def check_steps(sampling: Mapping[str, Any]) -> None:
    """ValueError for a number of denoising steps that is none."""
    steps = sampling.get("num_inference_steps", 1)
    if not (isinstance(steps, int) and steps >= 1):
        raise ValueError(f"sampling.num_inference_steps is {steps!r}; give a whole number above 0")


class DiffusionBackend(DiffusionSampler, AdaptedBackend):
    """A pipeline with an adapter in training."""

    def __init__(self, pipe: Any, config: DiffusionConfig | None = None) -> None:
        """``pipe`` with its adapter in place; without ``config``, to sample from only."""
        super().__init__(pipe)
        self.config = config or DiffusionConfig()
        self.adopt(pipe)
        self.moments = torch.empty(0)
        self.contexts: ContextCache[tuple[str, ...]] = ContextCache()
        self.objective = pipe.family.objective(
            pipe,
            min_snr_gamma=self.config.min_snr_gamma,
            timestep_shift=self.config.timestep_shift,
        )

    @classmethod
    def create(
        cls,
        pipe: Any,
        model: str,
        space: RewardSpace,
        config: DiffusionConfig,
        *,
        seed: int = 0,
    ) -> DiffusionBackend:
        """A new adapter on ``pipe``, a base model called ``model``, where that is; ``seed`` draws
        its first weights."""
        family, denoiser = pipe.family, pipe.denoiser
        family.check_denoiser(pipe)
        for part in family.parts:
            getattr(pipe, part).requires_grad_(False)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            _add_lora(denoiser, config.lora, family.lora_layers)
            conditioner = new_conditioner(
                config.mode,
                config.grammar,
                space.names,
                family.context_width(denoiser),
                time_width=family.modulated_width(denoiser) * config.modulation,
            )
        conditioner.to(denoiser.device)
        pipe.adapter = Adapter(
            family=family.name,
            base_model=str(model),
            space=space,
            conditioner=conditioner,
            mapping=config.mapping,
            sampling={**family.default_sampling(pipe), **config.sampling},
            modelspec=ModelSpec(
                architecture=family.architecture(pipe),
                resolution=config.resolution or family.default_size(pipe),
                prediction_type=PREDICTIONS.get(pipe.scheduler.config.get("prediction_type")),
            ),
        )
        if denoiser.device.type == "cpu":
            family.prepare_cpu_training(denoiser)
        if config.gradient_checkpointing:
            denoiser.enable_gradient_checkpointing()
        return cls(pipe, config)

    def prepare(self, records: Sequence[Record], folder: Path, cache: Path) -> None:
        """Take the records to train on; their pictures are encoded once, into ``cache``."""
        self.set_records(records, folder)
        size = self.config.resolution or self.pipe.family.default_size(self.pipe)
        self.moments = cached_latents(
            self.pipe.family.latents(self.pipe),
            [folder / record.file for record in records],
            size,
            cache,
            mirrored=self.config.mirror,
            framing=check_framed(folder, records, resolution=size, step=size),
        )

    def loss(self, batch: Batch) -> torch.Tensor:
        generator, rows = batch.generator, list(batch.indices)
        draws = torch.rand(len(rows), 3, generator=generator).tolist()
        captions = [self._caption(i, d[:2]) for i, d in zip(rows, draws, strict=True)]
        prompts, targets = self.config.dropout(captions, [self.z[i] for i in rows], generator)
        views = [int(d[2] * self.moments.shape[1]) for d in draws]
        mean, std = self.moments[rows, views].unbind(1)
        latents = mean + std * torch.randn(mean.shape, generator=generator)
        family, denoiser = self.pipe.family, self.pipe.denoiser.train()
        context = self.context(prompts, targets)
        with self.pipe.with_adapter():
            return self.objective.loss(
                family.predictor(self.pipe, context), latents.to(denoiser.device), generator
            )

    def context(self, prompts: Sequence[str], targets: Sequence[Mapping[str, float]]) -> Context:
        """As in inference, with what the frozen text encoders say of a text kept."""
        pipe, family = self.pipe, self.pipe.family
        options = family.encode_options_of(self.sampling)
        texts = pipe.texts(prompts, targets, options.get("max_sequence_length"))

        def encode(some: list[tuple[str, ...]]) -> Context:
            return family.encode(pipe, list(zip(*some, strict=True)), **options)

        context = self.contexts.get(texts, encode, pipe.device)
        return context.with_states(self.adapter.conditioner.context(context.states, targets))

    def _caption(self, index: int, draws: Sequence[float]) -> str:
        captions = self.records[index].captions or ("",)
        if draws[0] < self.config.first_caption_probability:
            return captions[0]
        return captions[int(draws[1] * len(captions))]


def _add_lora(denoiser: Any, config: LoraConfig, layers: Mapping[str, Sequence[str]]) -> None:
    import peft
    from peft.tuners.tuners_utils import cast_adapter_dtype

    modules = [name for kind in config.targets for name in layers[kind]]
    denoiser.add_adapter(
        peft.LoraConfig(
            r=config.rank,
            lora_alpha=config.alpha,
            target_modules=modules,
            init_lora_weights="gaussian",
        ),
        adapter_name=LORA_NAME,
    )
    cast_adapter_dtype(denoiser, LORA_NAME)  # peft gives it the precision of the layer's weight
