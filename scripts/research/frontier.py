"""What methods reach in rewards against what they keep of their prompts, and which of them
dominates which: a table and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from comparison import markdown
from cost_plot import MARK, rims
from ric_diffusion.evaluation.report.labels import Label, along, place
from ric_diffusion.evaluation.report.plots import (
    LIGHT,
    Theme,
    blank_panels,
    colour_of,
    marker_of,
    with_ends,
)
from ric_diffusion.evaluation.report.schema import EvaluationResult, MethodResult
from ric_diffusion.evaluation.report.text import number, with_interval

SIZE = 14.0, 7.0  # inches, those of the list too
DIGITS = 3  # of what is kept: less is no difference
NAMED = 2  # so many that dominate a method are named


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a method, the result's ``index``-th, is: its hypervolume, and how much it ``kept`` of
    the base model's prompt R-precision."""

    index: int
    method: MethodResult
    hypervolume: float
    kept: float

    def beats(self, other: Place) -> bool:
        """Whether it dominates the other: as good in both and better in one, whatever the
        intervals."""
        ours, theirs = (self.hypervolume, self.kept), (other.hypervolume, other.kept)
        return ours != theirs and all(a >= b for a, b in zip(ours, theirs, strict=True))


def places(result: EvaluationResult, base: str) -> list[Place]:
    """Of all methods that have both figures; without a method called ``base`` what is kept is the
    prompt R-precision itself."""
    alone = result.method(base)
    of_base = (alone.prompt_r_precision.value if alone else None) or 1.0
    return [
        Place(index=i, method=one, hypervolume=volume, kept=round(precision / of_base, DIGITS))
        for i, one in enumerate(result.methods)
        if (volume := one.hypervolume.value) is not None
        and (precision := one.prompt_r_precision.value) is not None
    ]


def frontier_table(result: EvaluationResult, base: str) -> str:
    """A row for each method, those that keep most first, with some of those that dominate it."""
    found = _in_order(result, base)
    header = ["method", "prompt R-precision / base", "hypervolume", "dominated by"]
    rows = [
        [
            one.method.name,
            number(one.kept, DIGITS),
            with_interval(one.method.hypervolume),
            _named([other.method.name for other in found if other.beats(one)]),
        ]
        for one in found
    ]
    return markdown(header, rows)


def _in_order(result: EvaluationResult, base: str) -> list[Place]:
    return sorted(places(result, base), key=lambda one: (-one.kept, -one.hypervolume))


def _named(names: Sequence[str]) -> str:
    """Some of them by name."""
    others = len(names) - NAMED
    said = "; ".join(names[:NAMED]) or "none"
    return f"{said}; {others} more" if others > 0 else said


def frontier_figure(result: EvaluationResult, base: str, theme: Theme = LIGHT) -> Figure:
    """Hypervolume, with its interval, against what is kept of the prompts. Methods have the numbers
    of a list at the side, those that keep most first; those that none dominates are full, coloured
    and joined, the others hollow."""
    found = _in_order(result, base)
    figure, (axes,) = blank_panels(1, theme, SIZE)
    axes.set_xlabel("prompt R-precision / base model's")
    axes.set_ylabel("hypervolume")
    front = _undominated(found)
    labels, colours = [], []
    for row, one in enumerate(found, 1):
        on = one in front
        colour = colour_of(theme, one.index) if on else theme.grey
        _, low, high = with_ends(one.method.hypervolume)
        axes.vlines(one.kept, low, high, color=colour, alpha=0.35, linewidth=1.5)
        axes.plot(
            one.kept, one.hypervolume, marker_of(one.index), color=colour, markersize=MARK,
            markerfacecolor=colour if on else theme.paper,
        )  # fmt: skip
        anchor = np.array([[one.kept, one.hypervolume]])
        labels.append(Label(text=str(row), colour=colour, anchors=anchor))
        colours.append(colour if on else theme.ink)
    line = np.array(sorted((one.kept, one.hypervolume) for one in front))
    axes.plot(*line.T, color=theme.grey, linewidth=1, zorder=0)
    axes.margins(x=0.12, y=0.12)  # for the numbers of those at an end
    axes.legend(
        [Patch(visible=False) for _ in found],
        [f"{row}  {one.method.name}" for row, one in enumerate(found, 1)],
        labelcolor=colours, loc="upper left", bbox_to_anchor=(1.02, 1.0), frameon=False,
        fontsize="small", handlelength=0, handletextpad=0,
    )  # fmt: skip
    figure.draw_without_rendering()
    marked = np.array([[one.kept, one.hypervolume] for one in found])
    drawn = np.concatenate([rims(axes, marked), along(line)])
    place(axes, _shared(axes, labels), drawn, paper=theme.paper)
    return figure


def _shared(axes: Axes, labels: Sequence[Label]) -> list[Label]:
    """One label, of the first one's colour, for methods whose marks cover each other."""
    shared: list[Label] = []
    for label in labels:
        at = axes.transData.transform(label.anchors[0])
        for i, other in enumerate(shared):
            apart = np.linalg.norm(axes.transData.transform(other.anchors[0]) - at)
            if apart < MARK / 2 * axes.figure.dpi / 72:
                shared[i] = replace(other, text=f"{other.text}, {label.text}")
                break
        else:
            shared.append(label)
    return shared


def _undominated(found: Sequence[Place]) -> list[Place]:
    return [one for one in found if not any(other.beats(one) for other in found)]
