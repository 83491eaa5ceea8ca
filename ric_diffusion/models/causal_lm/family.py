"""Causal language models of transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ric_diffusion.adapters.adapter import Adapter
from ric_diffusion.adapters.card import WITHOUT_LORA, Use
from ric_diffusion.adapters.format import PeftFormat
from ric_diffusion.data.medium import TEXT
from ric_diffusion.io import config
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.causal_lm.backend import LlmBackend, LlmConfig
from ric_diffusion.models.causal_lm.chat import Turn
from ric_diffusion.models.causal_lm.fluency import Fluency
from ric_diffusion.models.causal_lm.generation import Sampling
from ric_diffusion.models.causal_lm.model import RiCCausalLM, load_tokenizer
from ric_diffusion.models.causal_lm.sampler import LlmSampler
from ric_diffusion.models.checkpoint import Checkpoint, ModelName
from ric_diffusion.models.family import Family, Source
from ric_diffusion.models.hardware import Precision, loaded_dtype
from ric_diffusion.models.known import PACKAGES, TITLES
from ric_diffusion.models.protocol import weights_digest
from ric_diffusion.models.sharding import Sharding
from ric_diffusion.rewards import RewardSpace

USE = Use(
    library="peft",
    task="text-generation",
    python="""from ric_diffusion import generate

[response] = generate(
    "{base}", "How do I bake a cake?", adapter="this/folder", targets={{"{reward}": 1.0}}
)
print(response.sample)""",
    prompt="How do I bake a cake?",
    elsewhere={
        "text": "Stock peft loads the LoRA; the user's turn is then what `ric prompt --adapter "
        "this/folder …` prints.",
        "embedding": "Stock peft loads the LoRA, but without its reward tokens it has no sliders.",
        WITHOUT_LORA: "Other programs load the model as it is; the user's turn is then what `ric "
        "prompt --adapter this/folder …` prints.",
    },
)


class CausalLM(Family):
    """LoRA in every linear layer; rewards end the user's turn, and steer between the layers."""

    def claims(self, source: Source) -> bool:
        """A folder or repository with a plain model's config and no pipeline's index, or a folder
        with one GGUF file."""
        if source.index is not None:
            return False
        return "model_type" in (source.config or {}) or any(Path(source.name).glob("*.gguf"))

    def check_checkpoint(self, checkpoint: Checkpoint) -> None:
        super().check_checkpoint(checkpoint)
        for name in ("base_config", "variant"):
            if value := getattr(checkpoint, name):
                raise InputError(f"{name} {value}: {self.title} have none; leave it out")

    def load(
        self, model: ModelName, device: str | torch.device, dtype: torch.dtype | None
    ) -> RiCCausalLM:
        checkpoint = Checkpoint.of(model)
        lm = RiCCausalLM.from_pretrained(checkpoint.model, dtype or "auto", **checkpoint.hub)
        lm.model.to(device)
        if dtype is None and loaded_dtype(lm.model.dtype, device) != lm.model.dtype:
            lm.model.float()
        return lm

    def resolved(
        self, settings: LlmConfig, precision: Precision, device: str | torch.device
    ) -> tuple[LlmConfig, Precision]:
        _, precision = super().resolved(settings, precision, device)
        return settings.resolved(device), precision

    def sampler(self, model: Any, sampling: Mapping[str, Any] | None = None) -> LlmSampler:
        return LlmSampler(model, sampling)

    def create_backend(
        self,
        model: ModelName,
        space: RewardSpace,
        settings: Any,
        *,
        seed: int = 0,
        device: str | torch.device = "cpu",
        sampled: bool = False,
        sharding: Sharding | None = None,
    ) -> LlmBackend:
        if sharding:
            raise InputError(
                f"accelerate's config: FSDP is for models that make pictures, and {self.title} "
                "train whole in each process; give distributed_type: MULTI_GPU"
            )
        return LlmBackend.create(model, space, settings, seed=seed, device=device)

    def digests(self, model: Any) -> list[str]:
        return [weights_digest(model.model)]

    def held_out(
        self, model: Any, digests: Sequence[str], sampling: Mapping[str, Any]
    ) -> list[Any]:
        """Fluency, by the model without any adapter, whichever it has when it is asked. Texts are
        as long as ``sampling`` says, so that responses are read to where they were cut, and no end
        is expected."""
        sampler = LlmSampler(model, sampling)
        settings = sampler.settings
        limits = {key: getattr(settings, key) for key in ("prompt_tokens", "response_tokens")}

        def log_likelihood(prompts: Sequence[str], samples: Sequence[str]) -> np.ndarray:
            with model.without_adapter():
                return sampler.log_likelihood(prompts, samples)

        return [Fluency(log_likelihood, config.digest(list(digests))[:16], limits)]

    def check_sampling(self, sampling: Mapping[str, Any]) -> None:
        config.from_dict(config.to_dict(sampling), Sampling, "sampling")

    def tokenizer(self, model: ModelName, adapter: Adapter) -> Turn:
        checkpoint = Checkpoint.of(model)
        sampling = config.from_dict(dict(adapter.sampling), Sampling, "sampling")
        tokenizer = load_tokenizer(checkpoint.model, **checkpoint.hub)
        return Turn(tokenizer, sampling.prompt_tokens)


FAMILY = CausalLM(
    name="causal-lm",
    title=TITLES["causal-lm"],
    medium=TEXT,
    section="llm",
    settings=LlmConfig,
    format=PeftFormat(),
    use=USE,
    options={"guidance_scale": "guidance_scale", "contrast": "contrast"},
    software=("torch", "transformers"),
    bundled=tuple(PACKAGES),
)
