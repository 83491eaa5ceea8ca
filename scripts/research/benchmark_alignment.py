"""Our method against its alternatives: what their sweeps reach, and at what cost.

    python scripts/research/benchmark_alignment.py --out runs/alignment

Trains what is not there yet (offline and online adapters, the latter in both selections and with
other settings, reward words, SFT, one LoRA per reward, DDPO for several preferences and for all of
them at once, DPO for all of them, an encoder of values per reward; some of them with several
training seeds), calibrates our adapters, draws all of them
with the same prompts and seeds, and writes table.md, cost.png, the fronts of the methods
(methods.png), hypervolume against what is kept of prompts (frontier.png), the reward curves of DDPO
(ddpo.png, ddpo-plateau.png) and a report (index.html, metrics.json). Every part can be interrupted
and goes on where it was; --skip leaves parts out, and a later run without it adds them. --only
makes some parts and no table, --training-seeds only some trainings, so that several processes can
share the work; parts that begin with our adapters need those first:

    python scripts/research/benchmark_alignment.py --out runs/alignment --only ours
    python scripts/research/benchmark_alignment.py --out runs/alignment --only ddpo

What a part found is kept as numbers in --scores. From those that come along, the tables are made
without any training, but no report, whose samples are not there; --kept leaves out what is not:

    python scripts/research/benchmark_alignment.py --kept \\
        --scores scripts/research/scores/emoji-alignment
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import comparison
from alignment_runs import (
    CONDITIONED,
    PLATEAU,
    UNMODULATED,
    WORDS_UNMODULATED,
    AlignmentBenchmark,
    attrictrl_runs,
    conditioned_stops,
    ddpo_runs,
    load,
    other_selection,
    train_attrictrl_runs,
    train_conditioned_runs,
    train_conditioned_stops,
    train_conditionings,
    train_ddpo_plateau,
    train_ddpo_runs,
    train_dpo_runs,
    train_other_selection,
    train_ours,
    train_variants,
)
from baselines.adapted import Adapted
from baselines.attrictrl import attrictrl
from baselines.base import BaseModel, Tuned
from baselines.best_of_n import BestOfN
from baselines.blend import Blend
from baselines.conditioned import conditioned_ddpo
from baselines.curves import curves_figure
from baselines.ddpo_run import reward_curve
from baselines.dpo import conditioned
from baselines.methods import baseline_method
from baselines.runs import of_seed, spent
from benchmark import (
    BASE,
    CALIBRATED,
    OFFLINE,
    ONLINE_CALIBRATED,
    OURS,
    SFT,
    SOUP,
    BenchmarkMethod,
    Part,
    Trained,
    all_methods,
    base_methods,
    compared,
    curves_of,
    nearest_of,
    options_of,
    ours,
    parameters_of,
    publish,
    run_benchmark,
    sft_methods,
    soup_methods,
    soup_of,
    train_sft_runs,
    train_soup_runs,
)
from frontier import frontier_figure, frontier_table
from plateau import plateau_table, weighted_z
from ric_diffusion.data.scoring import load_scorers
from ric_diffusion.evaluation.grid import Point, preference_points
from ric_diffusion.evaluation.method import weights_of
from ric_diffusion.evaluation.report.plots import png
from ric_diffusion.evaluation.report.schema import EvaluationResult
from ric_diffusion.io.files import write_bytes
from ric_diffusion.models.cost import Cost, Meter
from ric_diffusion.models.diffusion.sampler import DiffusionSampler
from ric_diffusion.rewards import MAPPINGS

BEST, DDPO, DDPO_SOUP = "best of {}", "DDPO", "rewarded soup of DDPO"
CONDITIONED_DDPO = "reward-conditioned DDPO"
CONDITIONED_DPO, ATTRICTRL = "reward-conditioned DPO", "AttriCtrl-like"
PEERS = DDPO, Blend.name, CONDITIONED_DDPO, CONDITIONED_DPO, ATTRICTRL
STOPPED = f"{CONDITIONED_DDPO}, {{}} iterations"
LONGER = "DDPO, {} iterations for one preference"
WORDS = f"{OFFLINE}, words"

CONDITIONINGS = {  # how a model is told the rewards, beside tokens that modulate: runs by name
    WORDS: "text",
    f"{OFFLINE}, words that do not modulate": WORDS_UNMODULATED,
    f"{OFFLINE}, tokens that do not modulate": UNMODULATED,
}


def our_methods(bench: AlignmentBenchmark, k: int) -> Iterator[Trained]:
    """The first is what all others are compared with, the second the same calibrated, which costs
    more. These two and the third also move each reward alone."""
    offline = of_seed("offline", k)
    online = offline, of_seed("online", k)
    yield ours(bench, OURS, *online, alone=True)
    yield ours(bench, ONLINE_CALIBRATED, *online, calibrate_it=True, alone=True, plain=OURS)
    yield ours(bench, OFFLINE, offline, alone=True)
    yield ours(bench, f"{OFFLINE}, {CALIBRATED}", offline, calibrate_it=True)


def other_selection_methods(bench: AlignmentBenchmark, k: int) -> Iterator[Trained]:
    name = f"{OURS}, {other_selection(bench)}"
    yield ours(bench, name, "offline", "online-other", variant=True)


def conditioning_methods(bench: AlignmentBenchmark, k: int) -> Iterator[Trained]:
    for name, run in CONDITIONINGS.items():
        yield ours(bench, name, run, alone=True, variant=True)


def variant_methods(bench: AlignmentBenchmark, k: int) -> Iterator[Trained]:
    for one in bench.variant_runs:
        name = f"{OURS}, {one.name}"
        sampling = {**bench.sampling, **one.sampling}
        yield ours(bench, name, *one.runs, sampling=sampling, variant=True)


def mapping_methods(bench: AlignmentBenchmark, k: int) -> Iterator[Trained]:
    runs = "offline", "online"
    for mapping in MAPPINGS:
        if mapping != bench.offline.diffusion.mapping:
            name = f"{ONLINE_CALIBRATED}, mapping {mapping}"
            yield ours(bench, name, *runs, mapping=mapping, calibrate_it=True, variant=True)


def best_of_methods(bench: AlignmentBenchmark, k: int) -> Iterator[Trained]:
    n, line = bench.config.best_of, preference_points(bench.space, bench.config.points)
    for name, part in ((BEST.format(n), 1), (equal_cost(n), n)):
        steps = bench.sampling["num_inference_steps"] // part
        shorter = {**bench.plain_sampling, "num_inference_steps": steps}
        meter, sampler = Meter(), DiffusionSampler(bench.model, shorter)
        scorers = meter.metered(load_scorers(bench.space))
        best = BestOfN(BaseModel(sampler), bench.space, scorers, n)
        yield Trained(method=baseline_method(name, best, sampler, line, meter=meter, n=n))


def ddpo_methods(bench: AlignmentBenchmark, k: int) -> Iterator[Trained]:
    """With what mixes its policies for single rewards, where there is one for each."""
    noisy, runs = noisy_plain(bench), ddpo_runs(bench, k)
    yield nearest_of(bench, DDPO, noisy, runs)
    corners = {next(iter(weights)): run for run, weights in runs.items() if len(weights) == 1}
    if set(corners) == set(bench.space.names):
        yield soup_of(bench, DDPO_SOUP, noisy, corners, Cost())
        yield soup_of(bench, Blend.name, noisy, corners, Cost(), Blend)


def conditioned_methods(bench: AlignmentBenchmark, k: int) -> Iterator[Trained]:
    if bench.conditioned is not None:
        yield _told(bench, CONDITIONED_DDPO, of_seed(CONDITIONED, k))


def conditioned_stop_methods(bench: AlignmentBenchmark, k: int) -> Iterator[Trained]:
    if bench.conditioned is not None:
        for run, iterations in conditioned_stops(bench, k).items():
            yield _told(bench, STOPPED.format(iterations), run)


def _told(bench: AlignmentBenchmark, name: str, run: str) -> Trained:
    """The policy of a run that is told the preference."""
    noisy = noisy_plain(bench)
    source = conditioned_ddpo(name, noisy, bench.space, bench.out / run)
    return _adapted(bench, source, noisy, [run], Cost())


def ddpo_plateau_methods(bench: AlignmentBenchmark, k: int) -> Iterator[Trained]:
    if (plateau := bench.config.ddpo_plateau) is None:
        return
    # Its name has the iterations, so that a longer run is drawn beside a shorter one.
    name, noisy, file = LONGER.format(plateau.iterations), noisy_plain(bench), bench.lora(PLATEAU)
    tuned = Tuned(noisy, bench.space, [(plateau.preference, file)])
    point = Point(preference=plateau_weights(bench))
    yield Trained(
        method=baseline_method(name, tuned, noisy, [point], [file]),
        cost=spent(bench.out, [PLATEAU]),
        variant=True,
        curves={name: reward_curve(bench.out / PLATEAU)},
    )


def dpo_methods(bench: AlignmentBenchmark, k: int) -> Iterator[Trained]:
    # Guided away from what it does when it is told nothing: a preference has no opposite.
    sampler = DiffusionSampler(bench.model, {**bench.sampling, "contrast": 0.0})
    run = of_seed("dpo", k)
    source = conditioned(CONDITIONED_DPO, sampler, bench.space, bench.out / run)
    yield _adapted(bench, source, sampler, [run], bench.labelling)


def attrictrl_methods(bench: AlignmentBenchmark, k: int) -> Iterator[Trained]:
    sampler = DiffusionSampler(bench.model, bench.sampling)
    mapping, runs = bench.settings.mapping, attrictrl_runs(bench, k)
    folders = {reward: bench.out / run for reward, run in runs.items()}
    source = attrictrl(ATTRICTRL, sampler, bench.space, folders, mapping)
    yield _adapted(bench, source, sampler, list(runs.values()), bench.labelling, mapping=mapping)


def _adapted(
    bench: AlignmentBenchmark,
    source: Adapted,
    sampler: DiffusionSampler,
    runs: Sequence[str],
    before: Cost,
    **about: Any,
) -> Trained:
    """What adapters of these runs, asked in their own way, are measured as; ``before``: what their
    data cost."""
    line = preference_points(bench.space, bench.config.points)
    files = [file for folder in source.folders.values() for file in folder.glob("*.safetensors")]
    return Trained(
        method=baseline_method(source.name, source, sampler, line, sorted(files), **about),
        cost=before + spent(bench.out, runs),
    )


def plateau_weights(bench: AlignmentBenchmark) -> dict[str, float]:
    """The preference of that run, by reward, of sum 1."""
    weights = weights_of(bench.config.ddpo_plateau.preference, bench.space).tolist()
    return dict(zip(bench.space.names, weights, strict=True))


def noisy_plain(bench: AlignmentBenchmark) -> DiffusionSampler:
    """Draws without rewards, on the chain that DDPO trains on."""
    return DiffusionSampler(bench.model, {**bench.plain_sampling, "eta": bench.ddpo.eta})


def equal_cost(n: int) -> str:
    return f"{BEST.format(n)} at equal cost"


# What the settings below stand in: those of our adapters, and of what is trained with their loop.
OFFLINE_READS = "offline", "sampling"
OUR_READS = *OFFLINE_READS, "rounds_sampling", "online", "calibration_seeds"

# A peer joins here: with what trains it (alignment_runs.py), with what it is measured as, and with
# the settings that decide it. How often it is trained is in `training_seeds` of the config, by the
# name it has here.
PARTS = {
    "ours": Part(train=train_ours, methods=our_methods, reads=OUR_READS),
    "selection": Part(
        train=train_other_selection,
        methods=other_selection_methods,
        reads=(),
        needs=("ours",),
        once=True,
    ),
    "text": Part(
        train=train_conditionings,
        methods=conditioning_methods,
        reads=(*OFFLINE_READS, "text"),
        once=True,
    ),
    "variants": Part(
        train=train_variants,
        methods=variant_methods,
        reads=("variants",),
        needs=("ours",),
        once=True,
    ),
    "mappings": Part(methods=mapping_methods, reads=(), needs=("ours",), once=True),
    "base": Part(
        methods=lambda bench, k: base_methods(plain(bench)), reads=("plain_sampling",), once=True
    ),
    "best-of": Part(methods=best_of_methods, reads=("plain_sampling", "best_of"), once=True),
    "sft": Part(
        train=train_sft_runs,
        methods=lambda bench, k: sft_methods(bench, plain(bench), k),
        reads=("offline", "plain_sampling", "sft_fraction"),
    ),
    "soup": Part(
        train=train_soup_runs,
        methods=lambda bench, k: soup_methods(bench, plain(bench), k),
        reads=("offline", "plain_sampling", "soup_fraction"),
    ),
    "ddpo": Part(
        train=train_ddpo_runs,
        methods=ddpo_methods,
        reads=("ddpo", "ddpo_preferences", "ddpo_prompts"),
    ),
    "conditioned": Part(
        train=train_conditioned_runs,
        methods=conditioned_methods,
        reads=("conditioned", "ddpo_prompts"),
    ),
    "stops": Part(
        train=train_conditioned_stops,
        methods=conditioned_stop_methods,
        reads=("conditioned", "conditioned_stops", "ddpo_prompts"),
    ),
    "dpo": Part(train=train_dpo_runs, methods=dpo_methods, reads=(*OFFLINE_READS, "dpo")),
    "attrictrl": Part(
        train=train_attrictrl_runs,
        methods=attrictrl_methods,
        reads=(*OFFLINE_READS, "attrictrl_learning_rate"),
    ),
    "plateau": Part(
        train=train_ddpo_plateau,
        methods=ddpo_plateau_methods,
        reads=("ddpo", "ddpo_plateau", "ddpo_prompts"),
        once=True,
    ),
}


def plain(bench: AlignmentBenchmark) -> DiffusionSampler:
    """Draws without rewards."""
    return DiffusionSampler(bench.model, bench.plain_sampling)


def stopped_early(bench: AlignmentBenchmark) -> list[str]:
    """The methods that are reward-conditioned DDPO after fewer iterations."""
    return [STOPPED.format(iterations) for iterations in conditioned_stops(bench, 0).values()]


def bars(result: EvaluationResult, bench: AlignmentBenchmark) -> list[comparison.Bar]:
    asked = [
        comparison.beats(result, OFFLINE, 1.05),
        *comparison.apart(result, OFFLINE),
        comparison.beats(result, SOUP, 1.2),
        comparison.beats(result, equal_cost(bench.config.best_of), 1.1),
        comparison.beats(result, SFT, 1.5),
        *(comparison.beats(result, name, 1.0) for name in (*PEERS, *stopped_early(bench))),
        *(comparison.cheaper(result, name, 0.10) for name in (DDPO, CONDITIONED_DDPO)),
        comparison.near(result, 9 / 11),
        comparison.keeps(result, BASE, 0.97),
        *comparison.calibration(result, halved=0.5, most=0.25),
    ]
    if len(result.rewards) > 2:  # for two, benchmark_control.py asks for more
        asked += comparison.control(result, 0.95)
    return asked


def tables(
    bench: AlignmentBenchmark, result: EvaluationResult, methods: Sequence[BenchmarkMethod]
) -> list[str]:
    """What each way to condition is worth, what is kept of prompts, and what a longer DDPO run
    comes to; with frontier.png and ddpo-plateau.png."""
    made = []
    parameters = parameters_of(methods, [OFFLINE, *CONDITIONINGS])
    if len(parameters) > 1:
        made.append(comparison.conditioning_table(result, parameters))
    plateau = bench.config.ddpo_plateau
    longer = LONGER.format(plateau.iterations) if plateau else ""
    # which is of one preference, not of all
    swept = replace(result, methods=tuple(one for one in result.methods if one.name != longer))
    made.append(frontier_table(swept, BASE))
    write_bytes(bench.out / "frontier.png", png(frontier_figure(swept, BASE)))
    if curves := curves_of(methods, longer):
        weights = plateau_weights(bench)
        made.append(plateau_table(result, longer, weights, curves[longer][1]))
        level = weighted_z(result.methods[0], weights)
        levels = {} if level is None else {OURS: level}
        write_bytes(bench.out / f"{PLATEAU}.png", png(curves_figure(curves, levels)))
    return made


def main() -> None:
    parser, options = options_of(__doc__, "emoji-alignment.yaml", "runs/alignment", list(PARTS))
    run_benchmark(parser, lambda: run(options))


def run(options: argparse.Namespace) -> None:
    bench = load(
        options.config, options.out, options.parts, PARTS, scores=options.scores,
        only_seeds=options.training_seeds, only_kept=options.kept,
    )  # fmt: skip
    methods = all_methods(bench, PARTS)
    if options.only:
        return
    found = compared(bench, methods)
    asked = bars(found.result, bench)
    more = tables(bench, found.result, methods)
    publish(bench, found, methods, asked, ("ddpo.png", DDPO), more, stopped_early(bench))


if __name__ == "__main__":
    main()
