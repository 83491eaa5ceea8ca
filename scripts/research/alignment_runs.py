"""The training runs that benchmark_alignment.py compares: their config, and what makes them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

import scorers
from baselines.attrictrl import train_value_encoder
from baselines.conditioned import train_conditioned
from baselines.ddpo import DdpoConfig
from baselines.ddpo_run import reward_curve, train_ddpo
from baselines.dpo import DpoConfig, train_dpo
from baselines.families import ADAPTER
from baselines.runs import due, of_seed
from benchmark import (
    Benchmark,
    Part,
    PromptSplit,
    base_model,
    basis_of,
    data_of,
    online_with_seed,
    train_adapter,
    train_online,
    with_seed,
)
from plateau import PlateauConfig
from ric_diffusion.api.paths import check_out_folder
from ric_diffusion.api.runs import OnlineRun, TrainConfig
from ric_diffusion.data.scoring import load_scorers
from ric_diffusion.evaluation.grid import preference_line
from ric_diffusion.evaluation.method import weights_of
from ric_diffusion.evaluation.report.write import check_report
from ric_diffusion.io import config as configs
from ric_diffusion.io.errors import InputError, suggest
from ric_diffusion.io.files import replacing_folder, write_text
from ric_diffusion.models.cost import COST, Cost
from ric_diffusion.models.diffusion.backend import Layers
from ric_diffusion.models.family import Family
from ric_diffusion.rewards.selection import SELECTIONS
from ric_diffusion.training.loop import MOST_RATE
from scorers.spec import parse_spec

Settings = TypeVar("Settings")
MODULATION: Layers = "modulation"
PROMPTS = "prompts.txt"  # those that online rounds draw
PLATEAU = "ddpo-plateau"  # a run
CONDITIONED = "conditioned"  # a run
WORDS_UNMODULATED, UNMODULATED = "text-unmodulated", "tokens-unmodulated"  # runs


@dataclass(frozen=True, kw_only=True)
class Variant:
    """Ours with other settings, of which only those are said that differ: of ``diffusion`` as ric
    train and ric online have it, of ``online``, and of ``sampling``."""

    diffusion: Mapping[str, Any] = field(default_factory=dict)
    online: Mapping[str, Any] = field(default_factory=dict)
    sampling: Mapping[str, int | float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class VariantRuns:
    """The trainings of a variant, by the names of their runs, those of ours where it is not its
    own; and what is changed in how its adapter draws."""

    name: str
    runs: tuple[str, str]
    offline: TrainConfig | None
    online: OnlineRun | None
    sampling: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """The config. ``offline``, ``text`` and ``online`` are configs of ric train and ric online, of
    which model, data, out and LoRA layers are replaced: all methods train the layers of
    ``offline``, and words those that modulate as well. Offline, words, SFT and soups train with its
    loop, for ``steps``; the latter two on ``sft_fraction`` and ``soup_fraction`` of the data. Ours
    draw with ``sampling``, but for what ``rounds_sampling`` changes of it while online rounds draw;
    methods without rewards to be guided by in as many steps with ``guidance_scale``.

    The first captions are split by ``seed``: ``prompts`` to the comparison, with ``seeds``
    to each, others to our calibrations; those left are what online rounds and DDPO draw, the latter
    ``ddpo_prompts`` of them. Nobody is compared on prompts that were optimised for.
    ``dpo`` trains with the loop of offline as well, and so do the value encoders of AttriCtrl, by
    ``attrictrl_learning_rate``.
    ``held_out``: scorers that are none of the rewards. ``variants``: of ours, by name, to see what
    each setting is worth. ``ddpo_plateau``: one more run, for longer. ``conditioned``: DDPO that is
    told the preference, measured after ``conditioned_stops`` of its iterations as well: trained for
    longer, it may earn more by what no prompt asked for. ``training_seeds``: how often the methods
    of a part are trained, by its name; once where it does not say.
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
    rounds_sampling: Mapping[str, int | float] = field(default_factory=dict)
    held_out: tuple[str, ...] = ()
    training_seeds: Mapping[str, int] = field(default_factory=dict)
    variants: Mapping[str, Variant] = field(default_factory=dict)
    dpo: DpoConfig = field(default_factory=DpoConfig)
    attrictrl_learning_rate: float = 1e-2
    ddpo_plateau: PlateauConfig | None = None
    conditioned: DdpoConfig | None = None
    conditioned_stops: tuple[int, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        for stop in self.conditioned_stops:
            if stop < 1:
                raise ValueError(f"conditioned_stops has {stop}; give 1 or more")
        counts = "best_of", "ddpo_prompts", "prompts", "seeds", "steps"
        configs.at_least(self, 1, *counts, "calibration_prompts", "calibration_seeds")
        configs.at_least(self, 2, "points")
        configs.at_least(self, 0, "seed")
        configs.above_zero(self, "sft_fraction", "soup_fraction", most=1)
        configs.above_zero(self, "attrictrl_learning_rate", most=MOST_RATE)
        if "num_inference_steps" not in self.sampling:
            raise ValueError("sampling: has no num_inference_steps; give it, DDPO has as many")
        if unset := [name for name in self.rounds_sampling if name not in self.sampling]:
            raise ValueError(
                f"rounds_sampling: {unset[0]} is not in sampling, which has to say what it is "
                "otherwise; give it there, too"
            )
        for part, count in self.training_seeds.items():
            if count < 1:
                raise ValueError(f"training_seeds.{part} is {count}; give 1 or more")


@dataclass(frozen=True, kw_only=True)
class AlignmentBenchmark(Benchmark):
    """With the runs that pictures alone have."""

    LEFT_OUT = "sampling"  # which ``sampling`` and ``rounds_sampling`` say

    text: TrainConfig
    ddpo: DdpoConfig
    conditioned: DdpoConfig | None
    variant_runs: Sequence[VariantRuns] = ()

    @property
    def sampling(self) -> Mapping[str, Any]:
        """How our adapters draw, but in online rounds."""
        plain: Mapping[str, Any] = self.config.sampling
        return plain

    @property
    def plain_sampling(self) -> Mapping[str, Any]:
        """Of the methods that have no rewards to be guided by."""
        steps = self.sampling["num_inference_steps"]
        return {"num_inference_steps": steps, "guidance_scale": self.config.guidance_scale}


def load(
    path: Path, out: Path, parts: Sequence[str], known: Mapping[str, Part], **given: Any
) -> AlignmentBenchmark:
    """The benchmark with those of the ``known`` parts that take part; ``given``: more of its
    fields. Whatever is wrong with the config is found here, before hours of work."""
    check_out_folder(out)
    check_report(out)
    config = configs.load_yaml(path, Alignment)
    for part, count in config.training_seeds.items():
        if part not in known:
            raise InputError(f"{path}: training_seeds.{part}: no such part{suggest(part, known)}")
        if known[part].once and count > 1:
            raise InputError(f"{path}: training_seeds.{part} is {count}, and this part is made "
                             "once; leave it out")  # fmt: skip
    ours: Any = {"model": config.model, "data": config.data, "out": None}
    offline, text = (
        # without validation sheets, which would count as cost
        replace(
            run,
            **ours,
            prompts=(),
            loop=replace(run.loop.in_steps(config.steps), validate_every=0),
        )
        for run in (configs.load_yaml(file, TrainConfig) for file in (config.offline, config.text))
    )
    lora, sampling = offline.diffusion.lora, {**config.sampling, **config.rounds_sampling}
    offline = replace(offline, diffusion=replace(offline.diffusion, sampling=sampling))
    # The layers of the others and those that modulate, as the tokens of offline do without them.
    targets = tuple(dict.fromkeys((*lora.targets, MODULATION)))
    words = replace(text.diffusion.lora, rank=lora.rank, targets=targets)
    words = replace(text.diffusion, lora=words, sampling=sampling)
    text = replace(text, where=offline.where, diffusion=words)
    ours |= {"where": offline.where, "diffusion": offline.diffusion}
    online = replace(configs.load_yaml(config.online, OnlineRun), **ours)
    online = replace(online, adapter=str(out / "offline" / "adapter"), prompts=out / PROMPTS)
    steps = int(config.sampling["num_inference_steps"])
    chain: Any = {"num_inference_steps": steps, "guidance_scale": config.guidance_scale}
    ddpo, conditioned = (
        None if one is None else replace(one, lora=lora, **chain)
        for one in (config.ddpo, config.conditioned)
    )
    if steps % config.best_of:
        raise InputError(f"{path}: best_of is {config.best_of}; give a divisor of {steps}, the "
                         "num_inference_steps")  # fmt: skip
    data = data_of(config.data, offline.where, **given)
    space = data.space
    for preference in config.ddpo_preferences:
        weights_of(preference, space)
    prompts = split(data.names, config, f"{path}: ")
    try:
        held_out = [scorers.load(spec) for spec in config.held_out]
    except scorers.ScorerError as error:
        raise InputError(f"{path}: held_out: {error}") from error
    if trained := sorted({parse_spec(spec)[0] for spec in config.held_out} & set(space.names)):
        raise InputError(
            f"{path}: held_out: {trained[0]} is a reward of {config.data}; leave it out"
        )
    if (plateau := config.ddpo_plateau) is not None:
        asked = weights_of(plateau.preference, space).tolist()
        line = preference_line(space.names, config.points)
        if not any(np.allclose(asked, list(point.values())) for point in line):
            raise InputError(f"{path}: ddpo_plateau.preference: is none of the {config.points} "
                             "that ours is asked for; give one that lies on the sweep")  # fmt: skip
    variants = variants_of(config.variants, offline, online, out, f"{path}: variants.")
    pipe, base = base_model(path, config.model, "diffusion")
    check_sampling(pipe.family, config.sampling, f"{path}: ")
    check_sampling(pipe.family, sampling, f"{path}: rounds_")
    for name, variant in config.variants.items():
        own = {**config.sampling, **variant.sampling}
        check_sampling(pipe.family, own, f"{path}: variants.{name}: ")
    return AlignmentBenchmark(
        config=config, out=out, parts=parts, offline=offline, text=text, online=online, ddpo=ddpo,
        conditioned=conditioned, data=data, prompts=prompts, model=pipe,
        base=base, held_out=held_out,
        basis=basis_of(base, data),
        labelling=Cost(scored=data.count * len(space.names)),
        training_seeds=config.training_seeds, variant_runs=variants, **given,
    )  # fmt: skip


def check_sampling(family: Family, sampling: Mapping[str, Any], where: str) -> None:
    """InputError, that begins with ``where``, for what pipelines of the family do not take, or
    not together."""
    try:
        family.check_sampling(sampling)
        family.merged({}, sampling)
    except ValueError as error:
        raise InputError(f"{where}{error}") from error


def variants_of(
    variants: Mapping[str, Variant],
    offline: TrainConfig,
    online: OnlineRun,
    out: Path,
    where: str,
) -> list[VariantRuns]:
    """What variants have to be trained for: those that are trained alike share the runs, which have
    the name of the first. ``where``: in front of errors."""
    found: list[VariantRuns] = []
    shared: dict[str, str] = {}
    named: dict[str, str] = {}
    for name, variant in variants.items():
        same = named.setdefault(slug(name), name)
        if not slug(name) or same != name:
            like = "has neither letters nor digits" if not slug(name) else f"is like {same!r}"
            raise InputError(f"{where}{name}: {like}, which a folder is named by; rename it")
        diffusion = changed(offline.diffusion, variant.diffusion, f"{where}{name}: diffusion")
        rounds = changed(online.online, variant.online, f"{where}{name}: online")
        trained = shared.setdefault(configs.digest(diffusion), slug(name))
        both = shared.setdefault(configs.digest([diffusion, rounds]), slug(name))
        first = f"offline-with-{trained}" if variant.diffusion else "offline"
        second = f"online-with-{both}" if variant.diffusion or variant.online else "online"
        again = replace(
            online, diffusion=diffusion, online=rounds, adapter=str(out / first / "adapter")
        )
        found.append(
            VariantRuns(
                name=name,
                runs=(first, second),
                offline=replace(offline, diffusion=diffusion) if variant.diffusion else None,
                online=again if second != "online" else None,
                sampling=variant.sampling,
            )
        )
    return found


def slug(name: str) -> str:
    """The name as a part of a folder's."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")


def changed(settings: Settings, changes: Mapping[str, Any], where: str) -> Settings:
    """The settings with some of them changed, each checked as in a file."""
    plain = configs.to_dict(settings)
    return configs.from_dict(_merged(plain, changes), type(settings), where)


def _merged(plain: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings are merged, all else is replaced."""
    merged = dict(plain)
    for key, value in changes.items():
        before = plain.get(key)
        both = isinstance(value, Mapping) and isinstance(before, Mapping)
        merged[key] = _merged(before, value) if both else value
    return merged


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


def train_ours(bench: AlignmentBenchmark, k: int) -> None:
    write_text(bench.out / PROMPTS, "".join(f"{name}\n" for name in bench.prompts.training))
    train_adapter(bench, of_seed("offline", k), with_seed(bench.offline, k))
    train_online(bench, of_seed("online", k), online_with_seed(bench, bench.online, k))


def train_other_selection(bench: AlignmentBenchmark, k: int) -> None:
    rounds = replace(bench.online.online, selection=other_selection(bench))
    train_online(bench, "online-other", replace(bench.online, online=rounds))


def other_selection(bench: AlignmentBenchmark) -> Any:
    return next(name for name in SELECTIONS if name != bench.online.online.selection)


def train_conditionings(bench: AlignmentBenchmark, k: int) -> None:
    """Words, which the network's own way from the text to there lets modulate every block, and the
    same without; and tokens that only attention reads."""
    train_adapter(bench, "text", bench.text)
    words = bench.text.diffusion
    targets = tuple(kind for kind in words.lora.targets if kind != MODULATION)
    words = replace(words, lora=replace(words.lora, targets=targets))
    train_adapter(bench, WORDS_UNMODULATED, replace(bench.text, diffusion=words))
    tokens = replace(bench.offline.diffusion, modulation=False)
    train_adapter(bench, UNMODULATED, replace(bench.offline, diffusion=tokens))


def train_variants(bench: AlignmentBenchmark, k: int) -> None:
    for variant in bench.variant_runs:
        offline, online = variant.runs
        if variant.offline is not None:
            train_adapter(bench, offline, variant.offline)
        if variant.online is not None:
            train_online(bench, online, variant.online)


def train_dpo_runs(bench: AlignmentBenchmark, k: int) -> None:
    config = bench.config
    name, loop = of_seed("dpo", k), with_seed(bench.offline, k).loop
    settings = {"dpo": config.dpo, "diffusion": bench.settings, "loop": loop}
    if due(bench.out, name, settings, bench.basis):
        train_dpo(config.model, bench.data.records, config.data, bench.space, bench.settings, loop,
                  config.dpo, bench.out / name, resume=True, device=bench.device)  # fmt: skip


def train_attrictrl_runs(bench: AlignmentBenchmark, k: int) -> None:
    config, loop = bench.config, with_seed(bench.offline, k).loop
    loop = replace(loop, learning_rate=config.attrictrl_learning_rate)
    for reward, name in attrictrl_runs(bench, k).items():
        settings = {"reward": reward, "diffusion": bench.settings, "loop": loop}
        if due(bench.out, name, settings, bench.basis):
            train_value_encoder(config.model, reward, bench.data.records, config.data, bench.space,
                                bench.settings, loop, bench.out / name, resume=True,
                                device=bench.device)  # fmt: skip


def attrictrl_runs(bench: AlignmentBenchmark, k: int) -> dict[str, str]:
    """The value encoder of each reward, of the ``k``-th training seed."""
    return {name: of_seed(f"attrictrl-{name}", k) for name in bench.space.names}


def train_ddpo_runs(bench: AlignmentBenchmark, k: int) -> None:
    ddpo = replace(bench.ddpo, seed=bench.ddpo.seed + k)
    for name, preference in ddpo_runs(bench, k).items():
        settings = {**_task(bench, preference), "ddpo": ddpo}
        if due(bench.out, name, settings, bench.basis):
            _ddpo(bench, name, preference, ddpo)


def train_ddpo_plateau(bench: AlignmentBenchmark, k: int) -> None:
    """One run, which goes on where ``iterations`` was raised since; InputError where they were
    lowered."""
    plateau = bench.config.ddpo_plateau
    if plateau is None:
        return
    same = configs.to_dict(bench.ddpo)
    del same["iterations"]
    settings = {**_task(bench, plateau.preference), "ddpo": same}
    unfinished = due(bench.out, PLATEAU, settings, bench.basis)
    done = 0 if unfinished else len(reward_curve(bench.out / PLATEAU)[0])
    if done > plateau.iterations:
        raise InputError(
            f"ddpo_plateau.iterations is {plateau.iterations}, {bench.out / PLATEAU} has done "
            f"{done}; give as many or more"
        )
    if done < plateau.iterations:
        (bench.out / PLATEAU / COST).unlink(missing_ok=True)  # what it is, it is not any more
        ddpo = replace(bench.ddpo, iterations=plateau.iterations)
        _ddpo(bench, PLATEAU, plateau.preference, ddpo)


def _task(bench: AlignmentBenchmark, preference: Mapping[str, float]) -> dict[str, Any]:
    return {"preference": preference, "prompts": _drawn(bench)}


def _drawn(bench: AlignmentBenchmark) -> Sequence[str]:
    """The prompts that DDPO trains on."""
    return bench.prompts.training[: bench.config.ddpo_prompts]


def _ddpo(
    bench: AlignmentBenchmark, name: str, preference: Mapping[str, float], ddpo: DdpoConfig
) -> None:
    prompts, using = _drawn(bench), load_scorers(bench.space)
    train_ddpo(bench.config.model, bench.space, preference, prompts, using, ddpo, bench.out / name,
               resume=True, device=bench.device)  # fmt: skip


def train_conditioned_runs(bench: AlignmentBenchmark, k: int) -> None:
    """One policy for all preferences."""
    if bench.conditioned is not None:
        _conditioned(bench, of_seed(CONDITIONED, k), k, bench.conditioned)


def train_conditioned_stops(bench: AlignmentBenchmark, k: int) -> None:
    """The same, stopped early: each stop goes on from where the one before it ended."""
    if bench.conditioned is None:
        return
    before = None
    for name, iterations in conditioned_stops(bench, k).items():
        folder = bench.out / name
        if before is not None and not folder.exists():
            with replacing_folder(folder) as copy:
                done = shutil.ignore_patterns(COST, ADAPTER)
                shutil.copytree(before, copy, ignore=done, dirs_exist_ok=True)
        _conditioned(bench, name, k, replace(bench.conditioned, iterations=iterations))
        before = folder


def conditioned_stops(bench: AlignmentBenchmark, k: int) -> dict[str, int]:
    """After how many iterations the run of each stop ends, of the ``k``-th training seed."""
    stops = sorted(set(bench.config.conditioned_stops))
    return {of_seed(f"{CONDITIONED}-{stop}", k): stop for stop in stops}


def _conditioned(bench: AlignmentBenchmark, name: str, k: int, config: DdpoConfig) -> None:
    prompts = _drawn(bench)
    config = replace(config, seed=config.seed + k)
    if due(bench.out, name, {"prompts": prompts, "conditioned": config}, bench.basis):
        train_conditioned(bench.config.model, bench.space, prompts, load_scorers(bench.space),
                          config, bench.out / name, resume=True, device=bench.device)  # fmt: skip


def ddpo_runs(bench: AlignmentBenchmark, k: int) -> dict[str, Mapping[str, float]]:
    """The preference that each DDPO run of the ``k``-th training seed is for."""
    preferences = enumerate(bench.config.ddpo_preferences, start=1)
    return {of_seed(f"ddpo-{i}", k): preference for i, preference in preferences}
