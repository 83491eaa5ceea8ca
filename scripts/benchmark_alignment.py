"""Our method against its alternatives: what their sweeps reach, and at what cost.

    python scripts/benchmark_alignment.py --out runs/alignment

Trains what is not there yet (offline and online adapters, the latter in both selections, reward
words, SFT, one LoRA per reward, DDPO for several preferences), calibrates our adapters, draws all
of them with the same prompts and seeds, and writes table.md, cost.png, the reward curves of DDPO
(ddpo.png) and a report (index.html, front.png, metrics.json). Every part can be interrupted and
goes on where it was; --skip leaves parts out, and a later run without it adds them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from alignment_runs import (
    PARTS,
    Bench,
    ddpo_runs,
    load,
    other_selection,
    train_adapters,
    train_baselines,
)

from ric_diffusion import __version__
from ric_diffusion.commands.calibration import SWEEP, calibrate, calibrated
from ric_diffusion.commands.entrants import Entrant, put, subject_of
from ric_diffusion.commands.evaluate import FIRST_SEED, SOFTWARE, unsaid
from ric_diffusion.cost import Cost, Meter
from ric_diffusion.diffusion.adapter import Adapter
from ric_diffusion.diffusion.lora_file import LORA_FILE
from ric_diffusion.diffusion.sampler import DiffusionSampler
from ric_diffusion.errors import InputError
from ric_diffusion.evaluation import comparison
from ric_diffusion.evaluation.baselines.base import BaseModel, Tuned
from ric_diffusion.evaluation.baselines.best_of_n import BestOfN
from ric_diffusion.evaluation.baselines.curves import curves_figure
from ric_diffusion.evaluation.baselines.ddpo_run import reward_curve
from ric_diffusion.evaluation.baselines.runs import spent
from ric_diffusion.evaluation.baselines.soups import Soup
from ric_diffusion.evaluation.baselines.subjects import method_subject, preference_points
from ric_diffusion.evaluation.calibration import Calibration
from ric_diffusion.evaluation.cost_plot import cost_figure
from ric_diffusion.evaluation.evaluate import evaluate
from ric_diffusion.evaluation.plots import png
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
from ric_diffusion.rewards import MAPPINGS

OURS, OFFLINE, PLAIN = "RiC online", "RiC offline", "not calibrated"
BEST, SFT, SOUP, DDPO = "best of {}", "SFT", "rewarded soup", "DDPO"
DDPO_SOUP = "rewarded soup of DDPO"


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A subject, the adapter it draws under, and what its training cost; a ``variant`` differs from
    another contender in nothing that costs."""

    subject: Subject
    entrant: Entrant | None = None
    training: Cost = field(default_factory=Cost)
    variant: bool = False


def adapters(bench: Bench, setup: Setup) -> Iterator[tuple[Contender, Calibration | None]]:
    """Ours in all variants, with their calibrations; the first is what all others are compared
    with, the second the same without its calibration, and these two also move each reward alone."""

    def contender(
        name: str,
        *runs: str,
        mapping: str | None = None,
        calibrate_it: bool = False,
        alone: bool = False,
    ) -> tuple[Contender, Calibration | None]:
        folder, found = bench.out / runs[-1] / "adapter", None
        adapter = Adapter.load(folder)
        entrant = Entrant(
            given=runs[-1], name=name, folder=folder, adapter=adapter, sampling=bench.sampling
        )
        training = bench.labelling + spent(bench.out, runs)
        if calibrate_it:
            found = calibrate(
                bench.pipe,
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
                bench.pipe, entrant, bench.base, name=name, points=points, mapping=used
            ),
            entrant=entrant,
            training=training,
            variant=mapping is not None,
        )
        return one, found

    yield contender(OURS, "offline", "online", calibrate_it=True, alone=True)
    yield contender(f"{OURS}, {PLAIN}", "offline", "online", alone=True)
    if "selection" not in bench.skip:
        other = f"{OURS}, {other_selection(bench)}, {PLAIN}"
        yield contender(other, "offline", "online-other")
    yield contender(OFFLINE, "offline", calibrate_it=True)
    yield contender(f"{OFFLINE}, {PLAIN}", "offline")
    if "text" not in bench.skip:
        yield contender(f"{OFFLINE}, words, {PLAIN}", "text")
    for mapping in () if "mappings" in bench.skip else MAPPINGS:
        if mapping != bench.offline.diffusion.mapping:
            yield contender(
                f"{OURS}, mapping {mapping}",
                "offline",
                "online",
                mapping=mapping,
                calibrate_it=True,
            )


def baselines(bench: Bench) -> Iterator[Contender]:
    pipe, space, out, n = bench.pipe, bench.space, bench.out, bench.config.best_of
    plain = DiffusionSampler(pipe, bench.plain_sampling)
    line = preference_points(space, bench.config.points)
    if "base" not in bench.skip:  # hears no preference, so one point says all
        yield Contender(subject=method_subject("base model", BaseModel(plain), plain, [Point()]))
    if "best-of" not in bench.skip:
        for name, part in ((BEST.format(n), 1), (equal_cost(n), n)):
            steps = bench.sampling["num_inference_steps"] // part
            shorter = {**bench.plain_sampling, "num_inference_steps": steps}
            meter, sampler = Meter(), DiffusionSampler(pipe, shorter)
            method = BestOfN(BaseModel(sampler), space, meter.metered(load_scorers(space)), n)
            yield Contender(subject=method_subject(name, method, sampler, line, meter=meter, n=n))
    if "sft" not in bench.skip:  # hears none either
        files = [out / "sft" / LORA_FILE]
        tuned = Tuned(SFT, plain, space, [(dict.fromkeys(space.names, 1.0), files[0])])
        yield Contender(
            subject=method_subject(SFT, tuned, plain, [Point()], files),
            training=bench.labelling + spent(out, ["sft"]),
        )
    if "soup" not in bench.skip:
        loras = {name: out / f"soup-{name}" / LORA_FILE for name in space.names}
        soup = Soup(plain, space, loras)
        yield Contender(
            subject=method_subject(SOUP, soup, plain, line, list(loras.values())),
            training=bench.labelling + spent(out, [f"soup-{name}" for name in space.names]),
        )
    if runs := ddpo_runs(bench):
        made_for = [(wish, out / name / LORA_FILE) for name, wish in runs.items()]
        files, wishes = [file for _, file in made_for], [dict(wish) for wish, _ in made_for]
        # on the chain that it was trained on
        noisy = DiffusionSampler(pipe, {**bench.plain_sampling, "eta": bench.ddpo.eta})
        tuned = Tuned(DDPO, noisy, space, made_for)
        yield Contender(
            subject=method_subject(DDPO, tuned, noisy, line, files, preferences=wishes),
            training=spent(out, runs),
        )
        corners = {next(iter(w)): name for name, w in runs.items() if len(w) == 1}
        if set(corners) == set(space.names):
            loras = {name: out / run / LORA_FILE for name, run in corners.items()}
            soup = Soup(noisy, space, loras)
            yield Contender(
                subject=method_subject(DDPO_SOUP, soup, noisy, line, list(loras.values())),
                training=spent(out, corners.values()),
            )


def setup_of(bench: Bench) -> Setup:
    return Setup(
        space=bench.space,
        prompts=bench.prompts.compared,
        seeds=range(FIRST_SEED, FIRST_SEED + bench.config.seeds),
        scorers=load_scorers(bench.space),
        held_out=bench.held_out,
    )


def equal_cost(n: int) -> str:
    return f"{BEST.format(n)} at equal cost"


def title_of(preference: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {weight:g}" for name, weight in preference.items())


def measure(
    bench: Bench, contenders: Sequence[Contender], setup: Setup, calibration: Calibration
) -> dict[str, Any]:
    """Draw, score and judge all of them; ``metrics.json``, with the costs of training.

    ``calibration``: of the first, from which the second differs in nothing else.
    """
    for one in contenders:
        check_folder(one.subject, setup, folder_of(bench.out, one.subject.name))
    outcomes: list[Outcome] = []
    for one in contenders:
        bench.pipe.unload_adapter()
        if one.entrant is not None:
            put(bench.pipe, one.entrant)
        outcomes.append(evaluate(one.subject, setup, folder_of(bench.out, one.subject.name)))
    versions = {"ric-diffusion": __version__} | {name: version(name) for name in SOFTWARE}
    metrics = summarise(outcomes, setup, bench.out, model=bench.config.model, versions=versions,
                        calibration=replace(calibration, pair=(1, 0)))  # fmt: skip
    for model, one in zip(metrics["models"], contenders, strict=True):
        model["training_cost"] = one.training.to_dict()
    return metrics


def bars(metrics: Mapping[str, Any], best_of: int) -> list[comparison.Bar]:
    found = [
        comparison.beats(metrics, OFFLINE, 1.05),
        *comparison.apart(metrics, OFFLINE),
        comparison.beats(metrics, SOUP, 1.2),
        comparison.beats(metrics, equal_cost(best_of), 1.1),
        comparison.beats(metrics, SFT, 1.5),
        comparison.beats(metrics, DDPO, 1.0),
        comparison.cheaper(metrics, DDPO, 0.10),
        comparison.near(metrics, 9 / 11),
        *comparison.calibration(metrics, halved=0.5, most=0.25),
    ]
    if len(metrics["rewards"]) > 2:  # for two, benchmark_control.py asks for more
        found += comparison.control(metrics, 0.9)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    own = Path(__file__).parent / "configs" / "emoji-alignment.yaml"
    parser.add_argument("--config", type=Path, default=own, metavar="CONFIG.yaml")
    parser.add_argument("--out", type=Path, default=Path("runs/alignment"), metavar="FOLDER")
    parser.add_argument("--skip", nargs="+", choices=PARTS, default=[], metavar="PART",
                        help=f"leave out some of {', '.join(PARTS)}")  # fmt: skip
    options = parser.parse_args()
    try:
        bench = load(options.config, options.out, options.skip)
        train_adapters(bench)
        train_baselines(bench)
        setup = setup_of(bench)
        with unsaid():
            ours, (calibration, *_) = zip(*adapters(bench, setup), strict=True)
            assert calibration is not None
            bench.pipe.unload_adapter()
            contenders = [*ours, *baselines(bench)]
            metrics = measure(bench, contenders, setup, calibration)
    except InputError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    write_report(metrics, bench.out, contenders[0].subject.sampler.read)
    shown = [one.subject.name for one in contenders if not one.variant]
    write_bytes(bench.out / "cost.png", png(cost_figure(metrics, shown)))
    if runs := ddpo_runs(bench):
        curves = {title_of(wish): reward_curve(bench.out / name) for name, wish in runs.items()}
        write_bytes(bench.out / "ddpo.png", png(curves_figure(curves)))
    tables = [
        comparison.methods_table(metrics),
        comparison.bars_table(bars(metrics, bench.config.best_of)),
    ]
    write_text(bench.out / "table.md", "\n".join(tables))
    print(bench.out / "table.md")


if __name__ == "__main__":
    main()
