"""Writes a report: metrics.json, front.png, control.png, grid.png and index.html."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ric_diffusion.data.images import save_png
from ric_diffusion.evaluation.findings import number
from ric_diffusion.evaluation.page import Picture, page
from ric_diffusion.evaluation.plots import (
    DARK,
    LIGHT,
    control_figure,
    front_figure,
    png,
    reward_pairs,
)
from ric_diffusion.evaluation.sheet import draw_sheet
from ric_diffusion.files import write_bytes, write_json, write_text

Metrics = Mapping[str, Any]
ROWS = 8  # of the grid of samples, over all models


def write_report(metrics: Metrics, out: Path, read: Callable[[Path], Any]) -> None:
    """Write the report of ``metrics`` into ``out``; ``read`` gives the sample that a file holds.

    There is no front.png for a single reward, no control.png without sliders, and no grid.png where
    samples are no pictures: the page shows texts itself. index.html is written last.
    """
    write_json(out / "metrics.json", metrics)
    pairs = reward_pairs(metrics)
    names = [
        reward["name"]
        for reward in metrics["rewards"]
        if any(c["reward"] == reward["name"] for m in metrics["models"] for c in m["control"])
    ]
    if pairs:
        write_bytes(out / "front.png", png(front_figure(metrics, pairs)))
    if names:
        write_bytes(out / "control.png", png(control_figure(metrics, names)))
    grid, texts = None, []
    rows = sample_rows(metrics, out, read)
    if isinstance(rows.samples[0][0], str):
        texts = text_rows(rows)
    elif isinstance(rows.samples[0][0], Image.Image):
        save_png(out / "grid.png", draw_grid(rows))
        grid = Picture(
            png=(out / "grid.png").read_bytes(),
            alt="Rows of samples, one row for each prompt, along the preference sweep.",
        )
    # A page as narrow as a telephone shows one panel at a time, so each is a picture there.
    fronts = [
        Picture(
            png=png(front_figure(metrics, [pair])),
            dark=png(front_figure(metrics, [pair], DARK)),
            alt=front_in_words(metrics, pair),
        )
        for pair in pairs
    ]
    controls = [
        Picture(
            png=png(control_figure(metrics, [name], LIGHT)),
            dark=png(control_figure(metrics, [name], DARK)),
            alt=control_in_words(metrics, name),
        )
        for name in names
    ]
    write_text(out / "index.html", page(metrics, fronts, controls, grid, texts))


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The first prompts under the first seed along the preference sweep, a row for each model and
    prompt: R ``titles``, R rows of P ``samples``, P ``captions`` with a line for each reward."""

    titles: list[str]
    samples: list[list[Any]]
    captions: list[list[str]]


def sample_rows(metrics: Metrics, out: Path, read: Callable[[Path], Any]) -> Rows:
    """What a report shows of the samples."""
    models = sorted(metrics["models"], key=lambda model: -len(model["points"]))
    prompts = metrics["prompts"][: max(1, ROWS // len(models))]
    cells = [(q, prompt, model) for q, prompt in enumerate(prompts) for model in models]
    alone = len(models) == 1
    return Rows(
        titles=[prompt if alone else f"{model['name']}: {prompt}" for _, prompt, model in cells],
        samples=[
            [read(out / point["files"][q][0]) for point in model["points"]] for q, _, model in cells
        ],
        captions=[
            [f"{name} {100 * weight:.0f} %" for name, weight in (point["preference"] or {}).items()]
            for point in models[0]["points"]
        ],
    )


def draw_grid(rows: Rows) -> Image.Image:
    """Pictures with what was asked under each column."""
    return draw_sheet(rows.samples, captions=rows.captions, row_titles=rows.titles)


def text_rows(rows: Rows) -> list[list[str]]:
    """The ends and the middle of each row as cells of a table."""
    found = []
    for title, samples in zip(rows.titles, rows.samples, strict=True):
        shown = sorted({0, len(samples) // 2, len(samples) - 1})
        for i in shown:
            asked = ", ".join(rows.captions[i]) if len(samples) > 1 else ""
            found.append([title, asked, samples[i]])
    return found


def front_in_words(metrics: Metrics, pair: tuple[str, str]) -> str:
    """What the panel shows of each model."""
    said = []
    for model in metrics["models"]:
        ends = [
            " and ".join(f"{name} {number(point['obtained'][name]['value'])}" for name in pair)
            for point in (model["points"][0], model["points"][-1])
        ]
        along = f"from {ends[0]} to {ends[1]}" if len(model["points"]) > 1 else f"at {ends[0]}"
        said.append(f"{model['name']} {along}")
    return f"Mean obtained {pair[0]} against {pair[1]}, in z: {'; '.join(said)}."


def control_in_words(metrics: Metrics, name: str) -> str:
    """What the panel shows of each model."""
    said = [
        f"{model['name']} gives {number(sweep['obtained'][0]['value'])} to "
        f"{number(sweep['obtained'][-1]['value'])} for {number(sweep['requested'][0])} to "
        f"{number(sweep['requested'][-1])}"
        for model in metrics["models"]
        for sweep in model["control"]
        if sweep["reward"] == name
    ]
    return f"Requested {name} against mean obtained, in z: {'; '.join(said)}."
