"""The training runs that benchmark_llm.py compares: their config, and what makes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from baselines.grpo import GrpoConfig, check_trl, train_grpo, used
from baselines.runs import due
from benchmark import (
    Benchmark,
    PromptSplit,
    base_model,
    basis_of,
    data_of,
    train_adapter,
    train_online,
)
from kept import is_kept
from ric_diffusion.api.paths import check_out_folder
from ric_diffusion.api.runs import OnlineRun, TrainConfig
from ric_diffusion.data.prompts import read_prompts
from ric_diffusion.data.scoring import load_scorers
from ric_diffusion.evaluation.method import weights_of
from ric_diffusion.evaluation.report.write import check_report
from ric_diffusion.io import config as configs
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.cost import COST, Cost
from ric_diffusion.models.diffusion.backend import DiffusionConfig
from ric_diffusion.models.hardware import default_device

UNMODULATED = "tokens-unmodulated"  # a run


@dataclass(frozen=True, kw_only=True)
class LlmAlignment:
    """The config. ``offline``, ``text`` and ``online`` are configs of ric train and ric online, of
    which model, data, prompts and out are replaced: all methods train the layers of ``offline``.
    Words train for as many steps, with the rest of ``text`` as it is; SFT and soups train with the
    loop of ``offline``, on ``sft_fraction`` and ``soup_fraction`` of the data. All draw with its
    sampling, but words with the guidance of ``text``.

    ``responses``: the folder that sample_responses.py wrote and ``data`` was labelled from.
    Online rounds and GRPO draw ``prompts``; ``calibration_prompts`` of them are drawn by ``seed``.
    Everybody is judged on ``compared``, with ``seeds`` to each.
    """

    RENAMED: ClassVar[Mapping[str, str]] = {
        "sft_share": "sft_fraction",
        "soup_share": "soup_fraction",
    }

    model: str
    responses: Path
    data: Path
    prompts: Path
    compared: Path
    offline: Path
    text: Path
    online: Path
    sft_fraction: float
    soup_fraction: float
    grpo: GrpoConfig
    grpo_preferences: tuple[Mapping[str, float], ...]
    seeds: int
    calibration_prompts: int
    calibration_seeds: int
    points: int
    seed: int = 0

    def __post_init__(self) -> None:
        configs.at_least(self, 1, "seeds", "calibration_prompts", "calibration_seeds")
        configs.at_least(self, 2, "points")
        configs.at_least(self, 0, "seed")
        configs.above_zero(self, "sft_fraction", "soup_fraction", most=1)


@dataclass(frozen=True, kw_only=True)
class LlmBenchmark(Benchmark):
    """With the words that tokens are compared with."""

    LEFT_OUT = "dtype"  # by the machine: bfloat16 where it has that in hardware

    text: TrainConfig


def load(path: Path, out: Path, parts: Sequence[str], **given: Any) -> LlmBenchmark:
    """The benchmark; ``given``: more of its fields. Whatever is wrong with the config is found
    here, before hours of work."""
    check_out_folder(out)
    check_report(out)
    config = configs.load_yaml(path, LlmAlignment)
    offline = configs.load_yaml(config.offline, TrainConfig)
    text = configs.load_yaml(config.text, TrainConfig)
    online = configs.load_yaml(config.online, OnlineRun)
    for name, run in (("offline", offline), ("text", text), ("online", online)):
        if run.diffusion != DiffusionConfig():
            raise InputError(f"{path}: {name}: {getattr(config, name)} has settings of diffusion, "
                             "which language models do not read; give llm")  # fmt: skip
    same: Any = {"model": config.model, "data": config.data, "out": None}
    # without validation sheets, which would count as cost
    loop = replace(offline.loop, validate_every=0)
    llm = offline.llm.resolved(default_device())
    offline = replace(offline, **same, prompts=(), loop=loop, llm=llm)
    loop = replace(text.loop.in_steps(loop.steps), validate_every=0)
    own = text.llm.sampling
    sampling = replace(llm.sampling, guidance_scale=own.guidance_scale, contrast=own.contrast)
    words = replace(text.llm, dtype=llm.dtype, sampling=sampling)
    text = replace(text, **same, where=offline.where, prompts=(), loop=loop, llm=words)
    same |= {"where": offline.where, "llm": offline.llm, "prompts": config.prompts}
    online = replace(online, **same, adapter=str(out / "offline" / "adapter"))
    data = data_of(config.data, offline.where, **given)
    space = data.space
    for preference in config.grpo_preferences:
        weights_of(preference, space)
    if "grpo" in parts and not (given.get("only_kept") or is_kept(given["scores"] / "grpo")):
        check_trl()
    prompts = split(config, f"{path}: ")
    sampled = Cost() if given.get("only_kept") else cost_of(config.responses)
    lm, base = base_model(path, config.model, "llm")  # whatever is computed in, it is this model
    if llm.dtype != "float32":
        lm = lm.family.load(config.model, default_device(), getattr(torch, llm.dtype))
        lm.unload_adapter()
    held_out = lm.family.held_out(lm, base, configs.to_dict(offline.llm.sampling))
    return LlmBenchmark(
        config=config, out=out, parts=parts, offline=offline, text=text, online=online,
        data=data, prompts=prompts, held_out=held_out, model=lm, base=base,
        basis=basis_of(base, data),
        labelling=sampled + Cost(scored=data.count * len(space.names)), **given,
    )  # fmt: skip


def split(config: LlmAlignment, where: str) -> PromptSplit:
    """InputError where prompts are judged that were trained on, or too few are there."""
    training, compared = read_prompts(config.prompts), read_prompts(config.compared)
    if both := sorted(set(training) & set(compared)):
        raise InputError(f"{where}compared: {both[0]!r} is in {config.prompts} too; judge others")
    if config.calibration_prompts > len(training):
        raise InputError(f"{where}calibration_prompts is {config.calibration_prompts}, "
                         f"{config.prompts} has {len(training)}; ask for fewer")  # fmt: skip
    order = np.random.default_rng(config.seed).permutation(len(training)).tolist()
    calibration = [training[i] for i in order[: config.calibration_prompts]]
    return PromptSplit(compared=compared, calibration=calibration, training=training)


def cost_of(responses: Path) -> Cost:
    """What the model's own responses cost, which all that is trained on them needs."""
    path = responses / COST
    try:
        return Cost.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise InputError(
            f"{path}: says no cost; have scripts/sample_responses.py write the folder"
        ) from None


def train_ours(bench: Benchmark, k: int) -> None:
    train_adapter(bench, "offline", bench.offline)
    train_online(bench, "online", bench.online)


def train_conditionings(bench: LlmBenchmark, k: int) -> None:
    """Words, and tokens that steer no layers."""
    train_adapter(bench, "text", bench.text)
    tokens = replace(bench.offline.llm, modulation=False)
    train_adapter(bench, UNMODULATED, replace(bench.offline, llm=tokens))


def train_grpo_runs(bench: Benchmark, k: int) -> None:
    config, space, prompts = bench.config, bench.space, bench.prompts.training
    llm, grpo = used(bench.settings), config.grpo
    for name, preference in grpo_runs(bench).items():
        settings = {"preference": preference, "prompts": prompts, "llm": llm, "grpo": grpo}
        if due(bench.out, name, settings, bench.basis):
            train_grpo(config.model, space, preference, prompts, load_scorers(space), llm, grpo,
                       bench.out / name, resume=True, device=bench.device)  # fmt: skip


def grpo_runs(bench: Benchmark) -> dict[str, Mapping[str, float]]:
    """The preference that each GRPO run is for."""
    preferences = enumerate(bench.config.grpo_preferences, start=1)
    return {f"grpo-{i}": preference for i, preference in preferences}
