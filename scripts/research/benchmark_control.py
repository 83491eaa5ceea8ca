"""Print the control figures of a model with an adapter, beside the bars they have to reach.

    python scripts/research/benchmark_control.py --data data/emoji/train --out report

Needs the `dev` extra and the pictures of build_emoji_dataset.py; an hour or more on two CPU cores.
Prompts are names the base model knows, seeds were never used in training, and the scorers see only
the finished pictures. A part that is finished is not done again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import accuracy
from control import control_of, tradeoff_of
from retrieval import efficientnet_features, retrieval_rate
from ric_diffusion.data.images import open_image, save_png
from ric_diffusion.data.medium import IMAGE
from ric_diffusion.data.prompts import read_prompts
from ric_diffusion.data.records import Record, read_folder
from ric_diffusion.data.scoring import load_scorers
from ric_diffusion.evaluation.grid import Point, preference_points, target_line
from ric_diffusion.evaluation.method import weights_of
from ric_diffusion.evaluation.report.sheet import draw_sheet
from ric_diffusion.evaluation.runner import Sweep, run_sweep
from ric_diffusion.io import config
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import write_json
from ric_diffusion.io.progress import tracked
from ric_diffusion.io.run import RunFolder
from ric_diffusion.models.diffusion.sampler import DiffusionSampler
from ric_diffusion.models.family import family_of, load_model, loading
from ric_diffusion.models.protocol import weights_digest
from ric_diffusion.rewards import MAPPINGS, to_targets
from scorers import ScorerError

PROMPTS = Path(__file__).parents[1] / "prompts.txt"
SEEDS = [1001, 1002, 1003, 1004]
POINTS = 11
BATCH = 40
RETRIEVED_NAMES, RETRIEVED_SEEDS = 200, (2001, 2002)
CALIBRATED_NAMES, CALIBRATED_SEEDS = 32, (3001, 3002)


def control(sampler: DiffusionSampler, prompts: Sequence[str], out: Path) -> list[dict[str, Any]]:
    """One reward at a time, the others on auto: 16 prompts x 4 seeds x 11 targets."""
    space = sampler.pipe.adapter.space
    using = load_scorers(space)
    figures = []
    for column, name in enumerate(space.names):
        line = target_line(space, name, POINTS)
        points = [Point(targets=targets, along=name) for targets in line]
        sweep = run_sweep(sampler, space, points, prompts, SEEDS, using, stage=name)
        figures.append(asdict(control_of(sweep, name, column)))
        _sheet(sweep, [f"{t[name]:+.1f}" for t in line], name, out / f"control-{name}.png")
    return figures


def tradeoff(
    sampler: DiffusionSampler, prompts: Sequence[str], mapping: str, out: Path
) -> dict[str, Any]:
    """A preference sweep over the same prompts and seeds."""
    space = sampler.pipe.adapter.space
    points = preference_points(space, POINTS, mapping)
    using = load_scorers(space)
    sweep = run_sweep(sampler, space, points, prompts, SEEDS, using, stage=mapping)
    weights = np.array([weights_of(point.preference or {}, space) for point in points])
    targets = [dict(point.targets) for point in points]
    asked = [" ".join(f"{v:+.1f}" for v in t.values()) for t in targets]
    _sheet(sweep, asked, f"{' → '.join(space.names)} ({mapping})", out / "preference.png")
    found = asdict(tradeoff_of(sweep, weights))
    return {"names": space.names, "mapping": mapping, "targets": targets, **found}


def single_pictures(
    sampler: DiffusionSampler, prompts: Sequence[str], data: Path
) -> list[dict[str, Any]]:
    """How near single pictures come to their targets; an adapter without calibration gets one, on
    other names and seeds. Afterwards the adapter has it."""
    using = load_scorers(sampler.pipe.adapter.space)
    names = sorted({record.captions[0] for record in read_folder(data)} - set(prompts))
    rng = np.random.default_rng(0)
    others = rng.choice(names, min(CALIBRATED_NAMES, len(names)), replace=False).tolist()
    curves = accuracy.curves_on(sampler, others, CALIBRATED_SEEDS, using)
    found = accuracy.accuracy(sampler, prompts, SEEDS[:2], curves, using)
    return [asdict(one) for one in found]


def _sheet(sweep: Sweep, asked: list[str], title: str, path: Path) -> None:
    """The first seed of every prompt, one row each."""
    rows = [[plane[q][0] for plane in sweep.samples] for q in range(len(sweep.prompts))]
    sheet = draw_sheet(rows, title=title, captions=[[a] for a in asked], row_titles=sweep.prompts)
    save_png(path, sheet)


def retrieval(sampler: DiffusionSampler, base: Any, data: Path, out: Path) -> dict[str, float]:
    """Retrieval of 200 names x 2 seeds, by the base model and under random preferences."""
    records = read_folder(data)
    names = [r.captions[0] for r in records]
    real = efficientnet_features([open_image(data / r.file) for r in records])
    rng = np.random.default_rng(0)
    chosen = sorted(rng.choice(sorted(set(names)), RETRIEVED_NAMES, replace=False).tolist())
    prompts = [name for name in chosen for _ in RETRIEVED_SEEDS]
    seeds = list(RETRIEVED_SEEDS) * len(chosen)
    space = sampler.pipe.adapter.space
    weights = rng.dirichlet(np.ones(len(space.names)), len(prompts))
    targets = [
        to_targets(dict(zip(space.names, w, strict=True)), space, sampler.pipe.adapter.mapping)
        for w in weights.tolist()
    ]
    images: dict[str, list[Image.Image]] = {"base": [], "sliders": []}
    for i in tracked(range(0, len(prompts), BATCH), "retrieval", unit="batch"):
        some = slice(i, i + BATCH)
        images["base"] += stock_samples(base, prompts[some], seeds[some], sampler)
        images["sliders"] += sampler.sample(prompts[some], targets[some], seeds[some])
    rates = {}
    for label, pictures in images.items():
        rates[label] = retrieval_rate(efficientnet_features(pictures), prompts, real, names)
        rows = [pictures[i : i + 16] for i in range(0, min(96, len(pictures)), 16)]
        save_png(out / f"retrieval-{label}.png", draw_sheet(rows, title=f"retrieval: {label}"))
    return rates


def samples(sampler: DiffusionSampler, base: Any, prompts: list[str], out: Path) -> None:
    """What the base model makes of the prompts: a row for each seed, the prompts below."""
    rows = [stock_samples(base, prompts, [seed] * len(prompts), sampler) for seed in SEEDS]
    save_png(out / "samples.png", draw_sheet(rows, captions=[[prompt] for prompt in prompts]))


def stock_samples(
    base: Any, prompts: list[str], seeds: list[int], sampler: DiffusionSampler
) -> list[Image.Image]:
    """What the base model makes without adapter and targets, with the same sampling."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return list(base(prompts, generator=generators, **sampler.sampling).images)


def overhead(sampler: DiffusionSampler, base: Any, repeats: int = 21) -> dict[str, float]:
    """Median ratios of a conditioned call's time to a stock call's, taken in turn: to the plain
    one, and to one whose context has as many tokens more."""
    targets = {name: 1.0 for name in sampler.pipe.adapter.space.names}
    context = sampler.pipe.encode_context(["red apple"], [targets]).states
    empty = sampler.pipe.encode_context([""], [{}]).states
    calls = {
        "conditioned": lambda: sampler.pipe("red apple", targets=targets, **sampler.sampling),
        "stock": lambda: base("red apple", **sampler.sampling),
        "stock, as many tokens": lambda: base(
            prompt_embeds=context, negative_prompt_embeds=empty, **sampler.sampling
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


PARTS = ("control", "tradeoff", "retrieval", "overhead", "accuracy")
CONTROL_BARS = {  # by mode: Spearman of the means and of a picture, and the span of the means, z
    "embedding": (0.99, 0.85, 1.5),
    "text": (0.95, None, 1.0),
}
BARS = {accuracy.AWARE: 0.35, f"refine={accuracy.PASSES}": 0.15}  # of errors, z


def shown(error: float | None) -> str:
    return "none" if error is None else f"{error:.3f}"


def table(figures: dict[str, Any], mode: str) -> str:
    """Markdown: figure, value, bar of the adapter's mode, met or missed; of the parts there are."""
    rows = []
    of_means, per_picture, moved = CONTROL_BARS[mode]

    def row(what: str, value: float, bar: float | None, *, most: bool = False) -> None:
        if bar is None:
            rows.append(f"| {what} | {value:.3f} | | |")
            return
        met = value <= bar if most else value >= bar
        sign, verdict = "≤" if most else "≥", "met" if met else "missed"
        rows.append(f"| {what} | {value:.3f} | {sign} {bar} | {verdict} |")

    for c in figures.get("control", ()):
        row(f"{c['name']}: Spearman, requested against mean obtained", c["of_means"], of_means)
        row(f"{c['name']}: the same per picture, median", c["per_picture"], per_picture)
        row(f"{c['name']}: span of the mean, z", c["span"], moved)
    if t := figures.get("tradeoff"):
        for name, fall, span in zip(t["names"], t["deepest_fall"], t["span"], strict=True):
            row(f"preference sweep, {name}: deepest fall, z", fall, 0.05, most=True)
            row(f"preference sweep, {name}: span, z", span, 1.0)
    for a in figures.get("accuracy", ()):
        what = f"{a['name']}: error of a picture"
        for method, error in a["errors"].items():
            bar = BARS.get(method)
            if error is None or bar is None:
                rows.append(f"| {what} inside reach, {method}, z | {shown(error)} | | |")
            else:
                row(f"{what} inside reach, {method}, z", error, bar, most=True)
        rows.append(
            f"| {what} inside reach, scatter of a prompt's seeds, z | {shown(a['scatter'])} | | |"
        )
        rows.append(
            f"| {a['name']}: asked outside the picture's reach | {1 - a['inside']:.0%} | | |"
        )
        last, error = list(a["outside"].items())[-1]
        rows.append(f"| {what} outside reach, {last}, z | {shown(error)} | | |")
        rows.append(f"| {a['name']}: passes after the first, {last} | {a['passes']:.2f} | | |")
    if rates := figures.get("retrieval"):
        row("retrieval, base model", rates["base"], 0.8)
        row("retrieval under the sliders / base", rates["sliders"] / rates["base"], 0.85)
    if ratios := figures.get("overhead"):
        row("time, conditioned / stock with as many tokens", ratios["stock, as many tokens"], 1.03,
            most=True)  # fmt: skip
        row("time, conditioned / stock", ratios["stock"], None)
    return "\n".join(["| what | value | bar | |", "| --- | --- | --- | --- |", *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", default="emoji-64")
    parser.add_argument("--adapter")
    parser.add_argument("--mapping", choices=MAPPINGS, help="the adapter's own by default")
    parser.add_argument("--data", type=Path, default=Path("data/emoji/train"))
    parser.add_argument("--out", type=Path, default=Path("report"), metavar="FOLDER")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, metavar="PART",
                        help=f"of {', '.join(PARTS)}")  # fmt: skip
    options = parser.parse_args()
    try:
        records = read_folder(options.data)  # found out before an hour of work
        least = RETRIEVED_NAMES if "retrieval" in options.only else 1
        check_captions(options.data, records, least)
        with loading(options.model, "--model"):
            family = family_of(options.model)
        if family.medium is not IMAGE:
            raise InputError(f"--model {options.model}: makes texts; name one that makes pictures")
        sampler = DiffusionSampler(load_model(options.model, options.adapter))
        adapter = sampler.pipe.adapter
        if adapter is None:
            raise InputError(f"--model {options.model}: comes without an adapter; give --adapter")
        prompts = read_prompts(PROMPTS)
        mapping = options.mapping or adapter.mapping
        run = RunFolder(options.out, Path(__file__).name)
        run.begin(
            {
                "model": weights_digest(sampler.pipe.denoiser),
                "adapter": adapter.about(),
                "mapping": mapping,
                "prompts": prompts,
                "data": config.digest([[one.file, *one.captions[:1]] for one in records]),
            }
        )
    except (InputError, ScorerError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    base = load_model(options.model)
    base.unload_adapter()
    if not (options.out / "samples.png").exists():
        samples(sampler, base, prompts, options.out)
    parts: dict[str, Callable[[], Any]] = {
        "control": lambda: control(sampler, prompts, options.out),
        "tradeoff": lambda: tradeoff(sampler, prompts, mapping, options.out),
        "retrieval": lambda: retrieval(sampler, base, options.data, options.out),
        "overhead": lambda: overhead(sampler, base),
        "accuracy": lambda: single_pictures(sampler, prompts, options.data),  # last: it calibrates
    }
    figures = {
        name: once(part, options.out / f"{name}.json")
        for name, part in parts.items()
        if name in options.only
    }
    print(table(figures, adapter.about()["conditioning"]["mode"]))


def check_captions(folder: Path, records: Sequence[Record], least: int) -> None:
    """InputError unless each has a caption, and there are at least so many different ones."""
    if bare := next((one.file for one in records if not one.captions), None):
        raise InputError(f"{folder}: {bare} has no caption; give each picture one, or leave it out")
    names = len({one.captions[0] for one in records})
    if names < least:
        raise InputError(f"{folder}: has {names} different captions; retrieval takes {least}")


def once(part: Callable[[], Any], path: Path) -> Any:
    """What the part found, now or before."""
    if not path.exists():
        write_json(path, part())
    return json.loads(path.read_text())


if __name__ == "__main__":
    main()
