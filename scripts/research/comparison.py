"""Methods beside each other, and the bars that the first of them has to reach: Markdown tables of a
result whose methods also say what their training cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ric_diffusion.evaluation.report.schema import (
    ControlResult,
    Estimate,
    EvaluationResult,
    MethodResult,
)
from ric_diffusion.evaluation.report.text import number, percent_with_interval, with_interval
from ric_diffusion.models.cost import Cost

NOT_RUN = "not run"


@dataclass(frozen=True, kw_only=True)
class Bar:
    """``what`` was ``found`` and what it has to reach, as they are printed; ``met`` is None where
    it was not measured."""

    what: str
    found: str
    bar: str
    met: bool | None


def training_of(method: MethodResult) -> Cost:
    """What training a method cost; nothing where there was none."""
    return method.training_cost or Cost()


def beats(result: EvaluationResult, name: str, least: float) -> Bar:
    """How many times the hypervolume of the method ``name`` the first one covers."""
    what, bar = f"hypervolume, {result.methods[0].name} / {name}", f"≥ {least:g}"
    method = result.method(name)
    if method is None:
        return Bar(what=what, found=NOT_RUN, bar=bar, met=None)
    times = inverse(_ratio(method))
    met = times.value is not None and times.value >= least
    return Bar(what=what, found=with_interval(times), bar=bar, met=met)


def apart(result: EvaluationResult, name: str) -> list[Bar]:
    """Whether the first method's hypervolume can be told from that of ``name``: by the interval of
    their ratio, and by their own intervals, most of whose width is the prompts that both have."""
    first, method = result.methods[0], result.method(name)
    pair = f"{first.name} and {name}"
    asked = [
        (f"interval of the ratio, {pair}, paired", "above 1"),
        (f"intervals of the hypervolume, {pair}", "apart"),
    ]
    if method is None:
        return [Bar(what=what, found=NOT_RUN, bar=bar, met=None) for what, bar in asked]
    low = inverse(_ratio(method)).low
    own, other = first.hypervolume, method.hypervolume
    found = [number(low), f"{with_interval(own)} and {with_interval(other)}"]
    met = [
        low is not None and low > 1,
        own.low is not None and other.high is not None and own.low > other.high,
    ]
    rows = zip(asked, found, met, strict=True)
    return [Bar(what=what, found=text, bar=bar, met=ok) for (what, bar), text, ok in rows]


def _ratio(method: MethodResult) -> Estimate:
    """A method's hypervolume over the first one's; the first method's own is 1."""
    return method.hypervolume_ratio or Estimate(value=1.0, low=1.0, high=1.0)


def inverse(ratio: Estimate) -> Estimate:
    """1 / ratio with its interval, whose ends change places; to nothing at all, infinite."""

    def flip(value: float | None) -> float | None:
        return None if value is None else math.inf if value == 0 else 1 / value

    return Estimate(value=flip(ratio.value), low=flip(ratio.high), high=flip(ratio.low))


def cheaper(result: EvaluationResult, name: str, most: float) -> Bar:
    """The forward passes of the first method's training over those of ``name``."""
    first, other = result.methods[0], result.method(name)
    what, bar = f"forward passes of training, {first.name} / {name}", f"≤ {most:.2f}"
    if other is None:
        return Bar(what=what, found=NOT_RUN, bar=bar, met=None)
    ratio = training_of(first).forwards / training_of(other).forwards
    return Bar(what=what, found=number(ratio, 3), bar=bar, met=ratio <= most)


def keeps(result: EvaluationResult, base: str, least: float) -> Bar:
    """What the first method keeps of the prompt R-precision of the method ``base``."""
    first, other = result.methods[0].prompt_r_precision.value, result.method(base)
    what, bar = f"prompt R-precision, {result.methods[0].name} / {base}", f"≥ {least:g}"
    if other is None:
        return Bar(what=what, found=NOT_RUN, bar=bar, met=None)
    of_base = other.prompt_r_precision.value
    kept = None if first is None or not of_base else first / of_base
    return Bar(what=what, found=number(kept, 3), bar=bar, met=kept is not None and kept >= least)


def follows(result: EvaluationResult, name: str, least: float) -> list[Bar]:
    """For each reward that the method ``name`` moved alone: do its means follow?"""
    method = result.method(name)
    if method is None:
        return [Bar(what=f"control, {name}", found=NOT_RUN, bar=f"≥ {least:g}", met=None)]
    return _control(method, name, least)


def span_of(sweep: ControlResult) -> float | None:
    """How far the means go from the lowest request to the highest, in z."""
    first, last = sweep.obtained[0].value, sweep.obtained[-1].value
    return None if first is None or last is None else last - first


def near(result: EvaluationResult, fraction: float) -> Bar:
    """How many of the first method's preferences lie on its front or within 2 % of it."""
    first = result.methods[0]
    count, total = first.near_front.count, first.near_front.total
    least = math.ceil(fraction * total - 1e-9)
    return Bar(
        what=f"preferences of {first.name} on its front or within 2 % of it",
        found=f"{count} of {total}",
        bar=f"≥ {least} of {total}",
        met=count >= least,
    )


def calibration(result: EvaluationResult, *, halved: float, most: float) -> list[Bar]:
    """For all rewards together and for each: the error of the sliders, and how it compares to that
    without. None without a calibration."""
    found = result.calibration
    if found is None:
        return []
    bars = [
        Bar(
            what=f"error of the {name} slider, calibrated, z",
            found="cannot be calibrated",
            bar=f"≤ {most:g}",
            met=False,
        )
        for name in found.uncalibrated
    ]
    errors = []
    if found.error is not None and found.error_ratio is not None:
        errors.append(("all sliders", found.error, found.error_ratio))
    for one in found.rewards:
        _, error = result.calibration_errors(one.reward)
        errors.append((f"the {one.reward} slider", error, one.error_ratio))
    for slider, error, ratio in errors:
        for what, figure, bar in ((", z", error, most), (" / not", ratio, halved)):
            bars.append(
                Bar(
                    what=f"error of {slider}, calibrated{what}",
                    found=with_interval(figure),
                    bar=f"≤ {bar:g}",
                    met=figure.value is not None and figure.value <= bar,
                )
            )
    return bars


def control(result: EvaluationResult, least: float) -> list[Bar]:
    """For each reward that the first method's sliders moved alone: do the means follow?"""
    return _control(result.methods[0], "control", least)


def _control(method: MethodResult, title: str, least: float) -> list[Bar]:
    return [
        Bar(
            what=f"{title}, {sweep.reward}: Spearman of the means",
            found=number(sweep.spearman_of_means, 3),
            bar=f"≥ {least:g}",
            met=sweep.spearman_of_means is not None and sweep.spearman_of_means >= least,
        )
        for sweep in method.control
    ]


def fluent(result: EvaluationResult, name: str, most: float) -> Bar:
    """How many nats a token the middle of the first method's sweep is less fluent than ``name``,
    a method without preferences."""
    first, other = result.methods[0], result.method(name)
    what = f"fluency in the middle of the sweep, {first.name} - {name}, nat"
    if other is None:
        return Bar(what=what, found=NOT_RUN, bar=f"≥ {number(-most)}", met=None)
    middle = first.points[len(first.points) // 2]
    ours, theirs = (point.held_out["fluency"].value for point in (middle, other.points[0]))
    gap = None if ours is None or theirs is None else ours - theirs
    return Bar(
        what=what,
        found=number(gap),
        bar=f"≥ {number(-most)}",
        met=gap is not None and gap >= -most,
    )


def methods_table(
    result: EvaluationResult, hypervolumes: Mapping[str, Sequence[float | None]]
) -> str:
    """A row for each method: what it reaches, and what each of its trainings does by itself; what a
    training cost, what a sample costs, and what became of the rest, with the mean of each held-out
    scorer over the sweep. ``hypervolumes``: of the trainings, by the method's name."""
    held_out = [scorer.name for scorer in result.held_out]
    header = ["method", "hypervolume", "of each training", f"× {result.methods[0].name}",
              "training, million forwards", "training, thousand scored", "training, minutes",
              "a sample, forwards", "a sample, scored", "diversity", "prompt R-precision",
              "near its front", *held_out]  # fmt: skip
    rows = [
        [
            method.name,
            with_interval(method.hypervolume),
            _each(hypervolumes[method.name]),
            with_interval(method.hypervolume_ratio) if method.hypervolume_ratio else "1",
            number(training_of(method).forwards / 1e6, 3),
            number(training_of(method).scored / 1e3, 1),
            number(training_of(method).seconds / 60, 0),
            number(method.cost.forwards / method.samples, 0),
            number(method.cost.scored / method.samples, 0),
            with_interval(method.diversity, 3),
            percent_with_interval(method.prompt_r_precision),
            f"{method.near_front.count} of {method.near_front.total}",
            *(number(_mean_held_out(method, name)) for name in held_out),
        ]
        for method in result.methods
    ]
    return markdown(header, rows)


def _each(values: Sequence[float | None]) -> str:
    """Nothing of a single one, whose figure stands before it."""
    return ", ".join(map(number, values)) if len(values) > 1 else ""


def _mean_held_out(method: MethodResult, name: str) -> float | None:
    """Over the points of the sweep that have a value."""
    values = [point.held_out[name].value for point in method.points]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def conditioning_table(result: EvaluationResult, parameters: Mapping[str, int]) -> str:
    """A row for each of these methods, with what it trained: what comes of every way to tell a
    model the rewards."""
    rewards = [reward.name for reward in result.rewards]
    header = ["method", "trained, million parameters", "hypervolume"]
    for reward in rewards:
        header += [f"{reward}: Spearman of the means", f"{reward}: span, z"]
    rows = []
    for name, count in parameters.items():
        method = result.method(name)
        assert method is not None
        row = [name, number(count / 1e6), with_interval(method.hypervolume)]
        for reward in rewards:
            sweep = method.control_of(reward)
            assert sweep is not None
            row += [number(sweep.spearman_of_means, 3), number(span_of(sweep))]
        rows.append(row)
    return markdown(header, rows)


def bars_table(bars: Sequence[Bar]) -> str:
    verdicts = {True: "met", False: "missed", None: ""}
    return markdown(
        ["what", "value", "bar", ""],
        [[bar.what, bar.found, bar.bar, verdicts[bar.met]] for bar in bars],
    )


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
