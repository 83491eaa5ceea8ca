"""Our method on a language model against its alternatives: what their sweeps reach, at what cost.

    python scripts/sample_responses.py --out data/responses
    ric label data/responses --scorers positivity brevity --out data/responses-labelled
    python scripts/benchmark_llm.py --out runs/alignment-llm

Trains what is not there yet (offline and online adapter, SFT, one LoRA per reward, TRL's GRPO for
several preferences), has all of them respond to the same prompts, our online adapter also with a
calibration, and writes table.md, cost.png, the fronts of the methods (methods.png), the reward
curves of GRPO (grpo.png) and a report (index.html, metrics.json). Every part can be interrupted and
goes on where it was; --skip leaves parts out, and a later run without it adds them. GRPO needs the
extra `benchmark`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

from contenders import (
    BASE,
    CALIBRATED,
    OFFLINE,
    OURS,
    SOUP,
    Bench,
    Contender,
    base_contender,
    best_contenders,
    compared,
    nearest_contender,
    options_of,
    ours,
    publish,
    run,
    train_on_the_best,
)
from llm_runs import PARTS, grpo_runs, load, train_grpo_runs

from ric_diffusion.errors import InputError
from ric_diffusion.evaluation import comparison
from ric_diffusion.evaluation.calibration import Calibration
from ric_diffusion.evaluation.comparison import Bar
from ric_diffusion.evaluation.subject import Setup
from ric_diffusion.files import write_json
from ric_diffusion.llm.model import RiCCausalLM
from ric_diffusion.llm.sampler import LlmSampler

GRPO = "GRPO"
SPEED = "speed.json"


def adapters(bench: Bench, setup: Setup) -> Iterator[tuple[Contender, Calibration | None]]:
    """Ours; the first is what all others are compared with, the second the same calibrated, which
    costs more, and these two also move each reward alone."""
    runs = "offline", "online"
    yield ours(bench, setup, OURS, *runs, alone=True)
    if CALIBRATED not in bench.skip:
        name = f"{OURS}, {CALIBRATED}"
        yield ours(bench, setup, name, *runs, calibrate_it=True, alone=True)
    yield ours(bench, setup, OFFLINE, "offline")


def baselines(bench: Bench) -> Iterator[Contender]:
    plain = LlmSampler(bench.model, bench.sampling)
    yield from base_contender(bench, plain)
    yield from best_contenders(bench, plain)
    if runs := grpo_runs(bench):
        yield nearest_contender(bench, GRPO, plain, runs)


def speed(bench: Bench) -> dict[str, Any]:
    """Seconds for the prompts in one batch and one by one, the likeliest tokens each time, and
    whether the responses are equal; ``speed.json``, which is made once."""
    path = bench.out / SPEED
    if not path.exists():
        # float32, whatever is compared in: with less, rounding alone makes other tokens likelier.
        lm = RiCCausalLM.from_pretrained(bench.config.model)
        lm.model.to(bench.model.model.device)
        lm.load_adapter(bench.out / "online" / "adapter")
        sampler = LlmSampler(lm, {**bench.sampling, "temperature": 0.0})
        asked = bench.prompts.compared
        sampler.sample(asked[:1], [{}], [0])  # the first pass is slower than all others
        start = time.perf_counter()
        together = sampler.sample(asked, [{}] * len(asked), [0] * len(asked))
        middle = time.perf_counter()
        alone = [sampler.sample([prompt], [{}], [0])[0] for prompt in asked]
        end = time.perf_counter()
        found = {"batched": middle - start, "single": end - middle, "equal": together == alone}
        write_json(path, found)
    measured: dict[str, Any] = json.loads(path.read_text())
    return measured


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


def bars(metrics: Mapping[str, Any], bench: Bench) -> list[Bar]:
    return [
        *comparison.control(metrics, 0.95),
        comparison.beats(metrics, BASE, 1.5),
        comparison.beats(metrics, SOUP, 1.1),
        comparison.beats(metrics, GRPO, 1.0),
        comparison.cheaper(metrics, GRPO, 0.10),
        comparison.fluent(metrics, BASE, 0.5),
        *speed_bars(speed(bench), len(bench.prompts.compared)),
    ]


def main() -> None:
    parser, options = options_of(__doc__, "smollm2-alignment.yaml", "runs/alignment-llm", PARTS)
    try:
        bench = load(options.config, options.out, options.skip)
        run(bench, "train", "offline", bench.offline)
        run(bench, "online", "online", bench.online)
        train_on_the_best(bench)
        train_grpo_runs(bench)
        contenders, metrics = compared(bench, adapters, baselines)
        asked = bars(metrics, bench)
    except InputError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    publish(bench, metrics, contenders, asked, "grpo.png", grpo_runs(bench))


if __name__ == "__main__":
    main()
