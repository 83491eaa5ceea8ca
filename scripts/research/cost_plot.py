"""What methods reach against what their training cost, drawn from a result whose methods say what
theirs did."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import isotonic_regression

from comparison import training_of
from ric_diffusion.evaluation.report.labels import Label, along, place
from ric_diffusion.evaluation.report.plots import (
    LIGHT,
    Theme,
    blank_panels,
    colour_of,
    marker_of,
    with_ends,
)
from ric_diffusion.evaluation.report.schema import EvaluationResult

SIZE = 8.0, 5.0  # inches
MILLION = 1e6
MARK = 8.0  # size of a mark, points
APART = 1.08  # so much that methods of equal cost don't hide each other
STEPS = (1, 2, 5)  # of the marks on the axis of costs, in each decade


def cost_figure(result: EvaluationResult, names: Sequence[str], theme: Theme = LIGHT) -> Figure:
    """Hypervolume with its interval against the forward passes that training took, on a log scale.

    Shown are the methods ``names``; those that need no training stand left of a line.
    """
    shown = [(i, method) for i, method in enumerate(result.methods) if method.name in names]
    spent = np.array([training_of(method).forwards for _, method in shown]) / MILLION
    least, most = cost_range(spent)
    free = least / 2.8  # where there was no training
    figure, (axes,) = blank_panels(1, theme, SIZE)
    axes.set_xscale("log")
    axes.set_xlim(free / 1.6, most * 2.2)
    axes.set_xticks([free, *marks(least, most)])
    axes.set_xticks([], minor=True)
    axes.set_xticklabels(["none", *(f"{mark:g}" for mark in marks(least, most))])
    axes.axvline(least / 1.7, color=theme.faint, linewidth=2)
    axes.set_xlabel("cost of training, million forward passes")
    axes.set_ylabel("hypervolume")
    labels, drawn, marked = [], [], []
    places = beside_each_other(np.where(spent > 0, spent, free))
    for (i, method), x in zip(shown, places.tolist(), strict=True):
        colour = colour_of(theme, i)
        value, low, high = with_ends(method.hypervolume)
        axes.vlines(x, low, high, color=colour, alpha=0.5, linewidth=2)
        axes.plot(x, value, marker_of(i), color=colour, markersize=MARK)
        ends = np.array([[x, value], [x, high], [x, low]])
        labels.append(Label(text=method.name, colour=colour, anchors=ends))
        drawn.append(along(ends[[2, 0, 1]]))
        marked.append(ends[0])
    axes.margins(y=0.12)
    figure.draw_without_rendering()
    place(axes, labels, np.concatenate([*drawn, rims(axes, np.array(marked))]), paper=theme.paper)
    return figure


def rims(axes: Axes, marked: np.ndarray) -> np.ndarray:
    """Points around the marks at ``marked`` (N, 2), for labels to keep away from: (16 N, 2)."""
    turn = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    radius = MARK / 2 * axes.figure.dpi / 72  # pixels
    around = radius * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    pixels = axes.transData.transform(marked)[:, None] + around
    return axes.transData.inverted().transform(pixels.reshape(-1, 2))


def cost_range(spent: np.ndarray) -> tuple[float, float]:
    """The lowest and the highest of the costs (N,) that are not 0."""
    paid = spent[spent > 0]
    return (float(paid.min()), float(paid.max())) if len(paid) else (1.0, 1.0)


def beside_each_other(places: np.ndarray) -> np.ndarray:
    """Places (N,) on a log scale, moved as little as leaves every two of them a factor apart; of
    equal ones the first stays left.

    Least squares under x_(k+1) - x_k >= step is isotonic regression of x_k - k step.
    """
    order = np.argsort(places, kind="stable")
    steps = np.log(APART) * np.arange(len(places))
    found = np.empty_like(places)
    found[order] = np.exp(isotonic_regression(np.log(places[order]) - steps).x + steps)
    return found


def marks(least: float, most: float) -> list[float]:
    """1, 2, 5, 10, 20 … from a little below the one end to a little above the other."""
    low, high = least / 1.4, most * 2
    decades = range(int(np.floor(np.log10(low))), int(np.floor(np.log10(high))) + 1)
    every = [step * 10.0**decade for decade in decades for step in STEPS]
    return [mark for mark in every if low <= mark <= high]
