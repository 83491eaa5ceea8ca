"""What the benchmarks of alignment have in common, for either medium: which methods take part, what
trains and measures them, and the tables that come of it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import torch
from matplotlib.figure import Figure
from safetensors.torch import load_file

import comparison
from baselines.base import BaseModel, Preference, Tuned
from baselines.curves import curves_figure
from baselines.ddpo_run import reward_curve
from baselines.families import lora_file
from baselines.methods import baseline_method
from baselines.runs import due, of_seed, spent
from baselines.sft import best_records, best_records_for, train_sft
from baselines.soups import OneEach, Soup
from cost_plot import cost_figure
from kept import Curve, Kept, Training, is_kept, read_kept, write_kept
from labelled_data import LabelledData, keep_data, kept_data, labelled_data
from ric_diffusion import __version__, api
from ric_diffusion.adapters.adapter import Adapter, adapter_digests
from ric_diffusion.api.runs import OnlineRun, TrainConfig
from ric_diffusion.data.records import Record
from ric_diffusion.data.scoring import load_scorers
from ric_diffusion.evaluation.compare import (
    FIRST_SEED,
    SOFTWARE,
    SWEEPS,
    AdapterChoice,
    calibrate,
    calibrated,
    method_of,
)
from ric_diffusion.evaluation.config import EvaluationConfig
from ric_diffusion.evaluation.grid import Point, preference_points, slider_points
from ric_diffusion.evaluation.method import Method
from ric_diffusion.evaluation.report.plots import front_figure, png, reward_pairs
from ric_diffusion.evaluation.report.schema import EvaluationResult
from ric_diffusion.evaluation.report.write import write_metrics, write_report
from ric_diffusion.evaluation.runner import VERB, MethodScores, evaluate_methods, folder_of
from ric_diffusion.io import config as configs
from ric_diffusion.io.engines import HERE
from ric_diffusion.io.errors import CollapseError, InputError
from ric_diffusion.io.files import write_bytes, write_text
from ric_diffusion.io.run import RunFolder
from ric_diffusion.models.cost import Cost
from ric_diffusion.models.family import family_of, loading
from ric_diffusion.models.hardware import default_device
from ric_diffusion.rewards import RewardSpace
from scorers import ScorerError
from trainings import Comparison, Pair, over_trainings

OURS, OFFLINE = "RiC online", "RiC offline"
CALIBRATED = "calibrated"
ONLINE_CALIBRATED = f"{OURS}, {CALIBRATED}"
BASE, SFT, SOUP = "base model", "SFT", "rewarded soup"
SCORES = "scores"  # below a benchmark's folder
FOLDERS = "model", "data", "out", "adapter", "prompts"  # of runs; what is in them counts


@dataclass(frozen=True, kw_only=True)
class PromptSplit:
    """Prompts by their use."""

    compared: list[str]
    calibration: list[str]
    training: list[str]


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What all parts work with.

    Attributes:
        config: the benchmark's own.
        scores: the folder in which what is found is kept.
        parts: those that take part, by name.
        training_seeds: how many trainings a part's methods have, one where it does not say.
        only_seeds: those of them that take part, all by default.
        only_kept: nothing is made; what is not kept takes no part.
        model: without an adapter.
        base: digests of its parts.
        basis: a digest that stands for model and data.
        LEFT_OUT: of the family's settings the one that is none of a training's, or only of the
            machine that it ran on.
        labelling: what the data and its scores cost, which all that is trained on it needs.
    """

    LEFT_OUT: ClassVar[str]

    config: Any
    out: Path
    scores: Path
    parts: Sequence[str]
    offline: TrainConfig
    online: OnlineRun
    data: LabelledData
    prompts: PromptSplit
    held_out: Sequence[Any]
    model: Any
    base: list[str]
    basis: str
    labelling: Cost
    training_seeds: Mapping[str, int] = field(default_factory=dict)
    only_seeds: Collection[int] = ()
    only_kept: bool = False

    def seeds_of(self, part: str) -> list[int]:
        """The training seeds of a part's methods, from 0."""
        seeds = range(self.training_seeds.get(part, 1))
        return [
            k
            for k in seeds
            if (not self.only_seeds or k in self.only_seeds)
            and (not self.only_kept or is_kept(self.scores / of_seed(part, k)))
        ]

    @property
    def space(self) -> RewardSpace:
        return self.data.space

    def setting(self, name: str) -> Any:
        """A setting that figures depend on, as plain data, without the names of folders."""
        own = getattr(self, name, None)
        if isinstance(own, TrainConfig | OnlineRun):
            recipe = {k: value for k, value in _recipe(self, own).items() if k not in FOLDERS}
            section = self.model.family.section
            about = {k: value for k, value in recipe[section].items() if k != self.LEFT_OUT}
            return {**recipe, section: about}
        return configs.to_dict(getattr(self.config, name) if own is None else own)

    @cached_property
    def evaluation(self) -> EvaluationConfig:
        """What all methods are measured by."""
        return EvaluationConfig(
            space=self.space,
            prompts=self.prompts.compared,
            seeds=range(FIRST_SEED, FIRST_SEED + self.config.seeds),
            scorers=load_scorers(self.space),
            held_out=self.held_out,
        )

    @property
    def settings(self) -> Any:
        """Those of the model's family: layers, objective, sampling."""
        return getattr(self.offline, self.model.family.section)

    @property
    def sampling(self) -> Mapping[str, Any]:
        """How our adapters draw."""
        plain: Mapping[str, Any] = configs.to_dict(self.settings.sampling)
        return plain

    @property
    def device(self) -> Any:
        """Where the model is."""
        return self.model.family.sampler(self.model, self.sampling).network().device

    def lora(self, run: str) -> Path:
        """The LoRA of a baseline's run."""
        return self.out / run / lora_file(self.model.family)


@dataclass(frozen=True, kw_only=True)
class Trained(Training):
    """A method as one training left it, not measured yet."""

    method: Method

    def of_seed(self, k: int) -> Trained:
        """The same with the name of the ``k``-th training seed."""
        return replace(self, method=replace(self.method, name=self.method.name + _of_training(k)))

    def measured(self, scores: MethodScores) -> Kept:
        known = {one.name: getattr(self, one.name) for one in fields(Training)}
        return Kept(scores=scores, **known)


@dataclass(frozen=True, kw_only=True)
class BenchmarkMethod:
    """A method, once for each of its training seeds; the report shows the samples of the first.
    ``part``: whose runs it is of."""

    trainings: tuple[Kept, ...]
    part: str

    @property
    def name(self) -> str:
        return self.trainings[0].scores.name

    @property
    def variant(self) -> bool:
        return self.trainings[0].variant

    @property
    def cost(self) -> Cost:
        """Of a training, on the average."""
        total, count = sum((one.cost for one in self.trainings), Cost()), len(self.trainings)
        return Cost(
            forwards=round(total.forwards / count),
            scored=round(total.scored / count),
            seconds=total.seconds / count,
        )


@dataclass(frozen=True, kw_only=True)
class Part:
    """What --only and --skip name.

    Attributes:
        methods: what is measured of it by training seed, once all is trained.
        reads: settings that its figures depend on, beside those of all parts.
        train: makes the runs of a training seed that are not there yet.
        needs: parts whose runs it uses; they are made first.
        once: whether it reads no training seed, so that more trainings would be the same one.
    """

    methods: Callable[[Any, int], Iterator[Trained]]
    reads: tuple[str, ...]
    train: Callable[[Any, int], None] = lambda bench, k: None
    needs: tuple[str, ...] = ()
    once: bool = False


def base_model(path: Path, model: str, section: str) -> tuple[Any, list[str]]:
    """The model that the config ``path`` names, without adapter, and the digests of its parts.
    InputError, that begins with the path, if it is of a family with other settings than
    ``section``."""
    with loading(model, f"{path}: model"):
        family = family_of(model)
        if family.section != section:
            raise InputError(
                f"{model}: is of {family.title}; give one whose settings are {section}"
            )
        found = family.load(model, default_device(), torch.float32)
    found.unload_adapter()
    return found, family.digests(found)


def data_of(
    folder: Path, where: Mapping[str, Any], scores: Path, only_kept: bool = False, **given: Any
) -> LabelledData:
    """What the labelled ``folder`` has, or what was kept of it where nothing is to be made;
    ``given``: the other fields of a benchmark."""
    return kept_data(scores) if only_kept else labelled_data(folder, where)


def basis_of(base: Sequence[str], data: LabelledData) -> str:
    return configs.digest([base, data.space.to_dict(), data.digest])[:16]


def train_adapter(bench: Benchmark, name: str, settings: TrainConfig) -> None:
    """An offline training, unless it is there."""
    if due(bench.out, name, _recipe(bench, settings), bench.basis):
        api.train(settings, out=bench.out / name, resume=True)


def train_online(bench: Benchmark, name: str, settings: OnlineRun) -> None:
    """Online rounds, unless they are there; the adapter that they begin with is, and so are their
    prompts, in a file."""
    read = [adapter_digests(Path(settings.adapter)), bench.prompts.training]
    basis = configs.digest([bench.basis, read])[:16]
    if due(bench.out, name, _recipe(bench, settings), basis):
        api.online(settings, out=bench.out / name, resume=True)


def _recipe(bench: Benchmark, settings: Any) -> dict[str, Any]:
    """The settings without those of families that are not trained."""
    recipe: dict[str, Any] = configs.to_dict(settings)
    for section in {"diffusion", "llm"} - {bench.model.family.section}:
        del recipe[section]
    return recipe


def with_seed(settings: TrainConfig, k: int) -> TrainConfig:
    """The settings for the ``k``-th training seed."""
    return replace(settings, loop=replace(settings.loop, seed=settings.loop.seed + k))


def online_with_seed(bench: Benchmark, settings: OnlineRun, k: int) -> OnlineRun:
    """The same of online rounds, which begin with the offline adapter of that seed."""
    rounds = settings.online
    loop = replace(rounds.loop, seed=rounds.loop.seed + k)
    return replace(
        settings,
        adapter=str(bench.out / of_seed("offline", k) / "adapter"),
        online=replace(rounds, seed=rounds.seed + k, loop=loop),
    )


def train_sft_runs(bench: Benchmark, k: int) -> None:
    """Plain fine-tuning on the best of the data."""
    best = best_records(bench.data.records, bench.space, bench.config.sft_fraction)
    train_on(bench, of_seed("sft", k), best, k)


def train_soup_runs(bench: Benchmark, k: int) -> None:
    """A LoRA for each reward, on the best of the data by that."""
    for name in bench.space.names:
        best = best_records_for(
            bench.data.records, bench.space, {name: 1.0}, bench.config.soup_fraction
        )
        train_on(bench, of_seed(f"soup-{name}", k), best, k)


def train_on(bench: Benchmark, name: str, records: Sequence[Record], k: int) -> None:
    """A LoRA trained on some of the records, by the ``k``-th training seed, unless it is there."""
    config, loop = bench.config, with_seed(bench.offline, k).loop
    settings = {"records": len(records), bench.model.family.section: bench.settings, "loop": loop}
    if due(bench.out, name, settings, bench.basis):
        train_sft(config.model, records, config.data, bench.space, bench.settings, loop,
                  bench.out / name, resume=True, device=bench.device)  # fmt: skip


def ours(
    bench: Benchmark,
    name: str,
    *runs: str,
    mapping: str | None = None,
    calibrate_it: bool = False,
    alone: bool = False,
    sampling: Mapping[str, Any] | None = None,
    **about: Any,
) -> Trained:
    """The adapter of the last of ``runs``, which cost what all of them did, and its calibration;
    ``alone``: it also moves each reward alone; ``sampling``: in place of the benchmark's;
    ``about``: what else there is to say of it."""
    folder, found, config = bench.out / runs[-1] / "adapter", None, bench.evaluation
    choice = AdapterChoice(
        given=runs[-1],
        name=name,
        folder=folder,
        adapter=Adapter.load(folder),
        sampling=bench.sampling if sampling is None else sampling,
    )
    cost = bench.labelling + spent(bench.out, runs)
    if calibrate_it:
        seeds = range(bench.config.calibration_seeds)  # their number counts
        found = calibrate(
            bench.model,
            choice,
            bench.base,
            replace(config, prompts=bench.prompts.calibration, seeds=seeds),
            bench.out / SWEEPS / runs[-1],
            points=bench.config.points,
            workers=HERE,
        )
        choice, cost = calibrated(choice, found.curves), cost + found.cost
    adapter = choice.adapter
    assert adapter is not None
    used = mapping or adapter.mapping
    points = slider_points(adapter.space, used, bench.config.points)
    points = [point for point in points if alone or point.along is None]
    method = method_of(bench.model, choice, bench.base, name=name, points=points, mapping=used)
    count = parameters_in(bench.out / runs[-1])
    return Trained(method=method, cost=cost, calibration=found, parameters=count, **about)


def parameters_in(run: Path) -> int:
    """How many numbers a run's adapter has: its LoRA's, and the reward encoder's."""
    files = (run / "adapter").glob("*.safetensors")
    return sum(tensor.numel() for file in files for tensor in load_file(file).values())


def base_methods(plain: Any) -> Iterator[Trained]:
    """It reads no preference, so one point says all; ``plain`` draws without rewards."""
    yield Trained(method=baseline_method(BASE, BaseModel(plain), plain, [Point()]))


def sft_methods(bench: Benchmark, plain: Any, k: int) -> Iterator[Trained]:
    """It reads no preference either."""
    file = bench.lora(of_seed("sft", k))
    tuned = Tuned(plain, bench.space, [(dict.fromkeys(bench.space.names, 1.0), file)])
    yield Trained(
        method=baseline_method(SFT, tuned, plain, [Point()], [file]),
        cost=bench.labelling + spent(bench.out, [of_seed("sft", k)]),
    )


def soup_methods(bench: Benchmark, plain: Any, k: int) -> Iterator[Trained]:
    runs = {name: of_seed(f"soup-{name}", k) for name in bench.space.names}
    yield soup_of(bench, SOUP, plain, runs, bench.labelling)


def soup_of(
    bench: Benchmark,
    name: str,
    plain: Any,
    runs: Mapping[str, str],
    before: Cost,
    mixed: type[OneEach] = Soup,
) -> Trained:
    """A soup of one run for each reward, or what else they are ``mixed`` to; ``before``: what their
    data cost."""
    loras = {reward: bench.lora(run) for reward, run in runs.items()}
    line = preference_points(bench.space, bench.config.points)
    soup = mixed(plain, bench.space, loras)
    return Trained(
        method=baseline_method(name, soup, plain, line, list(loras.values())),
        cost=before + spent(bench.out, runs.values()),
    )


def nearest_of(bench: Benchmark, name: str, plain: Any, runs: Mapping[str, Preference]) -> Trained:
    """Of several runs, each for a preference, the one nearest to what is asked; with their reward
    curves."""
    made_for = [(preference, bench.lora(run)) for run, preference in runs.items()]
    tuned = Tuned(plain, bench.space, made_for)
    line = preference_points(bench.space, bench.config.points)
    files = [file for _, file in made_for]
    preferences = [dict(preference) for preference, _ in made_for]
    return Trained(
        method=baseline_method(name, tuned, plain, line, files, preferences=preferences),
        cost=spent(bench.out, runs),
        curves={title_of(one): reward_curve(bench.out / run) for run, one in runs.items()},
    )


def options_of(doc: str, config: str, out: str, parts: Sequence[str]) -> tuple[Any, Any]:
    """The parser of a benchmark, for its errors, and what it was given, with the ``parts`` that are
    asked for; ``doc``: the module's. The first part can't be skipped: all are compared with it."""
    parser = argparse.ArgumentParser(description=doc.split("\n\n")[0])
    own = Path(__file__).parent / "configs" / config
    parser.add_argument("--config", type=Path, default=own, metavar="CONFIG.yaml")
    parser.add_argument("--out", type=Path, default=Path(out), metavar="FOLDER")
    parser.add_argument("--scores", type=Path, metavar="FOLDER",
                        help=f"where what is found is kept, and what is found there is not made "
                        f"again; {SCORES} in that of --out by default")  # fmt: skip
    parser.add_argument("--training-seeds", nargs="+", type=int, default=[], metavar="K",
                        help="only these training seeds, from 0")  # fmt: skip
    parser.add_argument("--kept", action="store_true",
                        help="make tables of what is kept, and nothing else")  # fmt: skip
    some = parser.add_mutually_exclusive_group()
    some.add_argument("--skip", nargs="+", choices=parts[1:], default=[], metavar="PART",
                      help=f"leave out some of {', '.join(parts[1:])}")  # fmt: skip
    some.add_argument("--only", nargs="+", choices=parts, default=[], metavar="PART",
                      help=f"train and draw some of {', '.join(parts)}, and write no table; other "
                      "processes may do others")  # fmt: skip
    given = parser.parse_args()
    wanted = given.only or parts
    given.parts = [part for part in parts if part in wanted and part not in given.skip]
    given.scores = given.scores or given.out / SCORES
    return parser, given


def run_benchmark(parser: argparse.ArgumentParser, run: Callable[[], None]) -> None:
    """Run it; what `ric` says in one line is one line here, with the same exit codes."""
    try:
        run()
    except (InputError, ScorerError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    except (OSError, FloatingPointError, CollapseError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")


def all_methods(bench: Benchmark, parts: Mapping[str, Part]) -> list[BenchmarkMethod]:
    """All methods of the parts that take part. What is kept of a training is not made again.
    InputError, before anything is made, if something else was kept there, and if there is none of
    the first part, whose methods others are compared with."""
    most = max((bench.training_seeds.get(part, 1) for part in bench.parts), default=1)
    if unknown := [k for k in bench.only_seeds if k not in range(most)]:
        raise InputError(
            f"--training-seeds {unknown[0]}: the config has {most}, from 0, of these parts; "
            "training_seeds there says how many"
        )
    first = next(iter(parts))
    if first in bench.parts and not bench.seeds_of(first):
        if bench.only_kept:
            raise InputError(f"{bench.scores}: nothing of {first} is kept; leave out --kept")
        raise InputError(
            f"--training-seeds {min(bench.only_seeds)}: of {first}, which all are compared with, "
            f"the config has {bench.training_seeds.get(first, 1)}; give one of those, too"
        )
    for name in bench.parts:
        for k in bench.seeds_of(name):
            kept_in(bench, name, k).check_same(identity_of(bench, parts, name))
    if not bench.only_kept:
        keep_data(bench.data, bench.scores)
    methods = []
    for name in bench.parts:
        trainings = [
            [_plain(one, k) if not i else one for one in _found(bench, parts, name, k)]
            for i, k in enumerate(bench.seeds_of(name))
        ]
        methods += [
            BenchmarkMethod(trainings=same, part=name) for same in zip(*trainings, strict=True)
        ]
    return methods


def _plain(kept: Kept, k: int) -> Kept:
    """The first of a method's trainings, the ``k``-th, with the name of the method."""
    name = kept.scores.name.removesuffix(_of_training(k))
    return replace(kept, scores=replace(kept.scores, name=name))


def _of_training(k: int) -> str:
    """What the name of a method ends with, which is that of its samples' folder."""
    return f", training seed {k}" if k else ""


def kept_in(bench: Benchmark, name: str, k: int) -> RunFolder:
    """Where what the ``k``-th training of a part gave is kept."""
    path = bench.scores / of_seed(name, k)
    return RunFolder(path, SCORES, mend="restore that, or remove the folder to make it anew")


def identity_of(bench: Benchmark, parts: Mapping[str, Part], name: str) -> dict[str, Any]:
    """What the figures of a part depend on, beside the training seed."""
    needed = [*parts[name].needs, name]
    return {
        "basis": bench.basis,
        "prompts": configs.digest(bench.prompts),
        "seeds": list(bench.evaluation.seeds),
        "points": bench.config.points,
        "scorers": [scorer.fingerprint for scorer in bench.evaluation.scorers],
        "held_out": [scorer.fingerprint for scorer in bench.held_out],
        **{read: bench.setting(read) for some in needed for read in parts[some].reads},
    }


def _found(bench: Benchmark, parts: Mapping[str, Part], name: str, k: int) -> list[Kept]:
    """What one training of a part gives, now or before."""
    run = kept_in(bench, name, k)
    run.begin(identity_of(bench, parts, name))
    suffix = bench.model.family.medium.suffix
    if (before := read_kept(run.path, bench.evaluation, suffix)) is not None:
        return before
    for needed in (*parts[name].needs, name):
        parts[needed].train(bench, k)
    bench.model.unload_adapter()
    made = [one.of_seed(k) for one in parts[name].methods(bench, k)]
    bench.model.unload_adapter()
    scores = evaluate_methods([one.method for one in made], bench.evaluation, bench.out)
    kept = [one.measured(some) for one, some in zip(made, scores, strict=True)]
    write_kept(run.path, kept)
    return _found(bench, parts, name, k)  # what was written: its numbers are rounded


def compared(bench: Benchmark, methods: Sequence[BenchmarkMethod]) -> Comparison:
    """What came of the methods, with the costs of training; ratios are to the first."""
    software = (*bench.model.family.software, *SOFTWARE)
    found = over_trainings(
        [[one.scores for one in method.trainings] for method in methods],
        [method.part for method in methods],
        bench.evaluation,
        bench.out,
        model=bench.config.model,
        versions={"ric-diffusion": __version__} | {name: version(name) for name in software},
        pair=pair_of(methods),
    )
    rows = zip(found.result.methods, methods, strict=True)
    costs = tuple(replace(row, training_cost=method.cost) for row, method in rows)
    return replace(found, result=replace(found.result, methods=costs))


def pair_of(methods: Sequence[BenchmarkMethod]) -> Pair | None:
    """The method whose sliders are compared with what they are without calibration."""
    for one in methods:
        calibrations = [found for some in one.trainings if (found := some.calibration)]
        if (plain := one.trainings[0].plain) and calibrations:
            return Pair(plain=plain, calibrated=one.name, calibrations=calibrations)
    return None


def publish(
    bench: Benchmark,
    found: Comparison,
    methods: Sequence[BenchmarkMethod],
    bars: Sequence[comparison.Bar],
    curves: tuple[str, str],
    tables: Sequence[str] = (),
    stopped: Sequence[str] = (),
) -> None:
    """The report where all its samples are there, else metrics.json of it; cost.png, methods.png,
    table.md with further ``tables`` at its end, and a file with the reward curves of a method:
    ``curves`` are their names. methods.png is without those ``stopped`` early, whose fronts would
    hide the others'. InputError, and nothing written, for files of others."""
    result = found.result
    if all(_has_samples(bench, one.trainings[0].scores) for one in methods):
        write_report(result, bench.out, bench.model.family.medium)
    else:
        write_metrics(result, bench.out)
    shown = [one.name for one in methods if not one.variant]
    write_bytes(bench.out / "cost.png", png(cost_figure(result, shown)))
    write_bytes(bench.out / "methods.png", png(methods_figure(result, set(shown) - set(stopped))))
    file, name = curves
    if drawn := curves_of(methods, name):
        write_bytes(bench.out / file, png(curves_figure(drawn)))
    tables = [
        comparison.methods_table(result, found.hypervolumes),
        comparison.bars_table(bars),
        *tables,
    ]
    write_text(bench.out / "table.md", "\n".join(tables))
    print(bench.out / "table.md")


def _has_samples(bench: Benchmark, scores: MethodScores) -> bool:
    """Whether the samples that these are the scores of are in the benchmark's folder: all of them,
    and drawn with the same weights and settings."""
    run = RunFolder(folder_of(bench.out, scores.name), VERB)
    if not run.begun or run.stored()["identity"]["method"] != configs.to_dict(scores.about):
        return False
    files = [file for plane in scores.files for row in plane for file in row]
    return all((run.path / file).exists() for file in files)


def curves_of(methods: Sequence[BenchmarkMethod], name: str) -> Mapping[str, Curve]:
    """The reward curves of the first training of the method of this name, none without it."""
    return next((one.trainings[0].curves for one in methods if one.name == name), {})


def parameters_of(methods: Sequence[BenchmarkMethod], names: Sequence[str]) -> dict[str, int]:
    """How many numbers these methods train, by name, those that there are."""
    counts = {one.name: one.trainings[0].parameters for one in methods}
    return {name: count for name in names if (count := counts.get(name)) is not None}


def methods_figure(result: EvaluationResult, shown: Collection[str]) -> Figure:
    """The fronts of the methods alone, without what calibration makes of ours."""
    chief = tuple(
        method
        for method in result.methods
        if method.name in shown and not method.name.endswith(f", {CALIBRATED}")
    )
    return front_figure(replace(result, methods=chief), reward_pairs(result))


def title_of(preference: Preference) -> str:
    return ", ".join(f"{name} {weight:g}" for name, weight in preference.items())
