"""The backend of language models: LoRA and a conditioner, behind the backend protocol."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch

from ric_diffusion.backend import Batch
from ric_diffusion.conditioning import lora
from ric_diffusion.conditioning.adapter import check_continues
from ric_diffusion.conditioning.conditioner import EmbeddingConditioner, Mode, Words, fresh
from ric_diffusion.conditioning.dropout import Dropout
from ric_diffusion.data.records import Record, normalized
from ric_diffusion.errors import InputError
from ric_diffusion.llm.adapter import Adapter, read
from ric_diffusion.llm.generation import Sampling
from ric_diffusion.llm.model import RiCCausalLM
from ric_diffusion.llm.sampler import LlmSampler, token_losses
from ric_diffusion.rewards import RewardSpace


@dataclass(frozen=True, kw_only=True)
class LlmLora:
    """Low-rank updates of every linear layer but the output's."""

    rank: int = 16
    alpha: float = 32


@dataclass(frozen=True, kw_only=True)
class LlmConfig:
    """What the backend of language models trains and how it conditions. ``dropout`` leaves whole
    prompts in by default: there is no guidance that would need samples without. ``dtype`` is that
    of the frozen weights; what is trained is float32."""

    mode: Mode = "embedding"
    dtype: Literal["float32", "bfloat16"] = "float32"
    grammar: Words = "words"
    dropout: Dropout = field(default_factory=lambda: Dropout(prompt=0.0, everything=0.0))
    lora: LlmLora = field(default_factory=LlmLora)
    mapping: str = "front"
    sampling: Sampling = field(default_factory=Sampling)


class LlmBackend(LlmSampler):
    """A language model with an adapter in training."""

    def __init__(self, lm: RiCCausalLM, config: LlmConfig | None = None) -> None:
        """``lm`` with its adapter in place; without ``config``, to sample from only."""
        if lm.adapter is None:
            raise InputError("the model has no adapter; call load_adapter first")
        super().__init__(lm)
        self.config = config or LlmConfig()
        self.adapter = lm.adapter
        self.records: Sequence[Record] = ()
        self.responses: list[str] = []
        self.z: list[dict[str, float]] = []

    @classmethod
    def create(
        cls,
        model: str,
        space: RewardSpace,
        config: LlmConfig,
        *,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> LlmBackend:
        """A fresh adapter on a base model; ``seed`` draws its first weights."""
        lm = RiCCausalLM.from_pretrained(model, getattr(torch, config.dtype))
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            lora.inject(lm.model, config.lora.rank, config.lora.alpha, "all-linear")
            width = lm.model.config.hidden_size
            conditioner = fresh(config.mode, config.grammar, space.names, width)
        if isinstance(conditioner, EmbeddingConditioner):
            # A language model's embeddings are far smaller than what a LayerNorm gives.
            size = lm.model.get_input_embeddings().weight.float().square().mean().sqrt()
            torch.nn.init.constant_(conditioner.encoder.norm.weight, float(size))
        lm.model.to(device)
        if lm.model.device.type == "cpu":  # there the fused attention is slow backwards
            lm.model.set_attn_implementation("eager")
        conditioner.to(device)
        lm.adapter = Adapter(
            base_model=str(model),
            space=space,
            conditioner=conditioner,
            mapping=config.mapping,
            sampling=asdict(config.sampling),
        )
        return cls(lm, config)

    def prepare(self, records: Sequence[Record], folder: Path, cache: Path) -> None:
        """Take the records to train on; their responses are the texts of their files."""
        if not records:
            raise InputError(f"{folder}: no records are left to train on; check `where`")
        self.records = records
        self.responses = [self.read(folder / record.file) for record in records]
        self.z = normalized(self.records, self.adapter.space)

    def parameters(self) -> Iterable[torch.nn.Parameter]:
        weights = [p for p in self.lm.model.parameters() if p.requires_grad]
        return [*weights, *self.adapter.conditioner.parameters()]

    def loss(self, batch: Batch) -> torch.Tensor:
        """Mean cross-entropy over the tokens of all responses."""
        rows = list(batch.indices)
        prompts = [next(iter(self.records[i].captions), "") for i in rows]
        prompts, targets = self.config.dropout(prompts, [self.z[i] for i in rows], batch.generator)
        losses = token_losses(
            self.lm, prompts, targets, [self.responses[i] for i in rows], self.settings
        )
        return torch.cat(losses).mean()

    def save(self, folder: Path) -> None:
        self.lm.adapter = self.adapter
        self.lm.save_adapter(folder)

    def load(self, folder: Path) -> None:
        """Go on training an adapter that ``save`` wrote, of the same shape and rewards.

        Its statistics and its sampling come along. Its calibration does not: it says what the
        weights gave that are about to change.
        """
        stored, weights = Adapter.load(folder), read(folder)
        check_continues(folder, (stored, weights), (self.adapter, lora.trained(self.lm.model)))
        stored.conditioner.check_width(self.lm.model.config.hidden_size)
        lora.check_fit(self.lm.model, weights)
        lora.put(self.lm.model, weights)
        stored.conditioner.to(self.lm.model.device)
        self.adapter = self.lm.adapter = replace(stored, calibration={})
        self.sampling = self.adapter.sampling
        self.z = normalized(self.records, self.adapter.space)
