"""What the benchmarks of alignment have in common, for either medium: which methods take part, what
trains and measures them, and the tables that come of it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

import comparison
from baselines.base import BaseModel, Preference, Tuned
from baselines.curves import curves_figure
from baselines.ddpo_run import reward_curve
from baselines.families import lora_file
from baselines.methods import baseline_method
from baselines.runs import due, spent
from baselines.sft import best_records, best_records_for, train_sft
from baselines.soups import Soup
from cost_plot import cost_figure
from ric_diffusion import __version__, api
from ric_diffusion.adapters.adapter import Adapter
from ric_diffusion.api.runs import OnlineRun, TrainConfig, adapter_digests, records_digest
from ric_diffusion.data.records import Record
from ric_diffusion.data.scoring import load_scorers
from ric_diffusion.evaluation.calibration import Calibration
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
from ric_diffusion.evaluation.report.summary import summarise
from ric_diffusion.evaluation.report.write import write_report
from ric_diffusion.evaluation.runner import evaluate_methods
from ric_diffusion.io import config as configs
from ric_diffusion.io.engines import HERE
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import write_bytes, write_text
from ric_diffusion.models.cost import Cost
from ric_diffusion.models.family import family_of, loading
from ric_diffusion.models.hardware import default_device
from ric_diffusion.rewards import RewardSpace

OURS, OFFLINE = "RiC online", "RiC offline"
CALIBRATED, PLAIN = "calibrated", "not calibrated"
BASE, SFT, SOUP = "base model", "SFT", "rewarded soup"


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
        skip: the parts that are left out.
        model: without an adapter.
        base: digests of its parts.
        basis: a digest that stands for model and data.
        labelling: what the data and its scores cost, which all that is trained on it needs.
    """

    config: Any
    out: Path
    skip: Sequence[str]
    offline: TrainConfig
    online: OnlineRun
    records: list[Record]
    prompts: PromptSplit
    space: RewardSpace
    held_out: Sequence[Any]
    model: Any
    base: list[str]
    basis: str
    labelling: Cost

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
class BenchmarkMethod:
    """A method and what its training cost; a ``variant`` differs from another one in nothing that
    costs."""

    method: Method
    training: Cost = field(default_factory=Cost)
    variant: bool = False


def base_model(
    path: Path, model: str, section: str, dtype: torch.dtype = torch.float32
) -> tuple[Any, list[str]]:
    """The model that the config ``path`` names, without adapter, and the digests of its parts.
    InputError, that begins with the path, if it is of a family with other settings than
    ``section``."""
    with loading(model, f"{path}: model"):
        family = family_of(model)
        if family.section != section:
            raise InputError(
                f"{model}: is of {family.title}; give one whose settings are {section}"
            )
        found = family.load(model, default_device(), dtype)
    found.unload_adapter()
    return found, family.digests(found)


def basis_of(base: Sequence[str], space: RewardSpace, records: Sequence[Record]) -> str:
    return configs.digest([base, space.to_dict(), records_digest(records)])[:16]


def train_adapter(bench: Benchmark, name: str, settings: TrainConfig) -> None:
    """An offline training, unless it is there."""
    if due(bench.out, name, _recipe(bench, settings), bench.basis):
        api.train(settings, out=bench.out / name, resume=True)


def train_online(bench: Benchmark, name: str, settings: OnlineRun) -> None:
    """Online rounds, unless they are there; the adapter that they begin with is."""
    basis = configs.digest([bench.basis, adapter_digests(Path(settings.adapter))])[:16]
    if due(bench.out, name, _recipe(bench, settings), basis):
        api.online(settings, out=bench.out / name, resume=True)


def _recipe(bench: Benchmark, settings: Any) -> dict[str, Any]:
    """The settings without those of families that are not trained."""
    recipe: dict[str, Any] = configs.to_dict(settings)
    for section in {"diffusion", "llm"} - {bench.model.family.section}:
        del recipe[section]
    return recipe


def train_on_the_best(bench: Benchmark) -> None:
    """SFT, and a LoRA for each reward."""
    config, loop = bench.config, bench.offline.loop
    chosen: dict[str, list[Record]] = {}
    if "sft" not in bench.skip:
        chosen["sft"] = best_records(bench.records, bench.space, config.sft_fraction)
    for name in () if "soup" in bench.skip else bench.space.names:
        best = best_records_for(bench.records, bench.space, {name: 1.0}, config.soup_fraction)
        chosen[f"soup-{name}"] = best
    for name, records in chosen.items():
        settings = {
            "records": len(records),
            bench.model.family.section: bench.settings,
            "loop": loop,
        }
        if due(bench.out, name, settings, bench.basis):
            train_sft(config.model, records, config.data, bench.space, bench.settings, loop,
                      bench.out / name, resume=True, device=bench.device)  # fmt: skip


def evaluation_config(bench: Benchmark) -> EvaluationConfig:
    return EvaluationConfig(
        space=bench.space,
        prompts=bench.prompts.compared,
        seeds=range(FIRST_SEED, FIRST_SEED + bench.config.seeds),
        scorers=load_scorers(bench.space),
        held_out=bench.held_out,
    )


def ours(
    bench: Benchmark,
    config: EvaluationConfig,
    name: str,
    *runs: str,
    mapping: str | None = None,
    calibrate_it: bool = False,
    alone: bool = False,
) -> tuple[BenchmarkMethod, Calibration | None]:
    """The adapter of the last of ``runs``, which cost what all of them did, and its calibration;
    ``alone``: it also moves each reward alone."""
    folder, found = bench.out / runs[-1] / "adapter", None
    choice = AdapterChoice(
        given=runs[-1],
        name=name,
        folder=folder,
        adapter=Adapter.load(folder),
        sampling=bench.sampling,
    )
    training = bench.labelling + spent(bench.out, runs)
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
        choice, training = calibrated(choice, found.curves), training + found.cost
    adapter = choice.adapter
    assert adapter is not None
    used = mapping or adapter.mapping
    points = slider_points(adapter.space, used, bench.config.points)
    points = [point for point in points if alone or point.along is None]
    method = method_of(bench.model, choice, bench.base, name=name, points=points, mapping=used)
    one = BenchmarkMethod(method=method, training=training, variant=mapping is not None)
    return one, found


def base_method(bench: Benchmark, plain: Any) -> Iterator[BenchmarkMethod]:
    if "base" not in bench.skip:  # it reads no preference, so one point says all
        yield BenchmarkMethod(method=baseline_method(BASE, BaseModel(plain), plain, [Point()]))


def best_data_methods(bench: Benchmark, plain: Any) -> Iterator[BenchmarkMethod]:
    """What ``train_on_the_best`` trained; ``plain`` draws without rewards."""
    space = bench.space
    if "sft" not in bench.skip:  # it reads none either
        file = bench.lora("sft")
        tuned = Tuned(SFT, plain, space, [(dict.fromkeys(space.names, 1.0), file)])
        yield BenchmarkMethod(
            method=baseline_method(SFT, tuned, plain, [Point()], [file]),
            training=bench.labelling + spent(bench.out, ["sft"]),
        )
    if "soup" not in bench.skip:
        runs = {name: f"soup-{name}" for name in space.names}
        yield soup_method(bench, SOUP, plain, runs, bench.labelling)


def soup_method(
    bench: Benchmark, name: str, plain: Any, runs: Mapping[str, str], before: Cost
) -> BenchmarkMethod:
    """Of one run for each reward; ``before``: what their data cost."""
    loras = {reward: bench.lora(run) for reward, run in runs.items()}
    line = preference_points(bench.space, bench.config.points)
    soup = Soup(plain, bench.space, loras)
    return BenchmarkMethod(
        method=baseline_method(name, soup, plain, line, list(loras.values())),
        training=before + spent(bench.out, runs.values()),
    )


def nearest_method(
    bench: Benchmark, name: str, plain: Any, runs: Mapping[str, Preference]
) -> BenchmarkMethod:
    """Of several runs, each for a preference, the one nearest to what is asked."""
    made_for = [(preference, bench.lora(run)) for run, preference in runs.items()]
    tuned = Tuned(name, plain, bench.space, made_for)
    line = preference_points(bench.space, bench.config.points)
    files = [file for _, file in made_for]
    preferences = [dict(preference) for preference, _ in made_for]
    return BenchmarkMethod(
        method=baseline_method(name, tuned, plain, line, files, preferences=preferences),
        training=spent(bench.out, runs),
    )


def options_of(doc: str, config: str, out: str, parts: Sequence[str]) -> tuple[Any, Any]:
    """The parser of a benchmark, for its errors, and what it was given; ``doc``: the module's."""
    parser = argparse.ArgumentParser(description=doc.split("\n\n")[0])
    own = Path(__file__).parent / "configs" / config
    parser.add_argument("--config", type=Path, default=own, metavar="CONFIG.yaml")
    parser.add_argument("--out", type=Path, default=Path(out), metavar="FOLDER")
    parser.add_argument("--skip", nargs="+", choices=parts, default=[], metavar="PART",
                        help=f"leave out some of {', '.join(parts)}")  # fmt: skip
    return parser, parser.parse_args()


def compared(
    bench: Benchmark,
    adapters: Callable[
        [Any, EvaluationConfig], Iterable[tuple[BenchmarkMethod, Calibration | None]]
    ],
    baselines: Callable[[Any], Iterable[BenchmarkMethod]],
) -> tuple[list[BenchmarkMethod], EvaluationResult]:
    """All methods, and what came of them, with the costs of training. If one of the first two
    adapters is calibrated, the other is the same without."""
    config = evaluation_config(bench)
    first, found = zip(*adapters(bench, config), strict=True)
    calibrations = [replace(one, pair=(1 - i, i)) for i, one in enumerate(found[:2]) if one]
    bench.model.unload_adapter()
    methods = [*first, *baselines(bench)]
    scores = evaluate_methods([one.method for one in methods], config, bench.out)
    software = (*bench.model.family.software, *SOFTWARE)
    result = summarise(
        scores,
        config,
        bench.out,
        model=bench.config.model,
        versions={"ric-diffusion": __version__} | {name: version(name) for name in software},
        calibration=calibrations[0] if calibrations else None,
    )
    measured = zip(result.methods, methods, strict=True)
    costs = tuple(replace(method, training_cost=one.training) for method, one in measured)
    return methods, replace(result, methods=costs)


def publish(
    bench: Benchmark,
    result: EvaluationResult,
    methods: Sequence[BenchmarkMethod],
    bars: Sequence[comparison.Bar],
    curves: str,
    runs: Mapping[str, Preference],
) -> None:
    """The report, cost.png, methods.png, table.md, and the reward curves of ``runs`` as
    ``curves``."""
    write_report(result, bench.out, bench.model.family.medium)
    shown = [one.method.name for one in methods if not one.variant]
    write_bytes(bench.out / "cost.png", png(cost_figure(result, shown)))
    write_bytes(bench.out / "methods.png", png(methods_figure(result, shown)))
    if runs:
        drawn = {
            title_of(preference): reward_curve(bench.out / name)
            for name, preference in runs.items()
        }
        write_bytes(bench.out / curves, png(curves_figure(drawn)))
    tables = [comparison.methods_table(result), comparison.bars_table(bars)]
    write_text(bench.out / "table.md", "\n".join(tables))
    print(bench.out / "table.md")


def methods_figure(result: EvaluationResult, shown: Sequence[str]) -> Figure:
    """The fronts of the methods alone, without what was left out of ours to see what it does."""
    left_out = (PLAIN, f", {CALIBRATED}")
    chief = tuple(
        method
        for method in result.methods
        if method.name in shown and not method.name.endswith(left_out)
    )
    return front_figure(replace(result, methods=chief), reward_pairs(result))


def title_of(preference: Preference) -> str:
    return ", ".join(f"{name} {weight:g}" for name, weight in preference.items())
