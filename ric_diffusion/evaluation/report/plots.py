"""The plots of a report, drawn from its result alone."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ric_diffusion.evaluation.metrics import Array
from ric_diffusion.evaluation.report.labels import Label, along, beside, place, spread
from ric_diffusion.evaluation.report.schema import Estimate, EvaluationResult, MethodResult

DPI = 160
PANEL = 5.6, 4.9  # inches
MARKERS = "osD^vPX*"
DASHED = (0, (4, 3))
CLEAR = 3  # so many methods can show their intervals boldly
LEGEND = 2.8  # inches
DIRECT = 5  # so many can be named beside their lines; more are in a legend


@dataclass(frozen=True, kw_only=True)
class Theme:
    """Colours of a figure; those of the methods can be told apart by the colour-blind, after Okabe
    & Ito (2008)."""

    paper: str
    ink: str
    grey: str
    faint: str
    colours: tuple[str, ...]


LIGHT = Theme(
    paper="#ffffff",
    ink="#1c2026",
    grey="#6e7680",
    faint="#e3e6ea",
    colours=(
        "#0072b2", "#d55e00", "#00855f", "#b5559a", "#b07d00", "#3f97cf", "#7a4b2a", "#555b63",
        "#10106b", "#7a0010", "#2a2af0", "#8a5cf0",
    ),
)  # fmt: skip
DARK = Theme(
    paper="#15181d",
    ink="#e8eaed",
    grey="#9aa2ad",
    faint="#2c3138",
    colours=(
        "#56b4e9", "#ff8b3d", "#2ecc9b", "#e48bc6", "#f0c419", "#a5c8f0", "#c99a74", "#c3c8cf",
        "#6d5ff5", "#d8415a", "#2a9db8", "#c0f0a8",
    ),
)  # fmt: skip


def png(figure: Figure) -> bytes:
    """A figure as a PNG file, the same bytes for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor=figure.get_facecolor())
    return buffer.getvalue()


def reward_pairs(result: EvaluationResult) -> list[tuple[str, str]]:
    """The rewards in pairs, one panel of the front each; none for a single reward."""
    return list(itertools.combinations([reward.name for reward in result.rewards], 2))


def front_figure(
    result: EvaluationResult, pairs: Sequence[tuple[str, str]], theme: Theme = LIGHT
) -> Figure:
    """Mean obtained z of two rewards against each other, a panel for each of the pairs."""
    figure, panels = blank_panels(len(pairs), theme)
    for axes, pair in zip(panels, pairs, strict=True):
        _front_lines(axes, result, pair, theme)
    if len(result.methods) > DIRECT:
        _legend(figure, range(len(result.methods)), result, theme)
    figure.draw_without_rendering()
    for axes, pair in zip(panels, pairs, strict=True):
        curves = [sweep_means(method, pair)[:, 0] for method in result.methods]
        drawn = [along(curve) for curve in curves]
        labels = [
            Label(text=method.name, colour=colour_of(theme, i), anchors=_ends_first(curves[i]))
            for i, method in enumerate(result.methods)
            if np.isfinite(curves[i]).all(axis=1).any()
        ]
        if len(result.methods) == 1:
            labels = _corner_labels(result.methods[0], curves[0], theme)
        elif len(result.methods) > DIRECT:
            labels = []
        if len(result.rewards) == 2 and len(result.training_front) > 1:
            real = training_front(result)
            drawn.append(along(real))
            labels.append(Label(text="training data", colour=theme.grey, anchors=real))
        place(axes, labels, np.concatenate(drawn), paper=theme.paper)
    return figure


def _front_lines(axes: Axes, result: EvaluationResult, pair: tuple[str, str], theme: Theme) -> None:
    axes.set_xlabel(f"{pair[0]}, mean obtained (z)")
    axes.set_ylabel(f"{pair[1]}, mean obtained (z)")
    if len(result.rewards) == 2 and len(result.training_front) > 1:
        axes.plot(*training_front(result).T, color=theme.grey, linestyle=DASHED, linewidth=1)
    for i, method in enumerate(result.methods):
        colour, marker = colour_of(theme, i), marker_of(i)
        x, y = sweep_means(method, pair).transpose(2, 1, 0)  # each (3, P): value, low, high
        axes.plot(x[0], y[0], color=colour, linewidth=1.2, alpha=0.55)
        axes.errorbar(
            x[0], y[0], xerr=_bars(x), yerr=_bars(y), fmt="none", ecolor=colour,
            alpha=0.4 if len(result.methods) <= CLEAR else 0.2,
        )  # fmt: skip
        on = np.array([point.on_front for point in method.points])
        for mask, face in ((on, colour), (~on, theme.paper)):
            axes.plot(
                x[0, mask], y[0, mask], marker, color=colour, markerfacecolor=face, markersize=6
            )  # fmt: skip
    axes.margins(0.1)


def sweep_means(method: MethodResult, names: Sequence[str]) -> Array:
    """Mean obtained z of these rewards over the preference sweep: (P, 3, len(names)), with the
    ends of the interval."""
    points = [[with_ends(point.obtained[name]) for name in names] for point in method.points]
    return np.array(points).transpose(0, 2, 1)


def training_front(result: EvaluationResult) -> Array:
    """The front of the training data for two rewards, (F, 2), from left to right."""
    points = np.array(result.training_front)
    return points[np.argsort(points[:, 0])]


def _corner_labels(method: MethodResult, curve: Array, theme: Theme) -> list[Label]:
    """At the points of a single method where one reward has all the weight: which one."""
    return [
        Label(text=f"only {name}", colour=theme.ink, anchors=curve[p : p + 1])
        for p, point in enumerate(method.points)
        for name, weight in (point.preference or {}).items()
        if weight == 1 and np.isfinite(curve[p]).all()
    ]


def _ends_first(curve: Array) -> Array:
    """The known points of a curve (P, 2), its ends before its middle."""
    known = curve[np.isfinite(curve).all(axis=1)]
    middle = (len(known) - 1) / 2
    return known[np.argsort(-np.abs(np.arange(len(known)) - middle), kind="stable")]


def control_figure(result: EvaluationResult, names: Sequence[str], theme: Theme = LIGHT) -> Figure:
    """Requested z against mean obtained z, a panel for each of the rewards ``names``."""
    figure, panels = blank_panels(len(names), theme)
    curves = [
        _control_lines(axes, result, name, theme) for axes, name in zip(panels, names, strict=True)
    ]
    swept = [i for i, method in enumerate(result.methods) if method.control]
    if crowded := len(swept) > DIRECT:
        _legend(figure, swept, result, theme)
    texts = [
        beside(axes, found if len(result.methods) > 1 and not crowded else [])
        for axes, found in zip(panels, curves, strict=True)
    ]
    figure.draw_without_rendering()
    for axes, found, written in zip(panels, curves, texts, strict=True):
        spread(axes, written)
        diagonal = np.linspace(*axes.get_xlim(), 50)[:, None].repeat(2, axis=1)
        label = Label(text="as requested", colour=theme.grey, anchors=diagonal[[44, 40, 5, 9]])
        drawn = np.concatenate([diagonal, *(along(one.anchors) for one in found)])
        place(axes, [label], drawn, paper=theme.paper)
    return figure


def _control_lines(axes: Axes, result: EvaluationResult, name: str, theme: Theme) -> list[Label]:
    """Draw the methods' lines; the label of each, anchored to its points."""
    axes.set_xlabel(f"{name}, requested (z)")
    axes.set_ylabel(f"{name}, mean obtained (z)")
    swept = [
        (i, method.name, sweep)
        for i, method in enumerate(result.methods)
        if (sweep := method.control_of(name))
    ]
    found = []
    for i, label, sweep in swept:
        colour, x = colour_of(theme, i), np.array(sweep.requested)
        value, low, high = np.array([with_ends(one) for one in sweep.obtained]).T
        band = 0.18 if len(swept) <= CLEAR else 0.08
        axes.fill_between(x, low, high, color=colour, alpha=band, linewidth=0)
        axes.plot(x, value, color=colour, marker=marker_of(i), markersize=5)
        known = np.isfinite(value)
        if known.any():
            curve = np.stack([x, value], axis=1)[known]
            found.append(Label(text=label, colour=colour, anchors=curve))
    ends = np.array([axes.get_xlim(), axes.get_ylim()])
    low, high = ends.min(), ends.max()
    axes.plot([low, high], [low, high], color=theme.grey, linestyle=DASHED, linewidth=1)
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    return found


def _legend(figure: Figure, numbers: Sequence[int], result: EvaluationResult, theme: Theme) -> None:
    """Name the methods of these numbers, right of the panels, for which the figure is widened."""
    figure.set_figwidth(figure.get_figwidth() + LEGEND)
    lines = [Line2D([], [], color=colour_of(theme, i), marker=marker_of(i)) for i in numbers]
    names = [result.methods[i].name for i in numbers]
    legend = figure.legend(
        lines, names, loc="outside right upper", frameon=False, labelcolor=theme.ink
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def blank_panels(
    count: int, theme: Theme, size: tuple[float, float] = PANEL
) -> tuple[Figure, list[Axes]]:
    """A figure with ``count`` panels of ``size`` in inches, at most three beside each other."""
    columns = min(count, 3)
    rows = -(-count // columns)
    figure = Figure(
        figsize=(size[0] * columns, size[1] * rows),
        dpi=DPI,
        facecolor=theme.paper,
        layout="constrained",
    )
    FigureCanvasAgg(figure)
    panels = [figure.add_subplot(rows, columns, i + 1, facecolor=theme.paper) for i in range(count)]
    for axes in panels:
        axes.grid(color=theme.faint, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(colors=theme.grey, labelsize=10)
        axes.xaxis.label.set(color=theme.ink, size=11)
        axes.yaxis.label.set(color=theme.ink, size=11)
        for side, spine in axes.spines.items():
            spine.set(color=theme.grey, visible=side in ("left", "bottom"))
    return figure, panels


def colour_of(theme: Theme, number: int) -> str:
    return theme.colours[number % len(theme.colours)]


def marker_of(number: int) -> str:
    """Another one on each round through the colours."""
    return MARKERS[(number + number // len(LIGHT.colours)) % len(MARKERS)]


def with_ends(figure: Estimate) -> list[float]:
    """value, low and high; NaN where there is none."""
    numbers = (figure.value, figure.low, figure.high)
    return [np.nan if number is None else number for number in numbers]


def _bars(three: Array) -> Array:
    """value, low, high (3, P) → lengths of the error bars below and above, (2, P)."""
    return np.maximum([three[0] - three[1], three[2] - three[0]], 0)
