"""Print the control figures of a model with an adapter, beside the bars they have to reach.

    python scripts/benchmark_control.py --data data/emoji/train --out report

Needs the `dev` extra and the pictures of scripts/build_emoji_dataset.py; about ten minutes on two
CPU cores. Prompts are names the base model knows, seeds were never used in training, and the
scorers see only the finished pictures.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm

from ric_diffusion.commands.model import load_backend, load_pipeline
from ric_diffusion.data.images import open_image, save_png
from ric_diffusion.data.prompts import read_prompts
from ric_diffusion.data.records import read_folder
from ric_diffusion.diffusion.backend import DiffusionBackend
from ric_diffusion.evaluation.control import control_of, tradeoff_of
from ric_diffusion.evaluation.retrieval import efficientnet_features, retrieval_rate
from ric_diffusion.evaluation.scoring import load_scorers
from ric_diffusion.evaluation.sheet import draw_sheet
from ric_diffusion.evaluation.sweep import preference_line, run_sweep, target_line
from ric_diffusion.files import write_json
from ric_diffusion.rewards import to_targets

PROMPTS = read_prompts(Path(__file__).parent / "prompts.txt")
SEEDS = [1001, 1002, 1003, 1004]
POINTS = 11
BATCH = 40
RETRIEVED_NAMES, RETRIEVED_SEEDS = 200, (2001, 2002)


def control(backend: DiffusionBackend, out: Path) -> list[dict[str, Any]]:
    """One reward at a time, the others on auto: 16 prompts x 4 seeds x 11 targets."""
    space = backend.adapter.space
    using = load_scorers(space)
    figures = []
    for column, name in enumerate(space.names):
        line = target_line(space, name, POINTS)
        sweep = run_sweep(backend, space, line, PROMPTS, SEEDS, using, label=name)
        figures.append(asdict(control_of(sweep, name, column)))
        _sheet(sweep.samples, [f"{t[name]:+.1f}" for t in line], name, out / f"control-{name}.png")
    return figures


def tradeoff(backend: DiffusionBackend, mapping: str, out: Path) -> dict[str, Any]:
    """A preference sweep over the same prompts and seeds."""
    space = backend.adapter.space
    line = preference_line(space.names, POINTS)
    targets = [to_targets(p, space, mapping) for p in line]
    using = load_scorers(space)
    sweep = run_sweep(backend, space, targets, PROMPTS, SEEDS, using, label=mapping)
    weights = np.array([[p[name] for name in space.names] for p in line])
    asked = [" ".join(f"{v:+.1f}" for v in t.values()) for t in targets]
    _sheet(sweep.samples, asked, f"{' → '.join(space.names)} ({mapping})", out / "preference.png")
    return {"mapping": mapping, "targets": targets, **asdict(tradeoff_of(sweep, weights))}


def _sheet(samples: list[list[list[Any]]], asked: list[str], title: str, path: Path) -> None:
    """The first seed of every prompt, one row each."""
    rows = [[plane[q][0] for plane in samples] for q in range(len(PROMPTS))]
    sheet = draw_sheet(rows, title=title, captions=[[a] for a in asked], row_titles=PROMPTS)
    save_png(path, sheet)


def prompt_kept(backend: DiffusionBackend, base: Any, data: Path, out: Path) -> dict[str, float]:
    """Retrieval of 200 names x 2 seeds, by the base model and under random preferences."""
    records = read_folder(data)
    names = [r.captions[0] for r in records]
    real = efficientnet_features([open_image(data / r.file) for r in records])
    rng = np.random.default_rng(0)
    chosen = sorted(rng.choice(sorted(set(names)), RETRIEVED_NAMES, replace=False).tolist())
    prompts = [name for name in chosen for _ in RETRIEVED_SEEDS]
    seeds = list(RETRIEVED_SEEDS) * len(chosen)
    space = backend.adapter.space
    weights = rng.dirichlet(np.ones(len(space.names)), len(prompts))
    targets = [
        to_targets(dict(zip(space.names, w, strict=True)), space, backend.adapter.mapping)
        for w in weights.tolist()
    ]
    images: dict[str, list[Image.Image]] = {"base": [], "sliders": []}
    for i in tqdm(range(0, len(prompts), BATCH), desc="retrieval", unit="batch"):
        some = slice(i, i + BATCH)
        images["base"] += stock_samples(base, prompts[some], seeds[some], backend)
        images["sliders"] += backend.sample(prompts[some], targets[some], seeds[some])
    rates = {}
    for label, pictures in images.items():
        rates[label] = retrieval_rate(efficientnet_features(pictures), prompts, real, names)
        rows = [pictures[i : i + 16] for i in range(0, 96, 16)]
        save_png(out / f"retrieval-{label}.png", draw_sheet(rows, title=f"retrieval: {label}"))
    return rates


def samples(backend: DiffusionBackend, base: Any, out: Path) -> None:
    """What the base model makes of the prompts: a row for each seed, the prompts below."""
    rows = [stock_samples(base, PROMPTS, [seed] * len(PROMPTS), backend) for seed in SEEDS]
    save_png(out / "samples.png", draw_sheet(rows, captions=[[prompt] for prompt in PROMPTS]))


def stock_samples(
    base: Any, prompts: list[str], seeds: list[int], backend: DiffusionBackend
) -> list[Image.Image]:
    """What the base model makes without adapter and targets, with the same sampling."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return list(base(prompts, generator=generators, **backend.sampling).images)


def overhead(backend: DiffusionBackend, base: Any, repeats: int = 21) -> dict[str, float]:
    """Median ratios of a conditioned call's time to a stock call's, taken in turn: to the plain
    one, and to one whose context has as many tokens more."""
    targets = {name: 1.0 for name in backend.adapter.space.names}
    context = backend.pipe.encode_context(["red apple"], [targets])
    empty = backend.pipe.encode_context([""], [{}])
    calls = {
        "conditioned": lambda: backend.pipe("red apple", targets=targets, **backend.sampling),
        "stock": lambda: base("red apple", **backend.sampling),
        "stock, as many tokens": lambda: base(
            prompt_embeds=context, negative_prompt_embeds=empty, **backend.sampling
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(repeats + 2):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if i >= 2:  # after the warm-up
                seconds[name].append(time.perf_counter() - start)
    own = seconds.pop("conditioned")
    return {
        name: statistics.median(a / b for a, b in zip(own, other, strict=True))
        for name, other in seconds.items()
    }


def table(figures: dict[str, Any]) -> str:
    """Markdown: figure, value, bar, met or missed."""
    rows = []

    def row(what: str, value: float, bar: float, *, most: bool = False) -> None:
        met = value <= bar if most else value >= bar
        sign, verdict = "≤" if most else "≥", "met" if met else "missed"
        rows.append(f"| {what} | {value:.3f} | {sign} {bar} | {verdict} |")

    for c in figures["control"]:
        row(f"{c['name']}: Spearman, requested against mean obtained", c["of_means"], 0.99)
        row(f"{c['name']}: the same per picture, median", c["per_picture"], 0.85)
        row(f"{c['name']}: span of the mean, z", c["span"], 1.5)
    names = [c["name"] for c in figures["control"]]
    t = figures["tradeoff"]
    for name, fall, span in zip(names, t["deepest_fall"], t["span"], strict=True):
        row(f"preference sweep, {name}: deepest fall, z", fall, 0.05, most=True)
        row(f"preference sweep, {name}: span, z", span, 1.0)
    kept = figures["retrieval"]
    row("retrieval, base model", kept["base"], 0.5)
    row("retrieval under the sliders / base", kept["sliders"] / kept["base"], 0.85)
    ratios = figures["overhead"]
    row("time, conditioned / stock with as many tokens", ratios["stock, as many tokens"], 1.03,
        most=True)  # fmt: skip
    rows.append(f"| time, conditioned / stock | {ratios['stock']:.3f} | | |")
    return "\n".join(["| what | value | bar | |", "| --- | --- | --- | --- |", *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", default="emoji-64")
    parser.add_argument("--adapter")
    parser.add_argument("--mapping", help="the adapter's own by default")
    parser.add_argument("--data", type=Path, default=Path("data/emoji/train"))
    parser.add_argument("--out", type=Path, default=Path("report"), metavar="FOLDER")
    options = parser.parse_args()
    backend = load_backend(options.model, options.adapter)
    base = load_pipeline(options.model, None)
    base.unload_adapter()
    base.set_progress_bar_config(disable=True)
    samples(backend, base, options.out)
    figures = {
        "adapter": backend.adapter.about()["conditioning"]["mode"],
        "control": control(backend, options.out),
        "tradeoff": tradeoff(backend, options.mapping or backend.adapter.mapping, options.out),
        "retrieval": prompt_kept(backend, base, options.data, options.out),
        "overhead": overhead(backend, base),
    }
    write_json(options.out / "control.json", figures)
    print(table(figures))


if __name__ == "__main__":
    main()
