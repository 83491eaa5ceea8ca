"""The diffusion backend: LoRA, or a denoiser's own weights, and a conditioner, behind the backend
protocol."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from accelerate import init_empty_weights
from PIL import Image

from ric_diffusion.adapters import lora
from ric_diffusion.adapters.adapter import Adapter, check_continues
from ric_diffusion.adapters.modelspec import ModelSpec
from ric_diffusion.conditioning.captions import Captions
from ric_diffusion.conditioning.conditioner import Mode, Words, new_conditioner
from ric_diffusion.conditioning.dropout import Dropout
from ric_diffusion.data.records import Record
from ric_diffusion.io.bounds import MOST_SIDE
from ric_diffusion.io.config import above_zero, probabilities, within
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import replacing_folder
from ric_diffusion.models.adapted import AdaptedBackend
from ric_diffusion.models.diffusion.context import Context, ContextCache
from ric_diffusion.models.diffusion.latents import CachedLatents, cached_latents
from ric_diffusion.models.diffusion.pictures import Pictures, read_pictures
from ric_diffusion.models.diffusion.sampler import DiffusionSampler
from ric_diffusion.models.diffusion.shards import key_of
from ric_diffusion.models.family import ADAPTER_SUBFOLDER, INDEX_FILE
from ric_diffusion.models.hardware import (
    QUANTIZED,
    BasePrecision,
    check_compiler,
    default_device,
    this_process,
)
from ric_diffusion.models.protocol import Batch, weights_digest
from ric_diffusion.models.sharding import Sharding, whole
from ric_diffusion.rewards import PromptGroups, RewardSpace

PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v"}  # diffusers' words -> modelspec's
TEXT_ENCODER = "text_encoder"  # among the kinds of layers, all those of the text encoders
TEXTS = "texts"  # a folder in a cache
SIDES = re.compile(r"\b(left|right)\b", re.IGNORECASE)
_log = logging.getLogger(__name__)
Layers = Literal["attention", "feed_forward", "convolution", "modulation", "text_encoder"]


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank updates. ``targets`` names kinds of layers of the denoiser; a small network needs
    more than attention, which alone is too few weights there. ``text_encoder`` stands for the
    linear layers of all CLIP text encoders: words for rewards are numbers, which they were not
    trained to tell apart."""

    rank: int = 16
    alpha: float = 16
    targets: tuple[Layers, ...] = ("attention",)

    REMOVED: ClassVar[Mapping[str, str]] = lora.NOT_TRAINED

    def __post_init__(self) -> None:
        within(self, 1, lora.MOST_RANK, "rank")
        above_zero(self, "alpha", most=lora.MOST_ALPHA)

    @property
    def changes_text(self) -> bool:
        """Whether text encoders are trained along."""
        return TEXT_ENCODER in self.targets


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """What the diffusion backend trains and how it conditions.

    ``train``: ``lora``, or ``tokens`` for the reward encoder alone, the model's own weights left as
    they are (as in AttriCtrl, Chen et al. 2025, arXiv 2508.02151), or ``full`` for all weights of
    the denoiser, in fp32. Neither of these has a LoRA; ``full`` writes a whole model with the
    adapter in it.

    ``resolution``: side in pixels of the square whose area pictures are drawn with, the model's own
    by default; ``mirror``: also train on the mirror images, by default unless a caption says left
    or right; ``max_upscale``: pictures that training would have to enlarge more than so many times
    are left out; ``first_caption_probability``: how often a picture's first caption is used where
    it has more; ``captions``: what is made of it. ``min_snr_gamma`` (Hang et al. 2023, arXiv
    2303.09556) and ``debiased_estimation`` (Yu et al. 2023, arXiv 2310.08442) weigh the noise
    levels, ``noise_offset`` adds noise that is the same all over a picture; none of them is for
    flow matching. ``timestep_shift`` above 1 trains more on high noise, where a small model decides
    what its picture will be. ``modulation``: reward tokens also shift the time embedding. Without
    it they are learned far more slowly, but work wherever a context can be extended. ``sampling``:
    of the finished adapter; steps and guidance are the stock pipeline's where it does not say.
    ``compile``: torch.compile makes the denoiser's training pass faster, and takes minutes at the
    first.

    ``base_precision``: what the frozen weights are kept in; what is trained is float32. ``auto`` is
    half precision on a GPU, unless the passes are asked for in fp32, and fp32 on a CPU. With
    ``int8`` and ``nf4`` the denoiser's linear layers are quantised, and the rest is in half
    precision (Dettmers et al. 2022, arXiv 2208.07339; 2023, arXiv 2305.14314).
    """

    RENAMED: ClassVar[Mapping[str, str]] = {"name_share": "first_caption_probability"}

    train: Literal["lora", "tokens", "full"] = "lora"
    mode: Mode = "embedding"
    base_precision: BasePrecision = "auto"
    modulation: bool = True
    grammar: Words = "words"
    captions: Captions = field(default_factory=Captions)
    dropout: Dropout = field(default_factory=Dropout)
    lora: LoraConfig = field(default_factory=LoraConfig)
    min_snr_gamma: float | None = None
    debiased_estimation: bool = False
    noise_offset: float = 0.0
    timestep_shift: float = 1.0
    mapping: str = "front"
    sampling: Mapping[str, int | float] = field(default_factory=dict)  # whole steps stay whole
    resolution: int | None = None
    mirror: bool | None = None
    max_upscale: float = 2.0
    first_caption_probability: float = 0.6
    gradient_checkpointing: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        above_zero(self, "timestep_shift", most=100)
        within(self, 0, 1, "noise_offset")
        if self.min_snr_gamma is not None:
            above_zero(self, "min_snr_gamma", most=1000)
            if self.debiased_estimation:
                raise ValueError(
                    "min_snr_gamma and debiased_estimation both weigh the noise levels; give one"
                )
        if self.resolution is not None and (
            not 16 <= self.resolution <= MOST_SIDE or self.resolution % 8
        ):
            raise ValueError(
                f"resolution is {self.resolution}; give a multiple of 8 from 16 to {MOST_SIDE}"
            )
        within(self, 1, 1000, "max_upscale")
        probabilities(self, "first_caption_probability")
        if self.compile:
            self._check_compile()
        if self.train != "lora" and self.lora != LoraConfig():
            changed = "nothing" if self.train == "tokens" else "all weights"
            raise ValueError(
                f"lora goes with train: lora; train: {self.train} changes {changed} of the "
                "denoiser, so leave it out"
            )
        if self.train == "tokens" and self.mode != "embedding":
            raise ValueError(
                "train: tokens trains reward tokens, which mode: text has none of; give mode: "
                "embedding"
            )
        if self.train == "full":
            self._check_full()

    def _check_compile(self) -> None:
        if self.base_precision in QUANTIZED:
            raise ValueError(
                f"compile goes with weights in full or half precision, and base_precision is "
                f"{self.base_precision}; leave one of them out"
            )
        check_compiler(default_device())

    def _check_full(self) -> None:
        if self.base_precision not in ("auto", "fp32"):
            raise ValueError(
                f"base_precision is {self.base_precision}, which frozen weights are kept in; "
                "train: full trains them in fp32, so leave it out"
            )
        object.__setattr__(self, "base_precision", "fp32")


class DiffusionBackend(DiffusionSampler, AdaptedBackend):
    """A pipeline with an adapter in training."""

    def __init__(
        self, pipe: Any, config: DiffusionConfig | None = None, sharding: Sharding | None = None
    ) -> None:
        """``pipe`` with its adapter in place; without ``config``, to sample from only.
        ``sharding``: of its denoiser."""
        super().__init__(pipe)
        self.config = config or DiffusionConfig()
        self.sharding, self.sharded = sharding, sharding is not None
        self.adopt(pipe)
        self.pictures: Pictures | None = None
        self.latents: CachedLatents | None = None
        self.contexts: ContextCache[tuple[str, ...]] = ContextCache()
        # Asked once: diffusers goes through all parameters for them, some times in a step.
        self.device, self.dtype = pipe.denoiser.device, pipe.denoiser.dtype
        self._compiled = torch.compile(pipe.denoiser.forward) if self.config.compile else None
        self.objective = pipe.family.objective(
            pipe,
            min_snr_gamma=self.config.min_snr_gamma,
            debiased_estimation=self.config.debiased_estimation,
            noise_offset=self.config.noise_offset,
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
        base_config: str | None = None,
        sharding: Sharding | None = None,
    ) -> DiffusionBackend:
        """A new adapter on ``pipe``, a base model called ``model``, where that is, or where
        ``sharding`` is, which is of its denoiser; ``seed`` draws its first weights.
        ``base_config``: whose configs a ``model`` has that is a single file."""
        family, denoiser = pipe.family, pipe.denoiser
        device = sharding.device if sharding else denoiser.device
        family.check_denoiser(pipe)
        for part in family.parts:
            getattr(pipe, part).requires_grad_(False)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            if config.train == "full":
                denoiser.requires_grad_(True)
            elif config.train == "lora":
                _add_lora(denoiser, config.lora, family.lora_layers)
                for encoder in pipe.text_encoders.values() if config.lora.changes_text else ():
                    lora.inject(
                        encoder, config.lora.rank, config.lora.alpha, list(family.text_layers)
                    )
            conditioner = new_conditioner(
                config.mode,
                config.grammar,
                space.names,
                family.context_width(denoiser),
                time_width=family.modulated_width(denoiser) * config.modulation,
            )
        conditioner.to(device)
        pipe.adapter = Adapter(
            family=family.name,
            base_model=str(model),
            base_config=base_config,
            space=space,
            conditioner=conditioner,
            mapping=config.mapping,
            sampling={**family.default_sampling(pipe), **config.sampling},
            lora=config.train == "lora",
            frozen=config.train == "tokens",
            modelspec=ModelSpec(
                architecture=family.architecture(pipe),
                resolution=config.resolution or family.default_size(pipe),
                prediction_type=PREDICTIONS.get(pipe.scheduler.config.get("prediction_type")),
            ),
        )
        if device.type == "cpu":
            family.prepare_cpu_training(denoiser)
        if config.gradient_checkpointing:
            denoiser.enable_gradient_checkpointing()
        if sharding:
            sharding.shard(denoiser)
            for part in pipe.components.values():
                if isinstance(part, torch.nn.Module) and part is not denoiser:
                    part.to(device)
        return cls(pipe, config, sharding)

    def prepare(
        self,
        records: Sequence[Record],
        folder: Path,
        cache: Path,
        groups: PromptGroups | None = None,
    ) -> int:
        """Take the records to train on; their pictures are encoded once, into ``cache``, and so are
        their texts as training comes to them."""
        self.set_records(records, folder, groups)
        pipe, family = self.pipe, self.pipe.family
        process = this_process()
        self.pictures, rows = read_pictures(
            folder,
            records,
            cache,
            process,
            resolution=self.config.resolution or family.default_size(pipe),
            step=family.bucket_step,
            max_upscale=self.config.max_upscale,
        )
        if len(rows) < len(records):
            self.set_records([records[i] for i in rows.tolist()], folder, self.groups)
        self.buckets = self.pictures.buckets()[1]
        self.latents = cached_latents(
            family.latents(pipe), self.pictures, cache, process, mirrored=self._mirrored()
        )
        if not (self.trains_text_encoders or self.config.captions.changes_tags):
            self.contexts.open(cache / f"{TEXTS}-{self._texts_key()}")
        return len(self.records)

    def _mirrored(self) -> bool:
        if self.config.mirror is not None:
            return self.config.mirror
        sides = next((c for r in self.records for c in r.captions if SIDES.search(c)), None)
        if sides is not None:
            _log.info("mirror: no mirror images, since captions name sides: %r", sides[:80])
        return sides is None

    def _texts_key(self) -> str:
        """What a text's context depends on beside the text."""
        pipe, family = self.pipe, self.pipe.family
        encoders = [part for part in family.parts if part not in ("vae", family.denoiser)]
        weights = [weights_digest(getattr(pipe, part)) for part in encoders]
        options = family.encode_options_of(self.sampling)
        return key_of(weights, sorted(options.items())).hex()[:16]

    def loss(self, batch: Batch) -> torch.Tensor:
        generator, rows = batch.generator, list(batch.indices)
        draws = torch.rand(len(rows), 3, generator=generator).tolist()
        captions = [
            self.config.captions(self._caption(i, d[:2]), generator)
            for i, d in zip(rows, draws, strict=True)
        ]
        prompts, targets = self.config.dropout(captions, self.targets(rows), generator)
        assert self.latents is not None and self.pictures is not None  # after prepare
        views = [int(d[2] * self.latents.views) for d in draws]
        mean, std = self.latents.moments(rows, views).unbind(1)
        latents = mean + std * torch.randn(mean.shape, generator=generator)
        family, denoiser = self.pipe.family, self.pipe.denoiser
        if not denoiser.training:
            denoiser.train()
        context = family.with_sizes(self.context(prompts, targets), self.pictures.told(rows, views))
        with self.pipe.with_adapter(), self._compiled_forward():
            return self.objective.loss(
                family.predictor(self.pipe, context, self.dtype),
                latents.to(self.device),
                generator,
                batch.note,
            )

    @contextmanager
    def _compiled_forward(self) -> Iterator[None]:
        """The denoiser's forward pass inside the block is the compiled one. What is hooked to it is
        no part of that: a meter that counts, and the context that reward tokens are read from."""
        denoiser = self.pipe.denoiser
        if self._compiled is None:
            yield
            return
        denoiser.forward = self._compiled
        try:
            yield
        finally:
            del denoiser.forward

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Inside the block the first process has the denoiser whole, on the CPU, where all of it is
        trained in shards. All processes come here together."""
        denoiser = self.pipe.denoiser
        if self.sharding is None or not self.adapter.in_model:
            yield
            return
        first, tensors = this_process().is_main_process, {}
        for name, tensor in denoiser.state_dict().items():
            gathered = whole(tensor)
            if first:
                tensors[name] = gathered.cpu()
        if first:
            with init_empty_weights():
                # FSDP's class makes objects of the one that it is made of.
                plain = type(denoiser).from_config(denoiser.config)
            plain.load_state_dict(tensors, assign=True)
            setattr(self.pipe, self.pipe.family.denoiser, plain)
        try:
            yield
        finally:
            setattr(self.pipe, self.pipe.family.denoiser, denoiser)

    def sample(
        self,
        prompts: Sequence[str],
        targets: Sequence[Mapping[str, float]],
        seeds: Sequence[int],
    ) -> list[Image.Image]:
        with self._precision():
            return super().sample(prompts, targets, seeds)

    def prompt_r_precision(
        self, prompts: Sequence[str], samples: Sequence[Image.Image]
    ) -> np.ndarray:
        with self._precision():
            return super().prompt_r_precision(prompts, samples)

    def _precision(self) -> AbstractContextManager[Any]:
        """Of passes that no trainer makes."""
        return self.sharding.passes() if self.sharding else nullcontext()

    def networks(self) -> Mapping[str, Any]:
        return {lora.MAIN: self.network(), **self.pipe.in_training()}

    def save(self, folder: Path) -> None:
        """An adapter's folder, or with ``train: full`` a stock pipeline's with the adapter in it,
        which then is the adapter's base model. What frozen text encoders have said is kept, too."""
        self.contexts.store()
        if not self.adapter.in_model:
            super().save(folder)
            return
        training = {"base_model": self.adapter.base_model, **self.adapter.training}
        adapter = replace(self.adapter, base_model=str(folder), base_config=None, training=training)
        self.adapter = self.pipe.adapter = adapter
        with replacing_folder(folder) as temporary:
            self.pipe.save_pretrained(temporary)

    def load(self, folder: Path) -> None:
        """With ``train: full``, ``folder`` may also be that of the adapter in such a pipeline."""
        if not self.adapter.in_model:
            super().load(folder)
            return
        model = folder.parent if folder.name == ADAPTER_SUBFOLDER else folder
        if not (model / INDEX_FILE).exists():
            raise InputError(
                f"{folder}: lies in no model, and train: full goes on with the weights of one; "
                f"give RUN/model/{ADAPTER_SUBFOLDER}"
            )
        found, weights = self.pipe.family.read_adapter(model / ADAPTER_SUBFOLDER)
        check_continues(folder, (found, weights), (self.adapter, lora.NO_LORA))
        self.pipe.check_fit(found)
        self.pipe.family.copy_denoiser(self.pipe, model)
        self.go_on_with(found)

    def context(self, prompts: Sequence[str], targets: Sequence[Mapping[str, float]]) -> Context:
        """As in inference, with what frozen text encoders say of a text kept; of those in training
        it has a graph."""
        pipe, family = self.pipe, self.pipe.family
        options = family.encode_options_of(self.sampling)
        texts = pipe.texts(prompts, targets, options.get("max_sequence_length"))

        def encode(some: list[tuple[str, ...]]) -> Context:
            return family.encode(pipe, list(zip(*some, strict=True)), **options)

        if self.trains_text_encoders:
            context = encode(texts)
        else:
            # In the encoders' own precision, as in inference, whatever the passes are in.
            with torch.autocast(self.device.type, enabled=False):
                context = self.contexts.get(texts, encode, self.device)
        return context.with_states(self.adapter.conditioner.context(context.states, targets))

    @property
    def trains_text_encoders(self) -> bool:
        return not self.pipe.in_training().keys() <= {lora.MAIN}

    def _caption(self, index: int, draws: Sequence[float]) -> str:
        captions = self.records[index].captions or ("",)
        if draws[0] < self.config.first_caption_probability:
            return captions[0]
        return captions[int(draws[1] * len(captions))]


def _add_lora(denoiser: Any, config: LoraConfig, layers: Mapping[str, Sequence[str]]) -> None:
    import peft
    from peft.tuners.tuners_utils import cast_adapter_dtype

    kinds = [kind for kind in config.targets if kind != TEXT_ENCODER]
    if not kinds:
        return
    denoiser.add_adapter(
        peft.LoraConfig(
            r=config.rank,
            lora_alpha=config.alpha,
            target_modules=[name for kind in kinds for name in layers[kind]],
            init_lora_weights="gaussian",
        ),
        adapter_name=lora.LORA_NAME,
    )
    cast_adapter_dtype(
        denoiser, lora.LORA_NAME
    )  # peft gives it the precision of the layer's weight
