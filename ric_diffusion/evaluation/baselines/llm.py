"""Baselines of language models: the base, supervised fine-tuning on the best, Rewarded Soups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ric_diffusion import config as configs
from ric_diffusion.backend import weights_digest
from ric_diffusion.conditioning import lora
from ric_diffusion.cost import Cost, Meter
from ric_diffusion.data.records import Record
from ric_diffusion.errors import InputError
from ric_diffusion.evaluation.baselines.base import Preference
from ric_diffusion.evaluation.baselines.soups import mixture
from ric_diffusion.evaluation.methods import by_preference, weights_of
from ric_diffusion.evaluation.subject import Point, Subject
from ric_diffusion.files import digests, write_json
from ric_diffusion.llm.adapter import WEIGHTS_FILE, read
from ric_diffusion.llm.backend import LlmBackend, LlmConfig
from ric_diffusion.llm.model import RiCCausalLM
from ric_diffusion.llm.sampler import LlmSampler
from ric_diffusion.rewards import RewardSpace
from ric_diffusion.training import checkpoint
from ric_diffusion.training.loop import LoopConfig, fit


def train_llm_sft(
    model: str,
    records: Sequence[Record],
    folder: Path,
    space: RewardSpace,
    config: LlmConfig,
    loop: LoopConfig,
    out: Path,
    *,
    resume: bool = False,
    device: str | torch.device = "cpu",
) -> Cost:
    """Fine-tune a LoRA on ``records``, whose texts lie in ``folder``; returns the cost.

    Our own backend in text mode with every reward always left out, so the text is the prompt alone.
    Leaves ``out/adapter``, which is no slider for anything, and ``cost.json``. ``resume`` goes on
    after an interruption, exactly.
    """
    if checkpoint.newest(out / "checkpoints") and not resume:
        raise InputError(f"{out}: holds a run already; resume it, or choose another folder")
    config = replace(config, mode="text", dropout=replace(config.dropout, reward=1.0))
    backend = LlmBackend.create(model, space, config, seed=loop.seed, device=device)
    backend.prepare(records, folder, out / "cache")
    digest = configs.digest(
        [
            configs.to_dict(config),
            configs.to_dict(loop),
            [[record.file, *record.captions] for record in records],
            weights_digest(backend.lm.model),
        ]
    )
    meter = Meter()
    with meter.running(backend.watched()):
        fit(backend, len(records), loop, out, digest=digest, resume=resume, meter=meter)
    backend.save(out / "adapter")
    write_json(out / "cost.json", meter.read().to_dict())
    return meter.read()


class LlmBase:
    """The base model as it is; the preference is ignored."""

    name = "base"

    def __init__(self, lm: RiCCausalLM, sampling: Mapping[str, Any]) -> None:
        if lm.adapter is not None:
            raise InputError("a baseline needs the base model alone; call unload_adapter first")
        self.sampler = LlmSampler(lm, sampling)

    def draw(
        self, preference: Preference, prompts: Sequence[str], seeds: Sequence[int]
    ) -> list[str]:
        return self.sampler.sample(prompts, [{}] * len(prompts), seeds)


class LlmSoup(LlmBase):
    """The base model under the mixture of LoRA that the preference asks for (Ramé et al. 2023);
    with a single LoRA for all, plain fine-tuning.

    ``adapters``: a folder that ``train_llm_sft`` wrote for each reward of the space, or one alone.
    """

    def __init__(
        self,
        name: str,
        lm: RiCCausalLM,
        sampling: Mapping[str, Any],
        space: RewardSpace,
        adapters: Mapping[str, Path] | Path,
    ) -> None:
        super().__init__(lm, sampling)
        self.name, self.space = name, space
        if isinstance(adapters, Path):
            adapters = dict.fromkeys(space.names, adapters)
        elif set(adapters) != set(space.names):
            raise InputError(
                f"a soup needs one LoRA for each of {', '.join(space.names)}; given are those of "
                f"{', '.join(adapters) or 'none'}"
            )
        self.loras = [read(adapters[name]) for name in space.names]
        for one in self.loras:
            lora.check_fit(lm.model, one)

    def draw(
        self, preference: Preference, prompts: Sequence[str], seeds: Sequence[int]
    ) -> list[str]:
        network = self.sampler.lm.model
        weights = weights_of(preference, self.space).tolist()
        lora.install(network, mixture(self.loras, weights))
        try:
            return super().draw(preference, prompts, seeds)
        finally:
            lora.eject(network)


def llm_subject(
    method: LlmBase, points: Sequence[Point], adapters: Sequence[Path] = (), **about: Any
) -> Subject:
    """A method as subject of an evaluation, asked for the preferences of ``points``. ``adapters``
    and ``about``: all that its samples depend on besides the model and its sampling."""
    sampler = method.sampler
    files = [folder / WEIGHTS_FILE for folder in adapters]
    own = weights_digest(sampler.lm.model)
    return Subject(
        name=method.name,
        points=points,
        draw=by_preference(method),
        sampler=sampler,
        about={
            **about,
            "sampling": dict(sampler.sampling),
            "weights": configs.digest([own, digests(files)])[:16],
        },
    )
