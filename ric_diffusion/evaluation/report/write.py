"""Writes a report: metrics.json, front.png, control.png, grid.png and index.html."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ric_diffusion.data.images import png_bytes
from ric_diffusion.data.medium import IMAGE, TEXT, Medium, read_named
from ric_diffusion.evaluation.report.page import Picture, page
from ric_diffusion.evaluation.report.plots import (
    DARK,
    LIGHT,
    control_figure,
    front_figure,
    png,
    reward_pairs,
)
from ric_diffusion.evaluation.report.schema import METRICS_FILE, EvaluationResult
from ric_diffusion.evaluation.report.sheet import draw_sheet
from ric_diffusion.evaluation.report.text import number
from ric_diffusion.evaluation.runner import DRAW_AGAIN, METHODS
from ric_diffusion.io.config import to_dict
from ric_diffusion.io.files import json_bytes
from ric_diffusion.io.own import OwnFiles

ROWS = 8  # of the grid of samples, over all methods
SHOWN = FRONT, CONTROL, GRID, PAGE = "front.png", "control.png", "grid.png", "index.html"
NOTE = f"{METHODS}/report.json"


def check_report(out: Path) -> None:
    """InputError for a file in the place of one of a report, which none has written."""
    OwnFiles(out, NOTE).check((METRICS_FILE, *SHOWN))


def write_metrics(result: EvaluationResult, out: Path) -> None:
    """Write the numbers alone, for where the samples are not; what ``out`` has of another report is
    removed. InputError, and nothing written, as ``check_report`` has it."""
    own = OwnFiles(out, NOTE)
    own.check((METRICS_FILE,))
    own.remove(SHOWN)
    own.write({METRICS_FILE: json_bytes(to_dict(result))})


def write_report(result: EvaluationResult, out: Path, medium: Medium) -> None:
    """Write the report into ``out``, where the samples lie; ``medium`` is what they are.

    There is no front.png for a single reward, no control.png without sliders, and no grid.png where
    samples are no pictures: the page shows texts itself. index.html is written last. InputError,
    and nothing written, as ``check_report`` has it.
    """
    files = {METRICS_FILE: json_bytes(to_dict(result))}
    pairs = reward_pairs(result)
    names = [
        reward.name
        for reward in result.rewards
        if any(method.control_of(reward.name) for method in result.methods)
    ]
    if pairs:
        files[FRONT] = png(front_figure(result, pairs))
    if names:
        files[CONTROL] = png(control_figure(result, names))
    grid, texts = None, []
    if medium.name == TEXT.name:
        texts = text_rows(sample_rows(result, out, medium))
    elif medium.name == IMAGE.name:
        files[GRID] = png_bytes(draw_grid(sample_rows(result, out, medium)))
        grid = Picture(
            png=files[GRID],
            alt="Rows of samples, one row for each prompt, along the preference sweep.",
        )
    # A page as narrow as a telephone shows one panel at a time, so each is a picture there.
    fronts = [
        Picture(
            png=png(front_figure(result, [pair])),
            dark=png(front_figure(result, [pair], DARK)),
            alt=front_in_words(result, pair),
        )
        for pair in pairs
    ]
    controls = [
        Picture(
            png=png(control_figure(result, [name], LIGHT)),
            dark=png(control_figure(result, [name], DARK)),
            alt=control_in_words(result, name),
        )
        for name in names
    ]
    files[PAGE] = page(result, fronts, controls, grid, texts).encode()
    OwnFiles(out, NOTE).write(files)


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The first prompts under the first seed along the preference sweep, a row for each method and
    prompt: R ``titles``, R rows of P ``samples``, P ``captions`` with a line for each reward."""

    titles: list[str]
    samples: list[list[Any]]
    captions: list[list[str]]


def sample_rows(result: EvaluationResult, out: Path, medium: Medium) -> Rows:
    """What a report shows of the samples."""
    methods = sorted(result.methods, key=lambda method: -len(method.points))
    prompts = result.prompts[: max(1, ROWS // len(methods))]
    cells = [(q, prompt, method) for q, prompt in enumerate(prompts) for method in methods]
    alone = len(methods) == 1
    return Rows(
        titles=[prompt if alone else f"{method.name}: {prompt}" for _, prompt, method in cells],
        samples=[
            [read_named(out / p.files[q][0], medium, mend=DRAW_AGAIN) for p in method.points]
            for q, _, method in cells
        ],
        captions=[
            [f"{name} {100 * weight:.0f} %" for name, weight in (point.preference or {}).items()]
            for point in methods[0].points
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


def front_in_words(result: EvaluationResult, pair: tuple[str, str]) -> str:
    """What the panel shows of each method."""
    said = []
    for method in result.methods:
        ends = [
            " and ".join(f"{name} {number(point.obtained[name].value)}" for name in pair)
            for point in (method.points[0], method.points[-1])
        ]
        along = f"from {ends[0]} to {ends[1]}" if len(method.points) > 1 else f"at {ends[0]}"
        said.append(f"{method.name} {along}")
    return f"Mean obtained {pair[0]} against {pair[1]}, in z: {'; '.join(said)}."


def control_in_words(result: EvaluationResult, name: str) -> str:
    """What the panel shows of each method."""
    said = [
        f"{method.name} gives {number(sweep.obtained[0].value)} to "
        f"{number(sweep.obtained[-1].value)} for {number(sweep.requested[0])} to "
        f"{number(sweep.requested[-1])}"
        for method in result.methods
        if (sweep := method.control_of(name))
    ]
    return f"Requested {name} against mean obtained, in z: {'; '.join(said)}."
