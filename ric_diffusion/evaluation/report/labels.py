"""Direct labels: names beside what they name, clear of what is drawn and of each other."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from ric_diffusion.evaluation.metrics import Array

GAP = 9.0  # pixels between an anchor and its label, at 100 dpi
# In the order they are tried: right, above, left, below, then the corners.
DIRECTIONS = [(1, 0), (0, 1), (-1, 0), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1)]


@dataclass(frozen=True, kw_only=True)
class Label:
    """A text that may stand beside any of its anchors (K, 2), in data coordinates, the first of
    them best."""

    text: str
    colour: str
    anchors: Array


def place(axes: Axes, labels: Sequence[Label], drawn: Array, *, paper: str) -> None:
    """Write the labels where they hide the fewest of the points ``drawn`` (M, 2), one after the
    other. The figure's layout must be final."""
    figure = axes.figure
    assert isinstance(figure.canvas, FigureCanvasAgg)
    renderer = figure.canvas.get_renderer()
    gap = GAP * figure.dpi / 100
    points = axes.transData.transform(drawn[np.isfinite(drawn).all(axis=1)])
    taken: list[Bbox] = []
    for label in labels:
        text = axes.text(0, 0, label.text, color=label.colour, ha="center", va="center",
                         parse_math=False)  # fmt: skip
        text.set_path_effects([withStroke(linewidth=2.5, foreground=paper)])
        text.set_in_layout(False)
        size = text.get_window_extent(renderer)
        best, least = None, np.inf
        anchors = axes.transData.transform(label.anchors)
        for number, (anchor, (dx, dy)) in enumerate(itertools.product(anchors, DIRECTIONS)):
            x = anchor[0] + dx * (size.width / 2 + gap)
            y = anchor[1] + dy * (size.height / 2 + gap)
            box = Bbox.from_bounds(x - size.width / 2, y - size.height / 2, *size.size)
            overlaps = sum(box.overlaps(other) for other in taken)
            bad = _hidden(box, points) + 50 * overlaps + 200 * _outside(box, axes.bbox)
            cost = bad + 0.01 * number  # of equals, the first
            if cost < least:
                best, least = (x, y, box), cost
        assert best is not None
        x, y = axes.transData.inverted().transform(best[:2])
        text.set_position((x, y))
        taken.append(best[2])


def _hidden(box: Bbox, points: Array) -> int:
    """How many of the points (M, 2) the box covers."""
    return int(((points >= box.min) & (points <= box.max)).all(axis=1).sum())


def _outside(box: Bbox, frame: Bbox) -> bool:
    return bool(np.any(box.min < frame.min) or np.any(box.max > frame.max))


def along(points: Array, steps: int = 12) -> Array:
    """Points (P, 2) of a line, with ``steps`` to each of its segments: (M, 2)."""
    known = points[np.isfinite(points).all(axis=1)]
    if len(known) < 2:
        return known
    where = np.linspace(0, len(known) - 1, steps * (len(known) - 1) + 1)
    return np.stack([np.interp(where, range(len(known)), column) for column in known.T], axis=1)


def beside(axes: Axes, labels: Sequence[Label]) -> list[Text]:
    """Write the labels right of the frame, where the layout makes room for them; ``spread`` puts
    them at the height of their last anchors."""
    return [
        axes.text(1.02, label.anchors[-1, 1], label.text, color=label.colour, va="center",
                  transform=axes.get_yaxis_transform(), parse_math=False)
        for label in labels
    ]  # fmt: skip


def spread(axes: Axes, texts: Sequence[Text]) -> None:
    """Move the texts of ``beside`` up and down so that none overlaps another. The figure's layout
    must be final."""
    if not texts:
        return
    order = sorted(texts, key=lambda text: text.get_position()[1])
    boxes = [text.get_window_extent() for text in order]
    wanted = np.array([box.y0 + box.height / 2 for box in boxes])
    heights = np.array([box.height for box in boxes]) + 1  # a pixel of air, and no rounding
    below = np.concatenate([[0.0], np.cumsum((heights[:-1] + heights[1:]) / 2)])
    # Bottom up, each clear of the one below; then all of them back by what that moved the mean.
    found = np.maximum.accumulate(wanted - below) + below
    found += (wanted - found).mean()
    heights_in_data = axes.transData.inverted().transform(np.stack([found, found], axis=1))[:, 1]
    for text, y in zip(order, heights_in_data, strict=True):
        text.set_y(y)
