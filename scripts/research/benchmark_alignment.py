"""Our method against its alternatives: what their sweeps reach, and at what cost.

    python scripts/research/benchmark_alignment.py --out runs/alignment

Trains what is not there yet (offline and online adapters, the latter in both selections, reward
words, SFT, one LoRA per reward, DDPO for several preferences), calibrates our adapters, draws all
of them with the same prompts and seeds, and writes table.md, cost.png, the fronts of the methods
(methods.png), the reward curves of DDPO (ddpo.png) and a report (index.html, metrics.json). Every
part can be interrupted and goes on where it was; --skip leaves parts out, and a later run without
it adds them.
"""

from __future__ import annotations

from collections.abc import Iterator

import comparison
from alignment_runs import (
    PARTS,
    AlignmentBenchmark,
    ddpo_runs,
    load,
    other_selection,
    train_adapters,
    train_baselines,
)
from baselines.base import BaseModel
from baselines.best_of_n import BestOfN
from baselines.methods import baseline_method
from benchmark import (
    OFFLINE,
    OURS,
    PLAIN,
    SFT,
    SOUP,
    BenchmarkMethod,
    base_method,
    best_data_methods,
    compared,
    nearest_method,
    options_of,
    ours,
    publish,
    soup_method,
)
from ric_diffusion.data.scoring import load_scorers
from ric_diffusion.evaluation.calibration import Calibration
from ric_diffusion.evaluation.config import EvaluationConfig
from ric_diffusion.evaluation.grid import preference_points
from ric_diffusion.evaluation.report.schema import EvaluationResult
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.cost import Cost, Meter
from ric_diffusion.models.diffusion.sampler import DiffusionSampler
from ric_diffusion.rewards import MAPPINGS

BEST, DDPO, DDPO_SOUP = "best of {}", "DDPO", "rewarded soup of DDPO"


def adapters(
    bench: AlignmentBenchmark, config: EvaluationConfig
) -> Iterator[tuple[BenchmarkMethod, Calibration | None]]:
    """Ours in all variants, with their calibrations; the first is what all others are compared
    with, the second the same without its calibration, and these two also move each reward alone."""
    runs = "offline", "online"
    yield ours(bench, config, OURS, *runs, calibrate_it=True, alone=True)
    yield ours(bench, config, f"{OURS}, {PLAIN}", *runs, alone=True)
    if "selection" not in bench.skip:
        other = f"{OURS}, {other_selection(bench)}, {PLAIN}"
        yield ours(bench, config, other, "offline", "online-other")
    yield ours(bench, config, OFFLINE, "offline", calibrate_it=True)
    yield ours(bench, config, f"{OFFLINE}, {PLAIN}", "offline")
    if "text" not in bench.skip:
        yield ours(bench, config, f"{OFFLINE}, words, {PLAIN}", "text")
    for mapping in () if "mappings" in bench.skip else MAPPINGS:
        if mapping != bench.offline.diffusion.mapping:
            name = f"{OURS}, mapping {mapping}"
            yield ours(bench, config, name, *runs, mapping=mapping, calibrate_it=True)


def baselines(bench: AlignmentBenchmark) -> Iterator[BenchmarkMethod]:
    pipe, space, n = bench.model, bench.space, bench.config.best_of
    plain = DiffusionSampler(pipe, bench.plain_sampling)
    line = preference_points(space, bench.config.points)
    yield from base_method(bench, plain)
    if "best-of" not in bench.skip:
        for name, part in ((BEST.format(n), 1), (equal_cost(n), n)):
            steps = bench.sampling["num_inference_steps"] // part
            shorter = {**bench.plain_sampling, "num_inference_steps": steps}
            meter, sampler = Meter(), DiffusionSampler(pipe, shorter)
            best = BestOfN(BaseModel(sampler), space, meter.metered(load_scorers(space)), n)
            yield BenchmarkMethod(
                method=baseline_method(name, best, sampler, line, meter=meter, n=n)
            )
    yield from best_data_methods(bench, plain)
    if runs := ddpo_runs(bench):
        # on the chain that it was trained on
        noisy = DiffusionSampler(pipe, {**bench.plain_sampling, "eta": bench.ddpo.eta})
        yield nearest_method(bench, DDPO, noisy, runs)
        corners = {next(iter(w)): name for name, w in runs.items() if len(w) == 1}
        if set(corners) == set(space.names):
            yield soup_method(bench, DDPO_SOUP, noisy, corners, Cost())


def equal_cost(n: int) -> str:
    return f"{BEST.format(n)} at equal cost"


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
    parser, options = options_of(__doc__, "emoji-alignment.yaml", "runs/alignment", PARTS)
    try:
        bench = load(options.config, options.out, options.skip)
        train_adapters(bench)
        train_baselines(bench)
        methods, result = compared(bench, adapters, baselines)
    except InputError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    asked = bars(result, bench.config.best_of)
    publish(bench, result, methods, asked, "ddpo.png", ddpo_runs(bench))


if __name__ == "__main__":
    main()
