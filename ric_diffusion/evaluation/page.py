"""``index.html``: one file that needs nothing beside it, for a person to read."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from ric_diffusion.evaluation.findings import (
    findings,
    number,
    percent,
    percent_with_interval,
    with_interval,
)

Metrics = Mapping[str, Any]
TEMPLATE = Path(__file__).with_name("page.html")


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A PNG, what it shows in words, and the PNG for a dark page where there is one."""

    png: bytes
    alt: str
    dark: bytes | None = None


def page(
    metrics: Metrics,
    fronts: Sequence[Picture],
    controls: Sequence[Picture],
    grid: Picture | None,
    texts: Sequence[Sequence[str]] = (),
) -> str:
    """The whole page. Every word that is not ours is escaped. ``texts``: rows of model and prompt,
    preference, sample, where samples are texts."""
    title = f"Evaluation of {metrics['model']}"
    about = (
        f"{_count(len(metrics['models']), 'model')}, {_count(len(metrics['prompts']), 'prompt')}, "
        f"{_count(len(metrics['seeds']), 'seed')} each. Figures in brackets are "
        f"{percent(metrics['bootstrap']['level'])} intervals."
    )
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="lead">{escape(about)}</p>',
        "<h2>What was found</h2>",
        _list(findings(metrics), "findings"),
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
        header = ("Model and prompt", "Preference", "Response")
        caption = "Samples along the preference sweep"
        parts += ["<h2>Samples</h2>", _table(caption, header, texts)]
    parts += ["<h2>Figures</h2>", *_tables(metrics), "<h2>How it was measured</h2>"]
    parts += _method(metrics)
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(title), body="\n".join(parts)
    )


FRONT_CAPTION = (
    "Mean over prompts and seeds at each preference, in z: standard deviations of the training "
    "data, from its mean. Filled marks lie on a model's own front, at hollow ones another of its "
    "points is better in every reward. Bars are intervals. The dashed line is the best that real "
    "training data reaches."
)
CONTROL_CAPTION = (
    "Each reward moved alone, the others left to the model. A slider that does what it says "
    "follows the dashed line. Bands are intervals."
)


def _tables(metrics: Metrics) -> list[str]:
    models = metrics["models"]
    parts = [_models_table(models)]
    if any(model["control"] for model in models):
        parts.append(_control_table(models))
    for model in models:
        parts += [f"<h3>{escape(model['name'])}, point by point</h3>", _points_table(model)]
    return parts


def _models_table(models: Sequence[Metrics]) -> str:
    header = ["model", "hypervolume", f"× {models[0]['name']}", "on or near its front",
              "prompt kept", "diversity", "faults", "forward passes", "per sample"]  # fmt: skip
    rows = [
        [
            model["name"],
            with_interval(model["hypervolume"]),
            with_interval(model["hypervolume_ratio"]) if model["hypervolume_ratio"] else "1",
            f"{model['near_front']['count']} of {model['near_front']['of']}",
            percent_with_interval(model["prompt_kept"]),
            with_interval(model["diversity"], 3),
            f"{sum(model['faults'].values())} of {model['samples']}",
            _thousands(model["cost"]["forwards"]),
            number(model["cost"]["forwards"] / model["samples"], 1),
        ]
        for model in models
    ]
    return _table("All models, same prompts and seeds", header, rows)


def _control_table(models: Sequence[Metrics]) -> str:
    header = ["reward", "model", "requested", "reached", "error, z", "error of a sample, z",
              "saturation", "rank correlation", "the same, per sample"]  # fmt: skip
    rows = [
        [
            sweep["reward"],
            model["name"],
            _range([sweep["requested"][0], sweep["requested"][-1]]),
            _range(sweep["reached"]),
            with_interval(sweep["error"]),
            with_interval(sweep["sample_error"]),
            percent_with_interval(sweep["saturation"]),
            number(sweep["spearman_of_means"], 3),
            number(sweep["spearman_per_sample"], 3),
        ]
        for model in models
        for sweep in model["control"]
    ]
    rows.sort(key=lambda row: row[0])  # the models of one reward beside each other
    return _table("One reward at a time, in z", header, rows)


def _points_table(model: Metrics) -> str:
    first = model["points"][0]
    names, others = list(first["obtained"]), list(first["held_out"])
    weighed = first["preference"] is not None
    header = ["point", *([f"weight of {name}" for name in names] if weighed else [])]
    header += [f"{name}, z" for name in names] + ["on front"] + others + ["prompt kept"]
    header.append("diversity")
    rows = []
    for count, point in enumerate(model["points"], start=1):
        row = [str(count)]
        row += [number(point["preference"].get(name, 0.0)) for name in names] if weighed else []
        row += [with_interval(point["obtained"][name], sign=True) for name in names]
        row.append("yes" if point["on_front"] else "near" if point["near_front"] else "no")
        row += [with_interval(point["held_out"][name]) for name in others]
        row += [percent(point["prompt_kept"]["value"]), number(point["diversity"]["value"], 3)]
        rows.append(row)
    return _table("Means over prompts and seeds", header, rows)


def _method(metrics: Metrics) -> list[str]:
    """Everything one needs to measure it again."""
    boot, rewards = metrics["bootstrap"], metrics["rewards"]
    reference = ", ".join(number(value, 0) for value in metrics["reference"])
    items = [
        ("Rewards", "; ".join(f"{r['name']} ({r['unit']}): {r['scorer']}" for r in rewards)),
        *[("Held out", f"{r['name']} ({r['unit']}): {r['scorer']}") for r in metrics["held_out"]],
        ("z", "; ".join(f"one z of {r['name']} is {number(r['std'], 3)} {r['unit']}, 0 is "
                        f"{number(r['mean'], 3)}" for r in rewards)),
        ("Reference point", f"({reference}) in z for every model: the mean of the training data "
                            "minus two standard deviations in every reward"),
        ("Intervals", f"{percent(boot['level'])}, bootstrap over prompts and seeds, "
                      f"{boot['draws']} draws, seed {boot['seed']}; ratios are paired"),
        ("On or near the front", "no other point of the model is better in every reward by more "
                                 "than 2 % of that reward's range over the sweep"),
        ("Error", "mean of |mean obtained − requested| over the requests inside the range that the "
                  "models of this page reach; of a sample: the same for single samples"),
        *_calibration(metrics),
        ("Saturation", "share of the requested range outside the reached one"),
        ("Prompt kept", "how often the model without adapter explains a sample better by its own "
                        "prompt than by another"),
        ("Diversity", "mean cosine distance between the samples of a prompt"),
        ("Faulty samples", "left out of all scores, and counted"),
        ("Forward passes", "one sample through the network counts 1; the cost of drawing, without "
                           "judging what was drawn"),
        ("Seeds", f"{_seeds(metrics)} for the first prompt, and so on: no two share one"),
        *[(model["name"], _about(model)) for model in metrics["models"]],
        *[(name, version) for name, version in metrics["versions"].items()],
    ]  # fmt: skip
    listed = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in items)
    prompts = _list(metrics["prompts"], "prompts")
    count = _count(len(metrics["prompts"]), "prompt")
    return [
        f"<dl>{listed}</dl>",
        f"<details><summary>The {count}</summary>{prompts}</details>",
    ]


def _calibration(metrics: Metrics) -> list[tuple[str, str]]:
    """What the sliders' curves were fitted on, and where they end."""
    calibration = metrics["calibration"]
    if calibration is None:
        return []
    prompts = _count(len(calibration["prompts"]), "prompt")
    if not set(calibration["prompts"]) & set(metrics["prompts"]):
        prompts += " that the report does not use"
    reached = [f"{one['reward']} {_range(one['reach'])} z" for one in calibration["rewards"]]
    return [
        ("Calibration", "isotonic regression through the means of each reward moved alone, on "
                        f"{prompts}, and seeds that it does not use ({_seeds(calibration)} for "
                        "the first), for "
                        f"{_thousands(calibration['cost']['forwards'])} forward passes"),
        ("Error, calibrated", "for all models over the same requests, those inside what can be "
                              f"reached: {'; '.join(reached) or 'nothing'}"),
    ]  # fmt: skip


def _seeds(drawn: Metrics) -> str:
    """Those of the first prompt, of a report or of its calibration."""
    return ", ".join(map(str, drawn["seeds"]))


def _about(model: Metrics) -> str:
    said = [f"{key}: {value if isinstance(value, str) else json.dumps(value)}"
            for key, value in model["about"].items()]  # fmt: skip
    return "; ".join([*said, f"{number(model['cost']['seconds'], 0)} s of drawing"])


def _thousands(count: int) -> str:
    return f"{count:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _range(ends: Sequence[float | None]) -> str:
    return " to ".join(number(end, sign=True) for end in ends)


def _count(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def _list(texts: Iterable[str], kind: str) -> str:
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f'<ul class="{kind}">{items}</ul>'


def _table(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column names its rows."""
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in header)
    body = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{escape(text)}</td>" for text in row[1:])
        + "</tr>"
        for row in rows
    )
    return _scroll(
        caption,
        f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table>",
    )


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
