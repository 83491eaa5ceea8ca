"""Reward curves of reinforcement learning: how far runs have come, and whether they still rise."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.ndimage import uniform_filter1d

from ric_diffusion.evaluation.report.labels import Label, beside, spread
from ric_diffusion.evaluation.report.plots import DASHED, LIGHT, Theme, blank_panels, colour_of

SIZE = 8.0, 4.2  # inches
WINDOW = 5  # iterations, of the running mean: that of one batch alone is mostly noise


def curves_figure(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
    levels: Mapping[str, float] | None = None,
    theme: Theme = LIGHT,
) -> Figure:
    """Mean weighted z of what each iteration drew, by the name of the run: iterations (T,) and
    rewards (T,), thin, and their running mean; and ``levels`` to compare them with, by name."""
    figure, (axes,) = blank_panels(1, theme, SIZE)
    axes.set_xlabel("iteration")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("mean weighted reward (z)")
    labels = []
    for i, (name, (steps, rewards)) in enumerate(curves.items()):
        colour = colour_of(theme, i)
        smooth = uniform_filter1d(rewards, WINDOW, mode="nearest")
        axes.plot(steps, rewards, color=colour, linewidth=0.8, alpha=0.4)
        axes.plot(steps, smooth, color=colour, linewidth=2)
        labels.append(Label(text=name, colour=colour, anchors=np.stack([steps, smooth], axis=1)))
    for name, level in (levels or {}).items():
        axes.axhline(level, color=theme.grey, linestyle=DASHED, linewidth=1)
        anchor = np.array([[0.0, level]])
        labels.append(Label(text=name, colour=theme.grey, anchors=anchor))
    texts = beside(axes, labels)
    figure.draw_without_rendering()
    spread(axes, texts)
    return figure
