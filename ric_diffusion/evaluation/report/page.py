"""``index.html``: one file that needs nothing beside it, for a person to read."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from ric_diffusion.evaluation.report.schema import CalibrationResult, EvaluationResult, MethodResult
from ric_diffusion.evaluation.report.text import (
    number,
    percent,
    percent_with_interval,
    statements,
    with_interval,
)
from ric_diffusion.io.counting import counted

TEMPLATE = Path(__file__).with_name("page.html")
INTERVAL = re.compile(r"(\S+(?: %)?) (\(\S+ to \S+\))")
OPEN = 3  # the points of more methods are folded away


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A PNG, what it shows in words, and the PNG for a dark page where there is one."""

    png: bytes
    alt: str
    dark: bytes | None = None


def page(
    result: EvaluationResult,
    fronts: Sequence[Picture],
    controls: Sequence[Picture],
    grid: Picture | None,
    texts: Sequence[Sequence[str]] = (),
) -> str:
    """The whole page. Every word that is not ours is escaped. ``texts``: rows of method and prompt,
    preference, sample, where samples are texts."""
    title = f"Evaluation of {result.model}"
    about = (
        f"{counted(len(result.methods), 'methods')}, {counted(len(result.prompts), 'prompts')}, "
        f"{counted(len(result.seeds), 'seeds')} each. Figures in brackets are "
        f"{percent(result.bootstrap.level)} intervals."
    )
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="lead">{escape(about)}</p>',
        "<h2>What was found</h2>",
        _list(statements(result), "statements"),
    ]
    if fronts:
        parts += ["<h2>What the preferences reach</h2>", _figures(fronts, FRONT_CAPTION)]
    if controls:
        parts += ["<h2>One reward at a time</h2>", _figures(controls, CONTROL_CAPTION)]
    if grid:
        parts += [
            "<h2>Samples</h2>",
            _scroll("Samples along the preference sweep", f"<figure>{_image(grid)}</figure>"),
        ]
    if texts:
        header = ("Method and prompt", "Preference", "Response")
        caption = "Samples along the preference sweep"
        parts += ["<h2>Samples</h2>", _table(caption, header, texts)]
    parts += ["<h2>Figures</h2>", *_tables(result), "<h2>How it was measured</h2>"]
    parts += _how(result)
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(title), body="\n".join(parts)
    )


FRONT_CAPTION = (
    "Mean over prompts and seeds at each preference, in z: standard deviations of the training "
    "data, from its mean. Filled marks lie on a method's own front, at hollow ones another of its "
    "points is better in every reward. Bars are intervals. The dashed line is the best that real "
    "training data reaches."
)
CONTROL_CAPTION = (
    "Each reward moved alone, the others left to the model. A slider that does what it says "
    "follows the dashed line. Bands are intervals."
)


def _tables(result: EvaluationResult) -> list[str]:
    methods = result.methods
    parts = [_methods_table(methods)]
    if any(method.control for method in methods):
        parts.append(_control_table(methods))
    for method in methods:
        title, table = escape(f"{method.name}, point by point"), _points_table(method)
        if len(methods) > OPEN:
            parts.append(f"<details><summary>{title}</summary>{table}</details>")
        else:
            parts += [f"<h3>{title}</h3>", table]
    return parts


def _methods_table(methods: Sequence[MethodResult]) -> str:
    header = ["method", "hypervolume", f"× {methods[0].name}", "on or near its front",
              "prompt R-precision", "diversity", "rejected", "forward passes",
              "per sample"]  # fmt: skip
    rows = [
        [
            method.name,
            with_interval(method.hypervolume),
            with_interval(method.hypervolume_ratio) if method.hypervolume_ratio else "1",
            f"{method.near_front.count} of {method.near_front.total}",
            percent_with_interval(method.prompt_r_precision),
            with_interval(method.diversity, 3),
            f"{sum(method.rejected.values())} of {method.samples}",
            _thousands(method.cost.forwards),
            number(method.cost.forwards / method.samples, 1),
        ]
        for method in methods
    ]
    return _table("All methods, same prompts and seeds", header, rows)


def _control_table(methods: Sequence[MethodResult]) -> str:
    header = ["reward", "method", "requested", "reached", "error, z", "error of a sample, z",
              "saturation", "rank correlation", "the same, per sample"]  # fmt: skip
    rows = [
        [
            sweep.reward,
            method.name,
            _range([sweep.requested[0], sweep.requested[-1]]),
            _range(sweep.reached),
            with_interval(sweep.error),
            with_interval(sweep.sample_error),
            percent_with_interval(sweep.saturation),
            number(sweep.spearman_of_means, 3),
            number(sweep.spearman_per_sample, 3),
        ]
        for method in methods
        for sweep in method.control
    ]
    rows.sort(key=lambda row: row[0])  # the methods of one reward beside each other
    return _table("One reward at a time, in z", header, rows)


def _points_table(method: MethodResult) -> str:
    first = method.points[0]
    names, others = list(first.obtained), list(first.held_out)
    weighed = names if first.preference is not None else []
    header = ["point", *(f"weight of {name}" for name in weighed)]
    header += [f"{name}, z" for name in names] + ["on front"] + others
    header += ["prompt R-precision", "diversity"]
    rows = []
    for count, point in enumerate(method.points, start=1):
        preference = point.preference or {}
        row = [str(count)]
        row += [number(preference.get(name, 0.0)) for name in weighed]
        row += [with_interval(point.obtained[name], sign=True) for name in names]
        row.append("yes" if point.on_front else "near" if point.near_front else "no")
        row += [with_interval(point.held_out[name]) for name in others]
        row += [percent(point.prompt_r_precision.value), number(point.diversity.value, 3)]
        rows.append(row)
    return _table("Means over prompts and seeds", header, rows)


def _how(result: EvaluationResult) -> list[str]:
    """Everything one needs to measure it again."""
    boot, rewards = result.bootstrap, result.rewards
    reference = ", ".join(number(value, 0) for value in result.reference)
    items = [
        ("Rewards", "; ".join(f"{r.name} ({r.unit}): {r.scorer}" for r in rewards)),
        *[("Held out", f"{r.name} ({r.unit}): {r.scorer}") for r in result.held_out],
        ("z", "; ".join(f"one z of {r.name} is {number(r.std, 3)} {r.unit}, 0 is "
                        f"{number(r.mean, 3)}" for r in rewards)),
        ("Reference point", f"({reference}) in z for every method: the mean of the training data "
                            "minus two standard deviations in every reward"),
        ("Intervals", f"{percent(boot.level)}, bootstrap over prompts and seeds, "
                      f"{boot.draws} draws, seed {boot.seed}; ratios are paired"),
        ("On or near the front", "no other point of the method is better in every reward by more "
                                 "than 2 % of that reward's range over the sweep"),
        ("Error", "mean of |mean obtained − requested| over the requests inside the range that the "
                  "methods of this page reach; of a sample: the same for single samples"),
        *(_calibration(result.calibration, result) if result.calibration else ()),
        ("Saturation", "fraction of the requested range outside the reached one"),
        ("Prompt R-precision", "how often the model without adapter explains a sample better by "
                               "its own prompt than by another"),
        ("Diversity", "mean cosine distance between the samples of a prompt"),
        ("Rejected samples", "left out of all scores, and counted"),
        ("Forward passes", "one sample through the network counts 1; the cost of drawing, without "
                           "judging what was drawn"),
        ("Seeds", f"{_listed(result.seeds)} for the first prompt, and so on: no two share one"),
    ]  # fmt: skip
    versions = [f"{name} {version}" for name, version in result.versions.items()]
    listed = [(name, escape(text)) for name, text in items]
    listed += [(method.name, _list(_about(method), "settings")) for method in result.methods]
    listed.append(("Versions", _list(versions, "settings")))
    terms = "".join(f"<dt>{escape(name)}</dt><dd>{content}</dd>" for name, content in listed)
    prompts = _list(result.prompts, "prompts")
    count = counted(len(result.prompts), "prompts")
    return [
        f"<dl>{terms}</dl>",
        f"<details><summary>The {count}</summary>{prompts}</details>",
    ]


def _calibration(calibration: CalibrationResult, result: EvaluationResult) -> list[tuple[str, str]]:
    """What the sliders' curves were fitted on, and where they end."""
    prompts = counted(len(calibration.prompts), "prompts")
    if not set(calibration.prompts) & set(result.prompts):
        prompts += " that the report does not use"
    reached = [f"{one.reward} {_range(one.reachable)} z" for one in calibration.rewards]
    return [
        ("Calibration", "isotonic regression through the means of each reward moved alone, on "
                        f"{prompts}, and seeds that it does not use "
                        f"({_listed(calibration.seeds)} for the first), for "
                        f"{_thousands(calibration.cost.forwards)} forward passes"),
        ("Error, calibrated", "for all methods over the same requests, those inside what can be "
                              f"reached: {'; '.join(reached) or 'nothing'}"),
        *_knows_prompts(calibration),
    ]  # fmt: skip


def _knows_prompts(calibration: CalibrationResult) -> list[tuple[str, str]]:
    """What prompts left out of the fit said of calibration that knows the prompt."""
    said = [
        f"{one.reward} {number(one.left_out[0])} z by the average curve, {number(one.left_out[1])} "
        "z with the prompt"
        for one in calibration.rewards
        if one.left_out is not None
    ]
    if not said:
        return [("Calibration and prompts", "what a prompt gives is not told from its features")]
    return [
        ("Calibration and prompts", "ridge regression of what each prompt gives on what the model "
                                    "expects of it before drawing; mean error of single samples of "
                                    f"prompts left out of the fit: {'; '.join(said)}"),
    ]  # fmt: skip


def _listed(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))


def _about(method: MethodResult) -> list[str]:
    """Its settings, one to a line, those that belong together by dots: ``sampling.steps: 20``."""
    return [*_lines(method.about), f"time to draw: {number(method.cost.seconds, 0)} s"]


def _lines(settings: Mapping[str, Any], prefix: str = "") -> list[str]:
    lines: list[str] = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            lines += _lines(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            lines.append(f"{prefix}{key}: {_listed(value) or 'none'}")
        else:
            lines.append(f"{prefix}{key}: {'none' if value is None else value}")
    return lines


def _thousands(count: int) -> str:
    return f"{count:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _range(ends: Sequence[float | None]) -> str:
    return " to ".join(number(end, sign=True) for end in ends)


def _list(texts: Iterable[str], name: str) -> str:
    """A list with a class name for its style."""
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f'<ul class="{name}">{items}</ul>'


def _table(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column names its rows."""
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in header)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{_cell(text)}</td>" for text in row[1:])
        + "</tr>"
        for row in rows
    )
    return _scroll(
        caption,
        f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table>",
    )


def _cell(text: str) -> str:
    """A figure's interval may go under it, in one piece."""
    if found := INTERVAL.fullmatch(text):
        return f'{escape(found[1])} <span class="interval">{escape(found[2])}</span>'
    return escape(text)


def _scroll(label: str, content: str) -> str:
    """A part that may be wider than the page, and can then be scrolled by keyboard too."""
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(label)}">'
        f"{content}</div>"
    )


def _figures(pictures: Sequence[Picture], caption: str) -> str:
    shown = "".join(f"<div>{_image(picture)}</div>" for picture in pictures)
    return (
        f'<figure><div class="figures">{shown}</div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _image(picture: Picture) -> str:
    image = f'<img src="{_uri(picture.png)}" alt="{escape(picture.alt)}">'
    if picture.dark is None:
        return image
    dark = f'<source media="(prefers-color-scheme: dark)" srcset="{_uri(picture.dark)}">'
    return f"<picture>{dark}{image}</picture>"


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
