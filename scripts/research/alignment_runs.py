"""The training runs that benchmark_alignment.py compares: their config, and what makes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

import scorers
from baselines.ddpo import DdpoConfig
from baselines.ddpo_run import train_ddpo
from baselines.runs import due, of_seed
from benchmark import (
    Benchmark,
    PromptSplit,
    base_model,
    basis_of,
    online_with_seed,
    train_adapter,
    train_online,
    with_seed,
)
from ric_diffusion.api.paths import check_out_folder
from ric_diffusion.api.runs import OnlineRun, TrainConfig, first_captions, selected
from ric_diffusion.data.records import read_labelled
from ric_diffusion.data.scoring import load_scorers
from ric_diffusion.evaluation.method import weights_of
from ric_diffusion.io import config as configs
from ric_diffusion.io.errors import InputError, suggest
from ric_diffusion.io.files import write_text
from ric_diffusion.models.cost import Cost
from ric_diffusion.rewards.selection import SELECTIONS

PROMPTS = "prompts.txt"  # those that online rounds draw


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """The config. ``offline``, ``text`` and ``online`` are configs of ric train and ric online, of
    which model, data, out and LoRA layers are replaced: all methods train the layers of
    ``offline``. Offline, words, SFT and soups train with its loop, for ``steps``; the latter two on
    ``sft_fraction`` and ``soup_fraction`` of the data. Ours draw with ``sampling``, and methods
    without rewards to be guided by in as many steps with ``guidance_scale``.

    The first captions are split by ``seed``: ``prompts`` to the comparison, with ``seeds``
    to each, others to our calibrations; those left are what online rounds and DDPO draw, the latter
    ``ddpo_prompts`` of them. Nobody is compared on prompts that were optimised for.
    ``held_out``: scorers that are none of the rewards. ``training_seeds``: how often the methods of
    a part are trained, by its name; once where it does not say.
    """

    RENAMED: ClassVar[Mapping[str, str]] = {
        "sft_share": "sft_fraction",
        "soup_share": "soup_fraction",
    }

    model: str
    data: Path
    offline: Path
    text: Path
    online: Path
    steps: int
    sft_fraction: float
    soup_fraction: float
    sampling: Mapping[str, int | float]
    guidance_scale: float
    best_of: int
    ddpo: DdpoConfig
    ddpo_preferences: tuple[Mapping[str, float], ...]
    ddpo_prompts: int
    prompts: int
    seeds: int
    calibration_prompts: int
    calibration_seeds: int
    points: int
    held_out: tuple[str, ...] = ()
    training_seeds: Mapping[str, int] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        counts = "best_of", "ddpo_prompts", "prompts", "seeds"
        configs.at_least(self, 1, *counts, "calibration_prompts", "calibration_seeds")
        for part, count in self.training_seeds.items():
            if count < 1:
                raise ValueError(f"training_seeds.{part} is {count}; give 1 or more")


@dataclass(frozen=True, kw_only=True)
class AlignmentBenchmark(Benchmark):
    """With the runs that pictures alone have."""

    text: TrainConfig
    ddpo: DdpoConfig

    @property
    def plain_sampling(self) -> Mapping[str, Any]:
        """Of the methods that have no rewards to be guided by."""
        steps = self.sampling["num_inference_steps"]
        return {"num_inference_steps": steps, "guidance_scale": self.config.guidance_scale}


def load(path: Path, out: Path, parts: Sequence[str], known: Iterable[str]) -> AlignmentBenchmark:
    """The benchmark with those of the ``known`` parts that take part. Whatever is wrong with the
    config is found here, before hours of work."""
    check_out_folder(out)
    config = configs.load_yaml(path, Alignment)
    for part in config.training_seeds:
        if part not in known:
            raise InputError(f"{path}: training_seeds.{part}: no such part{suggest(part, known)}")
    ours: Any = {"model": config.model, "data": config.data, "out": None}
    offline, text = (
        # without validation sheets, which would count as cost
        replace(
            run, **ours, prompts=(), loop=replace(run.loop, steps=config.steps, validate_every=0)
        )
        for run in (configs.load_yaml(file, TrainConfig) for file in (config.offline, config.text))
    )
    lora, sampling = offline.diffusion.lora, config.sampling
    offline = replace(offline, diffusion=replace(offline.diffusion, sampling=sampling))
    words = replace(text.diffusion, lora=lora, sampling=sampling)
    text = replace(text, where=offline.where, diffusion=words)
    ours |= {"where": offline.where, "diffusion": offline.diffusion}
    online = replace(configs.load_yaml(config.online, OnlineRun), **ours)
    online = replace(online, adapter=str(out / "offline" / "adapter"), prompts=out / PROMPTS)
    steps = int(sampling["num_inference_steps"])
    ddpo = replace(
        config.ddpo, lora=lora, num_inference_steps=steps, guidance_scale=config.guidance_scale
    )
    if steps % config.best_of:
        raise InputError(f"{path}: best_of is {config.best_of}; give a divisor of {steps}, the "
                         "num_inference_steps")  # fmt: skip
    records, space = read_labelled(config.data)
    records = selected(records, offline.where)
    for preference in config.ddpo_preferences:
        weights_of(preference, space)
    prompts = split(first_captions(records), config, f"{path}: ")
    if trained := sorted(set(config.held_out) & set(space.names)):
        raise InputError(
            f"{path}: held_out: {trained[0]} is a reward of {config.data}; leave it out"
        )
    pipe, base = base_model(path, config.model, "diffusion")
    return AlignmentBenchmark(
        config=config, out=out, parts=parts, offline=offline, text=text, online=online, ddpo=ddpo,
        records=records, prompts=prompts, space=space, model=pipe, base=base,
        held_out=[scorers.load(name) for name in config.held_out],
        basis=basis_of(base, space, records),
        labelling=Cost(scored=len(records) * len(space.names)),
        training_seeds=config.training_seeds,
    )  # fmt: skip


def split(names: Sequence[str], config: Alignment, where: str) -> PromptSplit:
    """Every one of the captions to one use; InputError if there are too few."""
    apart = config.prompts + config.calibration_prompts
    if len(names) < apart + config.ddpo_prompts:
        raise InputError(f"{where}prompts, calibration_prompts and ddpo_prompts are "
                         f"{apart + config.ddpo_prompts}, the data has {len(names)} names; ask for "
                         "fewer")  # fmt: skip
    order = np.random.default_rng(config.seed).permutation(len(names)).tolist()
    compared, calibration, training = (
        [names[i] for i in some]
        for some in (order[: config.prompts], order[config.prompts : apart], order[apart:])
    )
    return PromptSplit(compared=compared, calibration=calibration, training=training)


def train_ours(bench: AlignmentBenchmark) -> None:
    write_text(bench.out / PROMPTS, "".join(f"{name}\n" for name in bench.prompts.training))
    for k in bench.seeds_of("ours"):
        train_adapter(bench, of_seed("offline", k), with_seed(bench.offline, k))
        train_online(bench, of_seed("online", k), online_with_seed(bench, bench.online, k))


def train_other_selection(bench: AlignmentBenchmark) -> None:
    rounds = replace(bench.online.online, selection=other_selection(bench))
    train_online(bench, "online-other", replace(bench.online, online=rounds))


def other_selection(bench: AlignmentBenchmark) -> Any:
    return next(name for name in SELECTIONS if name != bench.online.online.selection)


def train_words(bench: AlignmentBenchmark) -> None:
    train_adapter(bench, "text", bench.text)


def train_ddpo_runs(bench: AlignmentBenchmark) -> None:
    config, space = bench.config, bench.space
    prompts = bench.prompts.training[: config.ddpo_prompts]
    for k in bench.seeds_of("ddpo"):
        ddpo = replace(bench.ddpo, seed=bench.ddpo.seed + k)
        for name, preference in ddpo_runs(bench, k).items():
            settings = {"preference": preference, "prompts": prompts, "ddpo": ddpo}
            if due(bench.out, name, settings, bench.basis):
                train_ddpo(config.model, space, preference, prompts, load_scorers(space), ddpo,
                           bench.out / name, resume=True, device=bench.device)  # fmt: skip


def ddpo_runs(bench: AlignmentBenchmark, k: int) -> dict[str, Mapping[str, float]]:
    """The preference that each DDPO run of the ``k``-th training seed is for."""
    preferences = enumerate(bench.config.ddpo_preferences, start=1)
    return {of_seed(f"ddpo-{i}", k): preference for i, preference in preferences}
