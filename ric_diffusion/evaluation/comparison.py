"""Methods beside each other, and the bars that the first of them has to reach: Markdown tables of a
``metrics.json`` whose models also say what their training cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ric_diffusion.evaluation.findings import (
    Figure,
    errors_of,
    number,
    percent_with_interval,
    with_interval,
)

Metrics = Mapping[str, Any]
NOT_RUN = "not run"


@dataclass(frozen=True, kw_only=True)
class Bar:
    """``what`` was ``found`` and what it has to reach, as they are printed; ``met`` is None where
    it was not measured."""

    what: str
    found: str
    bar: str
    met: bool | None


def model_of(metrics: Metrics, name: str) -> Mapping[str, Any] | None:
    """The model of this name, if it is among those measured."""
    return next((model for model in metrics["models"] if model["name"] == name), None)


def beats(metrics: Metrics, name: str, least: float) -> Bar:
    """How many times the hypervolume of the model ``name`` the first one covers."""
    what, bar = f"hypervolume, {metrics['models'][0]['name']} / {name}", f"≥ {least:g}"
    model = model_of(metrics, name)
    if model is None:
        return Bar(what=what, found=NOT_RUN, bar=bar, met=None)
    times = inverse(model["hypervolume_ratio"])
    met = times["value"] is not None and times["value"] >= least
    return Bar(what=what, found=with_interval(times), bar=bar, met=met)


def apart(metrics: Metrics, name: str) -> list[Bar]:
    """Whether the first model's hypervolume can be told from that of ``name``: by the interval of
    their ratio, and by their own intervals, most of whose width is the prompts that both share."""
    first, model = metrics["models"][0], model_of(metrics, name)
    pair = f"{first['name']} and {name}"
    asked = [
        (f"interval of the ratio, {pair}, paired", "above 1"),
        (f"intervals of the hypervolume, {pair}", "apart"),
    ]
    if model is None:
        return [Bar(what=what, found=NOT_RUN, bar=bar, met=None) for what, bar in asked]
    low = inverse(model["hypervolume_ratio"])["low"]
    own = [one["hypervolume"] for one in (first, model)]
    found = [number(low), " and ".join(with_interval(one) for one in own)]
    met = [low is not None and low > 1, own[0]["low"] > own[1]["high"]]
    rows = zip(asked, found, met, strict=True)
    return [Bar(what=what, found=text, bar=bar, met=ok) for (what, bar), text, ok in rows]


def inverse(ratio: Figure) -> dict[str, float | None]:
    """1 / ratio with its interval, whose ends change places; to nothing at all, infinite."""

    def flip(value: float | None) -> float | None:
        return None if value is None else math.inf if value == 0 else 1 / value

    return {
        "value": flip(ratio["value"]),
        "low": flip(ratio["high"]),
        "high": flip(ratio["low"]),
    }


def cheaper(metrics: Metrics, name: str, most: float) -> Bar:
    """The forward passes of the first model's training as a share of those of ``name``."""
    first, other = metrics["models"][0], model_of(metrics, name)
    what, bar = f"forward passes of training, {first['name']} / {name}", f"≤ {most:.2f}"
    if other is None:
        return Bar(what=what, found=NOT_RUN, bar=bar, met=None)
    share = first["training_cost"]["forwards"] / other["training_cost"]["forwards"]
    return Bar(what=what, found=number(share, 3), bar=bar, met=share <= most)


def near(metrics: Metrics, share: float) -> Bar:
    """How many of the first model's preferences lie on its front or within 2 % of it."""
    first = metrics["models"][0]
    count, of = first["near_front"]["count"], first["near_front"]["of"]
    least = math.ceil(share * of - 1e-9)
    return Bar(
        what=f"preferences of {first['name']} on its front or within 2 % of it",
        found=f"{count} of {of}",
        bar=f"≥ {least} of {of}",
        met=count >= least,
    )


def calibration(metrics: Metrics, *, halved: float, most: float) -> list[Bar]:
    """For all rewards together and for each: the error of the sliders, and how it compares to that
    without."""
    found = metrics["calibration"]
    bars = [
        Bar(
            what=f"error of the {name} slider, calibrated, z",
            found="cannot be calibrated",
            bar=f"≤ {most:g}",
            met=False,
        )
        for name in found["uncalibrated"]
    ]
    errors = [("all sliders", found["error"], found["error_ratio"])] if found["rewards"] else []
    for one in found["rewards"]:
        _, error = errors_of(metrics, one["reward"])
        errors.append((f"the {one['reward']} slider", error, one["error_ratio"]))
    for slider, error, ratio in errors:
        for what, figure, bar in ((", z", error, most), (" / not", ratio, halved)):
            value = figure["value"]
            bars.append(
                Bar(
                    what=f"error of {slider}, calibrated{what}",
                    found=with_interval(figure),
                    bar=f"≤ {bar:g}",
                    met=value is not None and value <= bar,
                )
            )
    return bars


def control(metrics: Metrics, least: float) -> list[Bar]:
    """For each reward that the first model's sliders moved alone: do the means follow?"""
    bars = []
    for sweep in metrics["models"][0]["control"]:
        found = sweep["spearman_of_means"]
        bars.append(
            Bar(
                what=f"control, {sweep['reward']}: Spearman of the means",
                found=number(found, 3),
                bar=f"≥ {least:g}",
                met=found is not None and found >= least,
            )
        )
    return bars


def fluent(metrics: Metrics, name: str, most: float) -> Bar:
    """How many nats a token the middle of the first model's sweep is less fluent than ``name``,
    a model without preferences."""
    first, other = metrics["models"][0], model_of(metrics, name)
    what = f"fluency in the middle of the sweep, {first['name']} - {name}, nat"
    if other is None:
        return Bar(what=what, found=NOT_RUN, bar=f"≥ {number(-most)}", met=None)
    middle = first["points"][len(first["points"]) // 2]
    values = [point["held_out"]["fluency"]["value"] for point in (middle, other["points"][0])]
    gap = None if None in values else values[0] - values[1]
    return Bar(
        what=what,
        found=number(gap),
        bar=f"≥ {number(-most)}",
        met=gap is not None and gap >= -most,
    )


def methods_table(metrics: Metrics) -> str:
    """A row for each model: what it reaches, what its training cost, what a picture of it costs,
    and what became of the rest, with the mean of each held-out scorer over the sweep."""
    held_out = [scorer["name"] for scorer in metrics["held_out"]]
    header = ["method", "hypervolume", f"× {metrics['models'][0]['name']}",
              "training, million forwards", "training, thousand scored", "training, minutes",
              "a sample, forwards", "a sample, scored", "diversity", "prompt kept",
              "near its front", *held_out]  # fmt: skip
    rows = [
        [
            model["name"],
            with_interval(model["hypervolume"]),
            with_interval(model["hypervolume_ratio"]) if model["hypervolume_ratio"] else "1",
            number(model["training_cost"]["forwards"] / 1e6, 3),
            number(model["training_cost"]["scored"] / 1e3, 1),
            number(model["training_cost"]["seconds"] / 60, 0),
            number(model["cost"]["forwards"] / model["samples"], 0),
            number(model["cost"]["scored"] / model["samples"], 0),
            with_interval(model["diversity"], 3),
            percent_with_interval(model["prompt_kept"]),
            f"{model['near_front']['count']} of {model['near_front']['of']}",
            *(number(_mean_held_out(model, name)) for name in held_out),
        ]
        for model in metrics["models"]
    ]
    return markdown(header, rows)


def _mean_held_out(model: Mapping[str, Any], name: str) -> float | None:
    """Over the points of the sweep that have a value."""
    values = [point["held_out"][name]["value"] for point in model["points"]]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def bars_table(bars: Sequence[Bar]) -> str:
    said = {True: "met", False: "missed", None: ""}
    return markdown(
        ["what", "value", "bar", ""],
        [[bar.what, bar.found, bar.bar, said[bar.met]] for bar in bars],
    )


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
