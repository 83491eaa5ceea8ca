"""What the app shows beside pictures, as HTML. Whatever is not ours is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ric_diffusion.api.samples import GeneratedSample
from ric_diffusion.app.front import HOW, Front
from ric_diffusion.app.sliders import Slider

WIDTH, HEIGHT, LEFT, BELOW = 440, 320, 56, 44  # of the chart, and of the room for its axes


def said(text: str, kind: str = "note") -> str:
    """One line about how it went; ``kind``: note or error. Read out by screen readers."""
    role = "alert" if kind == "error" else "status"
    return f'<p class="said {kind}" role="{role}">{escape(text)}</p>'


def how(drawn: GeneratedSample) -> str:
    """How a sample that was refined came near its targets; nothing about others."""
    refinement = drawn.refinement
    if refinement is None:
        return ""
    passes = f"{refinement.passes} more pass{'es' * (refinement.passes != 1)}"
    if refinement.distance is None:
        return f"Nothing with a score came of the first drawing and {passes}."
    if refinement.reached:
        return f"On target after {passes}."
    return f"The nearest after {passes} is {refinement.distance:.2f} z off."


def strip(slider: Slider) -> str:
    """What stands under a slider: where the training data lies along it, and its range in words."""
    unit = escape(slider.reward.scale)
    ends = f"{slider.score(slider.low):.3g} … {slider.score(slider.high):.3g} {unit}"
    half = " … ".join(f"{slider.score(slider.common[i]):.3g}" for i in (1, 3))
    return (
        f'<div class="strip">{track(slider)}<small>{slider.low:+.2f} … {slider.high:+.2f} z is '
        f"{ends}; half of the training data: {half} {unit}</small></div>"
    )


def track(slider: Slider, **marks: float | None) -> str:
    """The middle nine tenths of the training data, its middle half and its median, from end to end
    of the slider; ``marks`` in z by class."""
    a, b, middle, c, d = (100 * slider.place(z) for z in slider.common)
    spots = "".join(
        f'<i class="mark {kind}" style="left:{100 * slider.place(z):.1f}%"></i>'
        for kind, z in marks.items()
        if z is not None
    )
    return (
        '<div class="track" aria-hidden="true">'
        f'<i class="most" style="left:{a:.1f}%;width:{d - a:.1f}%"></i>'
        f'<i class="half" style="left:{b:.1f}%;width:{c - b:.1f}%"></i>'
        f'<i class="middle" style="left:{middle:.1f}%"></i>{spots}</div>'
    )


def scores(drawn: GeneratedSample, sliders: Sequence[Slider]) -> str:
    """Requested beside obtained, for each reward, in z and in the scorer's unit; and both on the
    track of its slider."""
    rows = []
    for slider in sliders:
        name, unit = slider.name, escape(slider.reward.scale)
        requested, obtained = drawn.targets.get(name), drawn.obtained[name]
        absent, why = "no score", ""
        if (raw := drawn.scores[name]) is not None:  # without a z: nothing to compare it with
            absent = f"{raw:.3g} {escape(slider.reward.unit)}"
            why = "<small>a sweep compares it within its prompt</small>"
        cells = []
        for z, missing, reason in ((requested, "auto", ""), (obtained, absent, why)):
            score = reason if z is None else f"<small>{slider.score(z):.3g} {unit}</small>"
            cells.append(f"<td><b>{missing if z is None else f'{z:+.2f} z'}</b><br>{score}</td>")
        rows.append(
            f'<tr data-reward="{name}"><th scope="row">{name}</th>{"".join(cells)}</tr>'
            f'<tr><td colspan="3">{track(slider, requested=requested, obtained=obtained)}</td></tr>'
        )
    return (
        '<table class="scores"><thead><tr><th scope="col">reward</th>'
        '<th scope="col"><i class="key requested"></i>requested</th>'
        '<th scope="col"><i class="key obtained"></i>obtained</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table><small>The band is the training data: its middle "
        "half, and nine tenths.</small>"
    )


def no_front() -> str:
    return (
        "<p>No report is loaded. Make one, and start the app with it:</p>"
        f"<pre>{escape(HOW)}\nric app --report REPORT</pre>"
    )


def chart(front: Front, x: str, y: str, chosen: int | None = None) -> str:
    """The mean z obtained of two rewards, a button for every point."""
    across, up = ([place.obtained[name] for place in front.places] for name in (x, y))
    ends = [_ends(across), _ends(up)]

    def at(x_z: float, y_z: float) -> tuple[float, float]:
        (a, b), (c, d) = ends
        inner = WIDTH - LEFT - 16, HEIGHT - BELOW - 16
        return LEFT + (x_z - a) / (b - a) * inner[0], 16 + (d - y_z) / (d - c) * inner[1]

    points = []
    for i, place in enumerate(front.places):
        cx, cy = at(place.obtained[x], place.obtained[y])
        weights = ", ".join(f"{name} {100 * w:.0f} %" for name, w in place.preference.items())
        kind = "point" + (" on" if place.on_front else "") + (" chosen" if i == chosen else "")
        points.append(
            f'<circle class="{kind}" data-place="{i}" tabindex="0" role="button" cx="{cx:.1f}" '
            f'cy="{cy:.1f}" r="8" aria-label="{weights}"><title>{weights}: {x} '
            f"{place.obtained[x]:+.2f} z, {y} {place.obtained[y]:+.2f} z</title></circle>"
        )
    (a, b), (c, d) = ends
    floor, wall = HEIGHT - BELOW, LEFT
    return (
        f"<p>{escape(front.model)}</p>"
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="group" '
        f'aria-label="the front of {escape(front.model)}">'
        f'<path class="axis" d="M{wall} 8V{floor}H{WIDTH - 8}"/>'
        f'<text x="{wall}" y="{floor + 18}" text-anchor="middle">{a:+.1f}</text>'
        f'<text x="{WIDTH - 16}" y="{floor + 18}" text-anchor="middle">{b:+.1f}</text>'
        f'<text x="{(wall + WIDTH) / 2}" y="{floor + 34}" text-anchor="middle">{x}, z</text>'
        f'<text x="{wall - 8}" y="{floor}" text-anchor="end">{c:+.1f}</text>'
        f'<text x="{wall - 8}" y="24" text-anchor="end">{d:+.1f}</text>'
        f'<text transform="translate(16 {floor / 2}) rotate(-90)" text-anchor="middle">{y}, z'
        f"</text>{''.join(points)}</svg>"
    )


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """An axis a little longer than what lies along it."""
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or 0.5
    return low - room, high + room
