"""What the app shows beside pictures, as HTML. Whatever is not ours is escaped."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO

from PIL import Image

from ric_diffusion.api.samples import GeneratedSample
from ric_diffusion.app.front import HOW, Front
from ric_diffusion.app.sliders import Slider

WIDTH, HEIGHT, LEFT, BELOW = 440, 320, 56, 44  # of the chart, and of the room for its axes
PREVIEW = 512  # pixels to a side, at most
Z = "z counts standard deviations from the mean of the training data, which is 0."


def said(text: str, kind: str = "note") -> str:
    """One line about how it went; ``kind``: note or error. Read out by screen readers. An error
    begins with the control that it is about, which is outlined."""
    if kind != "error":
        return f'<p class="said" role="status">{escape(text)}</p>'
    about = escape(text.partition(":")[0].split(" ")[0])
    return f'<p class="said error" role="alert" data-about="{about}">{escape(text)}</p>'


def progress(text: str, done: int, total: int) -> str:
    """How far a request is; not read out, since it changes all the time."""
    bar = f'<progress aria-label="progress" max="{total}" value="{done}"></progress>' * bool(total)
    return f'<p class="said">{escape(text)}{bar}</p>'


def how(drawn: GeneratedSample) -> str:
    """How a sample that was refined came near its targets; nothing about others."""
    refinement = drawn.refinement
    if refinement is None:
        return ""
    passes = f"{refinement.passes} more pass{'es' * (refinement.passes != 1)}"
    if refinement.distance is None:
        return f"Nothing has a score, neither what came first nor {passes}."
    if refinement.reached:
        return f"On target after {passes}."
    return f"The nearest after {passes} is {refinement.distance:.2f} z off."


def strip(slider: Slider, z: float) -> str:
    """What stands under a slider in z, at ``z``: what that is in the scorer's unit, where the
    training data lies along it, what can be had with the prompt of the sample that is shown, and
    its range in words."""
    unit = escape(slider.reward.scale)
    ends = f"{slider.score(slider.low):.3g} to {slider.score(slider.high):.3g} {unit}"
    half = " to ".join(f"{slider.score(slider.common[i]):.3g}" for i in (1, 3))
    return (
        f'<div class="strip" data-reward="{slider.name}" data-slider="target-{slider.name}">'
        f'<b class="value" data-mean="{slider.reward.mean}" data-std="{slider.reward.std}" '
        f'data-unit="{unit}">{_both(slider, z)}</b>{track(slider)}'
        f"<small>From {ends} ({_z(slider.low)} to {_z(slider.high)}). Half of the training data is "
        f'at {half} {unit}.<span class="for-prompt" hidden> The frame is what to expect with this '
        "prompt.</span></small></div>"
    )


def track(
    slider: Slider, expected: tuple[float, float] | None = None, **marks: float | None
) -> str:
    """The middle nine tenths of the training data, its middle half and its median, from end to end
    of the slider; what is ``expected`` for a prompt, and ``marks`` by class, in z."""
    a, b, middle, c, d = (100 * slider.place(z) for z in slider.common)
    spots = "".join(
        f'<i class="mark {kind}" style="left:{100 * slider.place(z):.1f}%"></i>'
        for kind, z in marks.items()
        if z is not None
    )
    start, end = places(slider, expected) if expected else (0.0, 0.0)
    return (
        '<div class="track" aria-hidden="true">'
        f'<i class="most" style="left:{a:.1f}%;width:{d - a:.1f}%"></i>'
        f'<i class="half" style="left:{b:.1f}%;width:{c - b:.1f}%"></i>'
        f'<i class="expected" style="left:{start:.1f}%;width:{end - start:.1f}%"'
        f"{'' if expected else ' hidden'}></i>"
        f'<i class="middle" style="left:{middle:.1f}%"></i>{spots}</div>'
    )


def places(slider: Slider, ends: tuple[float, float]) -> tuple[float, float]:
    """Where a range in z lies along a slider, in percent."""
    low, high = ends
    return round(100 * slider.place(low), 1), round(100 * slider.place(high), 1)


def scores(
    drawn: GeneratedSample,
    sliders: Sequence[Slider],
    expected: Mapping[str, tuple[float, float]],
) -> str:
    """Requested beside obtained, for each reward, in the scorer's unit and in z; and both on the
    track of its slider, with what is ``expected`` for the prompt, in z."""
    rows = []
    for slider in sliders:
        name = slider.name
        requested, obtained = drawn.targets.get(name), drawn.obtained[name]
        absent, why = "no score", ""
        if (raw := drawn.scores[name]) is not None:  # without a z: nothing to compare it with
            absent = f"{raw:.3g} {escape(slider.reward.unit)}"
            why = "<small>a sweep compares it within its prompt</small>"
        cells = []
        for z, missing, reason in ((requested, "auto", ""), (obtained, absent, why)):
            if z is None:
                cells.append(f"<td><b>{missing}</b><br>{reason}</td>")
            else:
                unit = escape(slider.reward.scale)
                cells.append(
                    f'<td data-z="{z:.4f}"><b>{slider.score(z):.3g} {unit}</b><br>'
                    f"<small>{_z(z)}</small></td>"
                )
        band = track(slider, expected.get(name), requested=requested, obtained=obtained)
        rows.append(
            f'<tr data-reward="{name}"><th scope="row">{name}</th>{"".join(cells)}</tr>'
            f'<tr><td colspan="3">{band}</td></tr>'
        )
    frame = " The frame is what to expect with this prompt." if expected else ""
    return (
        '<table class="scores"><thead><tr><th scope="col">reward</th>'
        '<th scope="col"><i class="key requested"></i>requested</th>'
        '<th scope="col"><i class="key obtained"></i>obtained</th></tr></thead>'
        f'<tbody>{"".join(rows)}</tbody></table><small class="explained">Inner band: half '
        f"of the training data. Outer band: 90 % of it.{frame} {Z}</small>"
    )


def _both(slider: Slider, z: float) -> str:
    return f"{slider.score(z):.3g} {escape(slider.reward.scale)} ({_z(z)})"


def _z(z: float) -> str:
    return f"{'−' if z < 0 else '+'}{abs(z):.2f} z"


def preview(image: Image.Image) -> str:
    """The address of a picture that is in the address itself: no file is left of it."""
    small, data = image.convert("RGB"), BytesIO()
    small.thumbnail((PREVIEW, PREVIEW))
    small.save(data, format="JPEG")
    return f"data:image/jpeg;base64,{b64encode(data.getvalue()).decode('ascii')}"


STAGE = """
<div class="frame"><img class="now" alt="" hidden><img class="before" alt="" hidden
style="clip-path: inset(0 100% 0 0)"></div>
<div class="tools"><label class="compare"><span>Compare with the last one</span>
<input id="compare" type="range" min="0" max="100" value="0" disabled
aria-label="Compare with the last one, percent of its width"></label>
<button id="hold" type="button" aria-pressed="false" disabled>
Hold, or key B: see the last one</button>
<button id="full" type="button">Full screen</button>
<a id="download" href="#" role="button" aria-disabled="true">Download PNG</a></div>
"""

GALLERY = (
    '<div class="samples" role="group" aria-label="Drawn so far; choose one to restore"></div>'
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
