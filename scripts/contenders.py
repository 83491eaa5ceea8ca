"""What the benchmarks of alignment share, on either kind of model: who takes part, what trains and
measures them, and the tables that come of it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ric_diffusion import __version__
from ric_diffusion import config as configs
from ric_diffusion.cli import main as ric
from ric_diffusion.commands.calibration import SWEEP, calibrate, calibrated
from ric_diffusion.commands.entrants import Entrant, adapter_digests, put, subject_of
from ric_diffusion.commands.evaluate import FIRST_SEED, SOFTWARE, unsaid
from ric_diffusion.commands.kinds import KINDS, kind_of
from ric_diffusion.commands.online import OnlineRun
from ric_diffusion.commands.train import TrainConfig
from ric_diffusion.cost import Cost
from ric_diffusion.data.records import Record
from ric_diffusion.evaluation import comparison
from ric_diffusion.evaluation.baselines import kinds
from ric_diffusion.evaluation.baselines.base import BaseModel, Tuned
from ric_diffusion.evaluation.baselines.curves import curves_figure
from ric_diffusion.evaluation.baselines.ddpo_run import reward_curve
from ric_diffusion.evaluation.baselines.runs import due, spent
from ric_diffusion.evaluation.baselines.sft import best_records, best_records_for, train_sft
from ric_diffusion.evaluation.baselines.soups import Soup
from ric_diffusion.evaluation.baselines.subjects import method_subject, preference_points
from ric_diffusion.evaluation.calibration import Calibration
from ric_diffusion.evaluation.cost_plot import cost_figure
from ric_diffusion.evaluation.evaluate import evaluate
from ric_diffusion.evaluation.plots import front_figure, png, reward_pairs
from ric_diffusion.evaluation.report import write_report
from ric_diffusion.evaluation.scoring import load_scorers
from ric_diffusion.evaluation.subject import (
    Outcome,
    Point,
    Setup,
    Subject,
    check_folder,
    folder_of,
    slider_points,
)
from ric_diffusion.evaluation.summary import summarise
from ric_diffusion.files import write_bytes, write_text
from ric_diffusion.rewards import RewardSpace

OURS, OFFLINE = "RiC online", "RiC offline"
CALIBRATED, PLAIN = "calibrated", "not calibrated"
BASE, SFT, SOUP = "base model", "SFT", "rewarded soup"

Preference = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Dealt:
    """Prompts by their use."""

    compared: list[str]
    calibration: list[str]
    training: list[str]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What all parts work with. ``config`` is the benchmark's own; ``model`` has no adapter;
    ``base``: digests of its parts; ``basis`` stands for model and data; ``labelling``: what the
    data and its scores cost, which all that is trained on it needs."""

    config: Any
    out: Path
    skip: Sequence[str]
    offline: TrainConfig
    online: OnlineRun
    records: list[Record]
    prompts: Dealt
    space: RewardSpace
    held_out: Sequence[Any]
    model: Any
    base: list[str]
    basis: str
    labelling: Cost

    @property
    def backend(self) -> Any:
        """The backend's config: layers, objective, sampling."""
        return getattr(self.offline, self.offline.backend)

    @property
    def sampling(self) -> Mapping[str, Any]:
        """How our adapters draw."""
        plain: Mapping[str, Any] = configs.to_dict(self.backend.sampling)
        return plain

    @property
    def lora(self) -> Path:
        """Where a run of a baseline has its LoRA, below its folder."""
        return kinds.kind_of(self.backend).file


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A subject, the adapter it draws under, and what its training cost; a ``variant`` differs from
    another contender in nothing that costs."""

    subject: Subject
    entrant: Entrant | None = None
    training: Cost = field(default_factory=Cost)
    variant: bool = False


def basis_of(base: Sequence[str], space: RewardSpace, records: Sequence[Record]) -> str:
    data = [[record.file, record.captions, record.scores] for record in records]
    return configs.digest([base, space.to_dict(), data])[:16]


def run(bench: Bench, verb: str, name: str, settings: Any) -> None:
    """A run of ric train or ric online, which begins with the offline adapter, unless it is
    there."""
    basis = bench.basis
    if verb == "online":
        basis = configs.digest([basis, adapter_digests(Path(settings.adapter))])[:16]
    recipe: dict[str, Any] = configs.to_dict(settings)
    for other in KINDS.keys() - {settings.backend}:
        del recipe[other]  # of a kind of model that is not trained
    if due(bench.out, name, recipe, basis):
        path, folder = bench.out / f"{name}.yaml", bench.out / name
        if code := ric([verb, str(path), "--out", str(folder), "--resume"]):
            raise SystemExit(code)


def train_on_the_best(bench: Bench) -> None:
    """SFT, and a LoRA for each reward."""
    config, loop = bench.config, bench.offline.loop
    chosen: dict[str, list[Record]] = {}
    if "sft" not in bench.skip:
        chosen["sft"] = best_records(bench.records, bench.space, config.sft_share)
    for name in () if "soup" in bench.skip else bench.space.names:
        best = best_records_for(bench.records, bench.space, {name: 1.0}, config.soup_share)
        chosen[f"soup-{name}"] = best
    for name, records in chosen.items():
        settings = {"records": len(records), bench.offline.backend: bench.backend, "loop": loop}
        if due(bench.out, name, settings, bench.basis):
            train_sft(config.model, records, config.data, bench.space, bench.backend, loop,
                      bench.out / name, resume=True, device=device_of(bench))  # fmt: skip


def device_of(bench: Bench) -> Any:
    return kind_of(bench.model).sampler(bench.model).watched().device


def setup_of(bench: Bench) -> Setup:
    return Setup(
        space=bench.space,
        prompts=bench.prompts.compared,
        seeds=range(FIRST_SEED, FIRST_SEED + bench.config.seeds),
        scorers=load_scorers(bench.space),
        held_out=bench.held_out,
    )


def ours(
    bench: Bench,
    setup: Setup,
    name: str,
    *runs: str,
    mapping: str | None = None,
    calibrate_it: bool = False,
    alone: bool = False,
) -> tuple[Contender, Calibration | None]:
    """The adapter of the last of ``runs``, which cost what all of them did, and its calibration;
    ``alone``: it also moves each reward alone."""
    folder, found = bench.out / runs[-1] / "adapter", None
    adapter = kind_of(bench.model).adapter.load(folder)
    entrant = Entrant(
        given=runs[-1], name=name, folder=folder, adapter=adapter, sampling=bench.sampling
    )
    training = bench.labelling + spent(bench.out, runs)
    if calibrate_it:
        found = calibrate(
            bench.model,
            entrant,
            bench.base,
            replace(setup, prompts=bench.prompts.calibration),
            bench.out / SWEEP / runs[-1],
            points=bench.config.points,
            seeds=bench.config.calibration_seeds,
        )
        entrant, training = calibrated(entrant, found.curves), training + found.cost
    used = mapping or adapter.mapping
    points = slider_points(adapter.space, used, bench.config.points)
    points = [point for point in points if alone or point.along is None]
    one = Contender(
        subject=subject_of(
            bench.model, entrant, bench.base, name=name, points=points, mapping=used
        ),
        entrant=entrant,
        training=training,
        variant=mapping is not None,
    )
    return one, found


def base_contender(bench: Bench, plain: Any) -> Iterator[Contender]:
    if "base" not in bench.skip:  # hears no preference, so one point says all
        yield Contender(subject=method_subject(BASE, BaseModel(plain), plain, [Point()]))


def best_contenders(bench: Bench, plain: Any) -> Iterator[Contender]:
    """What ``train_on_the_best`` trained; ``plain`` draws without rewards."""
    space, out = bench.space, bench.out
    if "sft" not in bench.skip:  # hears none either
        files = [out / "sft" / bench.lora]
        tuned = Tuned(SFT, plain, space, [(dict.fromkeys(space.names, 1.0), files[0])])
        yield Contender(
            subject=method_subject(SFT, tuned, plain, [Point()], files),
            training=bench.labelling + spent(out, ["sft"]),
        )
    if "soup" not in bench.skip:
        runs = {name: f"soup-{name}" for name in space.names}
        yield soup_contender(bench, SOUP, plain, runs, bench.labelling)


def soup_contender(
    bench: Bench, name: str, plain: Any, runs: Mapping[str, str], before: Cost
) -> Contender:
    """Of one run for each reward; ``before``: what their data cost."""
    loras = {reward: bench.out / run / bench.lora for reward, run in runs.items()}
    line = preference_points(bench.space, bench.config.points)
    soup = Soup(plain, bench.space, loras)
    return Contender(
        subject=method_subject(name, soup, plain, line, list(loras.values())),
        training=before + spent(bench.out, runs.values()),
    )


def nearest_contender(
    bench: Bench, name: str, plain: Any, runs: Mapping[str, Preference]
) -> Contender:
    """Of several runs, each for a preference, the one nearest to what is asked."""
    made_for = [(wish, bench.out / run / bench.lora) for run, wish in runs.items()]
    files, wishes = [file for _, file in made_for], [dict(wish) for wish, _ in made_for]
    tuned = Tuned(name, plain, bench.space, made_for)
    line = preference_points(bench.space, bench.config.points)
    return Contender(
        subject=method_subject(name, tuned, plain, line, files, preferences=wishes),
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
    bench: Bench,
    adapters: Callable[[Any, Setup], Iterable[tuple[Contender, Calibration | None]]],
    baselines: Callable[[Any], Iterable[Contender]],
) -> tuple[list[Contender], dict[str, Any]]:
    """All contenders, and their ``metrics.json``. If one of the first two adapters is calibrated,
    the other is the same without."""
    setup = setup_of(bench)
    with unsaid():
        first, found = zip(*adapters(bench, setup), strict=True)
        calibrations = [replace(one, pair=(1 - i, i)) for i, one in enumerate(found[:2]) if one]
        calibration = calibrations[0] if calibrations else None
        bench.model.unload_adapter()
        contenders = [*first, *baselines(bench)]
        return contenders, measure(bench, contenders, setup, calibration)


def measure(
    bench: Bench, contenders: Sequence[Contender], setup: Setup, calibration: Calibration | None
) -> dict[str, Any]:
    """Draw, score and judge all of them; ``metrics.json``, with the costs of training."""
    for one in contenders:
        check_folder(one.subject, setup, folder_of(bench.out, one.subject.name))
    outcomes: list[Outcome] = []
    for one in contenders:
        bench.model.unload_adapter()
        if one.entrant is not None:
            put(bench.model, one.entrant)
        outcomes.append(evaluate(one.subject, setup, folder_of(bench.out, one.subject.name)))
    versions = {"ric-diffusion": __version__} | {name: version(name) for name in SOFTWARE}
    metrics = summarise(outcomes, setup, bench.out, model=bench.config.model, versions=versions,
                        calibration=calibration)  # fmt: skip
    for model, one in zip(metrics["models"], contenders, strict=True):
        model["training_cost"] = one.training.to_dict()
    return metrics


def publish(
    bench: Bench,
    metrics: Mapping[str, Any],
    contenders: Sequence[Contender],
    bars: Sequence[comparison.Bar],
    curves: str,
    runs: Mapping[str, Preference],
) -> None:
    """The report, cost.png, methods.png, table.md, and the reward curves of ``runs`` as
    ``curves``."""
    write_report(metrics, bench.out, contenders[0].subject.sampler.read)
    shown = [one.subject.name for one in contenders if not one.variant]
    write_bytes(bench.out / "cost.png", png(cost_figure(metrics, shown)))
    write_bytes(bench.out / "methods.png", png(methods_figure(metrics, shown)))
    if runs:
        drawn = {title_of(wish): reward_curve(bench.out / name) for name, wish in runs.items()}
        write_bytes(bench.out / curves, png(curves_figure(drawn)))
    tables = [comparison.methods_table(metrics), comparison.bars_table(bars)]
    write_text(bench.out / "table.md", "\n".join(tables))
    print(bench.out / "table.md")


def methods_figure(metrics: Mapping[str, Any], shown: Sequence[str]) -> Figure:
    """The fronts of the methods alone, without what was left out of ours to see what it does."""
    chief = [model for model in metrics["models"] if model["name"] in shown]
    chief = [model for model in chief if not model["name"].endswith((PLAIN, f", {CALIBRATED}"))]
    return front_figure({**metrics, "models": chief}, reward_pairs(metrics))


def title_of(preference: Preference) -> str:
    return ", ".join(f"{name} {weight:g}" for name, weight in preference.items())
