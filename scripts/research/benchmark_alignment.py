"""Our method against its alternatives: what their sweeps reach, and at what cost.

    python scripts/research/benchmark_alignment.py --out runs/alignment

Trains what is not there yet (offline and online adapters, the latter in both selections, reward
words, SFT, one LoRA per reward, DDPO for several preferences; some of them with several training
seeds), calibrates our adapters, draws all of them with the same prompts and seeds, and writes
table.md, cost.png, the fronts of the methods (methods.png), the reward curves of DDPO (ddpo.png)
and a report (index.html, metrics.json). Every part can be interrupted and goes on where it was;
--skip leaves parts out, and a later run without it adds them. --only makes some parts and no table,
so that several processes can share the work:

    python scripts/research/benchmark_alignment.py --out runs/alignment --only ddpo
"""

from __future__ import annotations

from collections.abc import Iterator

import comparison
from alignment_runs import (
    AlignmentBenchmark,
    ddpo_runs,
    load,
    other_selection,
    train_ddpo_runs,
    train_other_selection,
    train_ours,
    train_words,
)
from baselines.base import BaseModel
from baselines.best_of_n import BestOfN
from baselines.methods import baseline_method
from baselines.runs import of_seed
from benchmark import (
    OFFLINE,
    OURS,
    PLAIN,
    SFT,
    SOUP,
    BenchmarkMethod,
    Part,
    Trained,
    base_method,
    compared,
    measured,
    nearest_of,
    once,
    options_of,
    ours,
    over_seeds,
    publish,
    sft_method,
    soup_method,
    soup_of,
    train_sft_runs,
    train_soup_runs,
    trained,
)
from ric_diffusion.data.scoring import load_scorers
from ric_diffusion.evaluation.grid import preference_points
from ric_diffusion.evaluation.report.schema import EvaluationResult
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.cost import Cost, Meter
from ric_diffusion.models.diffusion.sampler import DiffusionSampler
from ric_diffusion.rewards import MAPPINGS

BEST, DDPO, DDPO_SOUP = "best of {}", "DDPO", "rewarded soup of DDPO"
ONLINE_PLAIN, OFFLINE_PLAIN = f"{OURS}, {PLAIN}", f"{OFFLINE}, {PLAIN}"


def our_methods(bench: AlignmentBenchmark) -> Iterator[BenchmarkMethod]:
    """The first is what all others are compared with, the second the same without its calibration,
    and these two also move each reward alone."""

    def offline(k: int) -> str:
        return of_seed("offline", k)

    def online(k: int) -> tuple[str, str]:
        return offline(k), of_seed("online", k)

    yield over_seeds(
        bench,
        "ours",
        lambda k: ours(bench, OURS, *online(k), calibrate_it=True, alone=True),
        plain=ONLINE_PLAIN,
    )
    yield over_seeds(bench, "ours", lambda k: ours(bench, ONLINE_PLAIN, *online(k), alone=True))
    yield over_seeds(bench, "ours", lambda k: ours(bench, OFFLINE, offline(k), calibrate_it=True))
    yield over_seeds(bench, "ours", lambda k: ours(bench, OFFLINE_PLAIN, offline(k)))


def other_selection_method(bench: AlignmentBenchmark) -> Iterator[BenchmarkMethod]:
    name = f"{OURS}, {other_selection(bench)}, {PLAIN}"
    yield once(ours(bench, name, "offline", "online-other"))


def words_method(bench: AlignmentBenchmark) -> Iterator[BenchmarkMethod]:
    yield once(ours(bench, f"{OFFLINE}, words, {PLAIN}", "text"))


def mapping_methods(bench: AlignmentBenchmark) -> Iterator[BenchmarkMethod]:
    for mapping in MAPPINGS:
        if mapping != bench.offline.diffusion.mapping:
            name = f"{OURS}, mapping {mapping}"
            found = ours(bench, name, "offline", "online", mapping=mapping, calibrate_it=True)
            yield once(found, variant=True)


def best_of_methods(bench: AlignmentBenchmark) -> Iterator[BenchmarkMethod]:
    n, line = bench.config.best_of, preference_points(bench.space, bench.config.points)
    for name, part in ((BEST.format(n), 1), (equal_cost(n), n)):
        steps = bench.sampling["num_inference_steps"] // part
        shorter = {**bench.plain_sampling, "num_inference_steps": steps}
        meter, sampler = Meter(), DiffusionSampler(bench.model, shorter)
        scorers = meter.metered(load_scorers(bench.space))
        best = BestOfN(BaseModel(sampler), bench.space, scorers, n)
        method = baseline_method(name, best, sampler, line, meter=meter, n=n)
        yield once(Trained(method=method))


def ddpo_methods(bench: AlignmentBenchmark) -> Iterator[BenchmarkMethod]:
    # on the chain that it was trained on
    noisy = DiffusionSampler(bench.model, {**bench.plain_sampling, "eta": bench.ddpo.eta})
    yield over_seeds(bench, "ddpo", lambda k: nearest_of(bench, DDPO, noisy, ddpo_runs(bench, k)))

    def corners(k: int) -> dict[str, str]:
        return {next(iter(w)): name for name, w in ddpo_runs(bench, k).items() if len(w) == 1}

    if set(corners(0)) == set(bench.space.names):
        yield over_seeds(
            bench, "ddpo", lambda k: soup_of(bench, DDPO_SOUP, noisy, corners(k), Cost())
        )


def equal_cost(n: int) -> str:
    return f"{BEST.format(n)} at equal cost"


# A peer joins here: with what trains it (alignment_runs.py), and with what it is measured as. How
# often it is trained is in `training_seeds` of the config, by the name it has here.
PARTS = {
    "ours": Part(train=train_ours, methods=our_methods),
    "selection": Part(train=train_other_selection, methods=other_selection_method, needs=("ours",)),
    "text": Part(train=train_words, methods=words_method),
    "mappings": Part(methods=mapping_methods, needs=("ours",)),
    "base": Part(methods=lambda bench: iter([base_method(bench, plain(bench))])),
    "best-of": Part(methods=best_of_methods),
    "sft": Part(
        train=train_sft_runs, methods=lambda bench: iter([sft_method(bench, plain(bench))])
    ),
    "soup": Part(
        train=train_soup_runs, methods=lambda bench: iter([soup_method(bench, plain(bench))])
    ),
    "ddpo": Part(train=train_ddpo_runs, methods=ddpo_methods),
}


def plain(bench: AlignmentBenchmark) -> DiffusionSampler:
    """Draws without rewards."""
    return DiffusionSampler(bench.model, bench.plain_sampling)


def bars(result: EvaluationResult, best_of: int) -> list[comparison.Bar]:
    found = [
        comparison.beats(result, OFFLINE, 1.05),
        *comparison.apart(result, OFFLINE),
        comparison.beats(result, SOUP, 1.2),
        comparison.beats(result, equal_cost(best_of), 1.1),
        comparison.beats(result, SFT, 1.5),
        comparison.beats(result, DDPO, 1.0),
        comparison.cheaper(result, DDPO, 0.10),
        comparison.near(result, 9 / 11),
        *comparison.calibration(result, halved=0.5, most=0.25),
    ]
    if len(result.rewards) > 2:  # for two, benchmark_control.py asks for more
        found += comparison.control(result, 0.9)
    return found


def main() -> None:
    parser, options = options_of(__doc__, "emoji-alignment.yaml", "runs/alignment", list(PARTS))
    try:
        bench = load(options.config, options.out, options.parts, PARTS)
        methods = trained(bench, PARTS)
        scores = measured(bench, methods)
    except InputError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    if options.only:
        return
    result = compared(bench, methods, scores)
    asked = bars(result, bench.config.best_of)
    runs = ddpo_runs(bench, 0) if "ddpo" in bench.parts else {}
    publish(bench, result, methods, asked, "ddpo.png", runs)


if __name__ == "__main__":
    main()
