"""Our method on a language model against its alternatives: what their sweeps reach, at what cost.

    python scripts/sample_responses.py --out data/responses
    ric label data/responses --scorers positivity brevity --out data/responses-labelled
    python scripts/research/benchmark_llm.py --out runs/alignment-llm

Trains what is not there yet (offline and online adapter, reward words, SFT, one LoRA per reward,
TRL's GRPO for several preferences), has all of them respond to the same prompts, our online adapter
also with a calibration, and writes table.md, cost.png, the fronts of the methods (methods.png), the
reward curves of GRPO (grpo.png) and a report (index.html, metrics.json). Every part can be
interrupted and goes on where it was; --skip leaves parts out, and a later run without it adds them;
--only makes some parts and no table. GRPO needs the extra `dev`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

import comparison
from benchmark import (
    BASE,
    OFFLINE,
    ONLINE_CALIBRATED,
    OURS,
    SOUP,
    Benchmark,
    Part,
    Trained,
    all_methods,
    base_methods,
    compared,
    nearest_of,
    options_of,
    ours,
    parameters_of,
    publish,
    run_benchmark,
    sft_methods,
    soup_methods,
    train_sft_runs,
    train_soup_runs,
)
from comparison import Bar
from llm_runs import (
    UNMODULATED,
    LlmBenchmark,
    grpo_runs,
    load,
    train_conditionings,
    train_grpo_runs,
    train_ours,
)
from ric_diffusion.evaluation.report.schema import EvaluationResult
from ric_diffusion.io import config as configs
from ric_diffusion.io.files import write_json
from ric_diffusion.models.causal_lm.model import RiCCausalLM
from ric_diffusion.models.causal_lm.sampler import LlmSampler

GRPO = "GRPO"
SPEED = "speed.json"
WORDS = f"{OFFLINE}, words"
UNSTEERED = f"{OFFLINE}, tokens that do not modulate"
CONDITIONINGS = WORDS, UNSTEERED  # how a model is told the rewards, beside tokens that steer layers


def our_methods(bench: Benchmark, k: int) -> Iterator[Trained]:
    """The first is what all others are compared with, and also moves each reward alone."""
    yield ours(bench, OURS, "offline", "online", alone=True)
    yield ours(bench, OFFLINE, "offline", alone=True)


def conditioning_methods(bench: LlmBenchmark, k: int) -> Iterator[Trained]:
    """Other ways to tell a model the rewards."""
    yield ours(bench, WORDS, "text", sampling=configs.to_dict(bench.text.llm.sampling), alone=True)
    yield ours(bench, UNSTEERED, UNMODULATED, alone=True)


def calibrated_methods(bench: Benchmark, k: int) -> Iterator[Trained]:
    """The first of ours calibrated, which costs more."""
    runs = "offline", "online"
    yield ours(bench, ONLINE_CALIBRATED, *runs, calibrate_it=True, alone=True, plain=OURS)


def grpo_methods(bench: Benchmark, k: int) -> Iterator[Trained]:
    yield nearest_of(bench, GRPO, plain(bench), grpo_runs(bench))


def plain(bench: Benchmark) -> LlmSampler:
    """Draws without rewards."""
    return LlmSampler(bench.model, bench.sampling)


PARTS = {
    "ours": Part(train=train_ours, methods=our_methods, reads=("offline", "online")),
    "text": Part(
        train=train_conditionings, methods=conditioning_methods, reads=("offline", "text")
    ),
    "calibrated": Part(methods=calibrated_methods, reads=("calibration_seeds",), needs=("ours",)),
    "base": Part(methods=lambda bench, k: base_methods(plain(bench)), reads=("sampling",)),
    "sft": Part(
        train=train_sft_runs,
        methods=lambda bench, k: sft_methods(bench, plain(bench), k),
        reads=("offline", "sft_fraction"),
    ),
    "soup": Part(
        train=train_soup_runs,
        methods=lambda bench, k: soup_methods(bench, plain(bench), k),
        reads=("offline", "soup_fraction"),
    ),
    "grpo": Part(
        train=train_grpo_runs,
        methods=grpo_methods,
        reads=("offline", "grpo", "grpo_preferences"),
    ),
}


def speed(bench: Benchmark) -> dict[str, Any] | None:
    """Seconds for the prompts in one batch and one by one, the likeliest tokens each time, and
    whether the responses are equal; ``speed.json``, which is made once for the same prompts, data
    and settings. None where there is none, and nothing is to be made, or the adapter is not here.
    """
    path, adapter = bench.scores / SPEED, bench.out / "online" / "adapter"
    asked = bench.prompts.compared
    same = {"basis": bench.basis, "prompts": configs.digest(asked), "sampling": bench.sampling}
    if path.exists():
        stored: dict[str, Any] = json.loads(path.read_text())
        if stored.get("of") == configs.to_dict(same):
            return stored
    if bench.only_kept or not adapter.exists():
        return None
    # float32, whatever is compared in: with less, rounding alone makes other tokens likelier.
    lm = RiCCausalLM.from_pretrained(bench.config.model)
    lm.model.to(bench.model.model.device)
    lm.load_adapter(adapter)
    sampler = LlmSampler(lm, {**bench.sampling, "temperature": 0.0})
    sampler.sample(asked[:1], [{}], [0])  # the first pass is slower than all others
    start = time.perf_counter()
    together = sampler.sample(asked, [{}] * len(asked), [0] * len(asked))
    middle = time.perf_counter()
    alone = [sampler.sample([prompt], [{}], [0])[0] for prompt in asked]
    end = time.perf_counter()
    found = {"batched": middle - start, "single": end - middle, "equal": together == alone}
    write_json(path, {"of": same, **found})
    return found


def speed_bars(found: Mapping[str, Any], prompts: int) -> list[Bar]:
    ratio = found["single"] / found["batched"]
    return [
        Bar(
            what=f"speed of {prompts} responses in one batch / one by one",
            found=comparison.number(ratio),
            bar="≥ 3",
            met=ratio >= 3,
        ),
        Bar(
            what="these responses are the same, in float32",
            found="yes" if found["equal"] else "no",
            bar="yes",
            met=found["equal"],
        ),
    ]


def bars(result: EvaluationResult, bench: Benchmark) -> list[Bar]:
    measured = speed(bench)
    return [
        *comparison.control(result, 0.95),
        *comparison.follows(result, WORDS, 0.95),
        comparison.beats(result, BASE, 1.5),
        comparison.beats(result, SOUP, 1.1),
        comparison.beats(result, GRPO, 1.0),
        comparison.cheaper(result, GRPO, 0.10),
        comparison.fluent(result, BASE, 0.5),
        *comparison.calibration(result, halved=0.5, most=0.25),
        *([] if measured is None else speed_bars(measured, len(bench.prompts.compared))),
    ]


def main() -> None:
    name, out = "smollm2-alignment.yaml", "runs/alignment-llm"
    parser, options = options_of(__doc__, name, out, list(PARTS))
    run_benchmark(parser, lambda: run(options))


def run(options: argparse.Namespace) -> None:
    bench = load(
        options.config, options.out, options.parts, scores=options.scores,
        only_seeds=options.training_seeds, only_kept=options.kept,
    )  # fmt: skip
    methods = all_methods(bench, PARTS)
    if options.only:
        return
    found, more = compared(bench, methods), []
    parameters = parameters_of(methods, [OFFLINE, *CONDITIONINGS])
    if len(parameters) > 1:
        more.append(comparison.conditioning_table(found.result, parameters))
    asked = bars(found.result, bench)
    publish(bench, found, methods, asked, ("grpo.png", GRPO), more)


if __name__ == "__main__":
    main()
