"""The backend of language models: LoRA and a conditioner, behind the backend protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

import torch

from ric_diffusion.adapters import lora
from ric_diffusion.adapters.adapter import Adapter
from ric_diffusion.conditioning.conditioner import (
    EmbeddingConditioner,
    Mode,
    Words,
    new_conditioner,
)
from ric_diffusion.conditioning.dropout import Dropout
from ric_diffusion.data.medium import read_named
from ric_diffusion.data.records import Record
from ric_diffusion.io.config import above_zero, within
from ric_diffusion.models.adapted import AdaptedBackend
from ric_diffusion.models.causal_lm.generation import Sampling
from ric_diffusion.models.causal_lm.model import RiCCausalLM
from ric_diffusion.models.causal_lm.sampler import LlmSampler, token_losses
from ric_diffusion.models.causal_lm.steering import scale_of
from ric_diffusion.models.checkpoint import Checkpoint, ModelName
from ric_diffusion.models.hardware import Precision, resolve_precision
from ric_diffusion.models.protocol import Batch
from ric_diffusion.rewards import PromptGroups, RewardSpace

PRECISIONS: Mapping[str, Precision] = {"auto": "auto", "float32": "fp32", "bfloat16": "bf16"}


@dataclass(frozen=True, kw_only=True)
class LlmLora:
    """Low-rank updates of every linear layer but the output's."""

    REMOVED: ClassVar[Mapping[str, str]] = lora.NOT_TRAINED

    rank: int = 16
    alpha: float = 32

    def __post_init__(self) -> None:
        within(self, 1, lora.MOST_RANK, "rank")
        above_zero(self, "alpha", most=lora.MOST_ALPHA)


@dataclass(frozen=True, kw_only=True)
class LlmConfig:
    """What the backend of language models trains and how it conditions. ``dropout`` leaves whole
    prompts in by default: there is no guidance that would need samples without. ``dtype`` is that
    of the frozen weights, with ``auto`` bfloat16 where the device has it in hardware, else float32;
    what is trained is float32. ``modulation``: rewards also steer
    every layer, and are learned many times as fast."""

    mode: Mode = "embedding"
    dtype: Literal["auto", "float32", "bfloat16"] = "float32"
    modulation: bool = True
    grammar: Words = "words"
    dropout: Dropout = field(default_factory=lambda: Dropout(prompt=0.0, everything=0.0))
    lora: LlmLora = field(default_factory=LlmLora)
    mapping: str = "front"
    sampling: Sampling = field(default_factory=Sampling)

    def resolved(self, device: str | torch.device) -> LlmConfig:
        """The same with the ``dtype`` that ``device`` takes instead of ``auto``."""
        taken = resolve_precision(PRECISIONS[self.dtype], device, "dtype")
        return replace(self, dtype="bfloat16" if taken == "bf16" else "float32")


class LlmBackend(LlmSampler, AdaptedBackend):
    """A language model with an adapter in training."""

    def __init__(self, lm: RiCCausalLM, config: LlmConfig | None = None) -> None:
        """``lm`` with its adapter in place; without ``config``, to sample from only."""
        super().__init__(lm)
        self.config = config or LlmConfig()
        self.adopt(lm)
        self.responses: list[str] = []

    @classmethod
    def create(
        cls,
        model: ModelName,
        space: RewardSpace,
        config: LlmConfig,
        *,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> LlmBackend:
        """A new adapter on a base model; ``seed`` draws its first weights."""
        checkpoint, config = Checkpoint.of(model), config.resolved(device)
        lm = RiCCausalLM.from_pretrained(
            checkpoint.model, getattr(torch, config.dtype), **checkpoint.hub
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            lora.inject(lm.model, config.lora.rank, config.lora.alpha, "all-linear")
            width = lm.model.config.hidden_size
            layers = lm.model.config.num_hidden_layers * config.modulation
            conditioner = new_conditioner(
                config.mode, config.grammar, space.names, width, layers=layers
            )
        if isinstance(conditioner, EmbeddingConditioner):
            # A language model's embeddings are far smaller than what a LayerNorm gives.
            size = lm.model.get_input_embeddings().weight.float().square().mean().sqrt()
            torch.nn.init.constant_(conditioner.encoder.norm.weight, float(size))
            if conditioner.encoder.steering:
                conditioner.encoder.steering.scale = scale_of(lm.model, lm.tokenizer)
        lm.model.to(device)
        if lm.model.device.type == "cpu":  # there the fused attention is slow backwards
            lm.model.set_attn_implementation("eager")
        conditioner.to(device)
        lm.adapter = Adapter(
            family=lm.family_name,
            base_model=checkpoint.model,
            space=space,
            conditioner=conditioner,
            mapping=config.mapping,
            sampling=asdict(config.sampling),
        )
        return cls(lm, config)

    def prepare(
        self,
        records: Sequence[Record],
        folder: Path,
        cache: Path,
        groups: PromptGroups | None = None,
    ) -> int:
        """Take the records to train on; their responses are the texts of their files."""
        self.set_records(records, folder, groups)
        self.responses = [
            read_named(folder / record.file, self.medium, mend="run `ric label` again")
            for record in records
        ]
        return len(records)

    def loss(self, batch: Batch) -> torch.Tensor:
        """Mean cross-entropy over the tokens of all responses."""
        rows = list(batch.indices)
        prompts = [next(iter(self.records[i].captions), "") for i in rows]
        prompts, targets = self.config.dropout(prompts, self.targets(rows), batch.generator)
        losses = token_losses(
            self.lm, prompts, targets, [self.responses[i] for i in rows], self.settings
        )
        return torch.cat(losses).mean()
