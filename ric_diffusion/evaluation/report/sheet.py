"""Contact sheets: samples in rows and columns with what was asked and what was obtained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from ric_diffusion.evaluation.runner import Sweep
from ric_diffusion.rewards import RewardSpace

TILE = 112  # smallest side of a picture on a sheet, pixels
MARGIN = 12
GAP = 8
LINE, TITLE_LINE = 16, 22
ROW_TITLE = 160  # width at which a row's title is wrapped
INK, GREY, PAPER = (28, 32, 38), (110, 118, 128), (255, 255, 255)


def tile_size(images: Sequence[Sequence[Image.Image]]) -> int:
    """Small pictures are enlarged by a whole number, large ones shown at 256."""
    side = max(images[0][0].size)
    return min(side * -(-TILE // side), 256)


def wrapped(text: str, font: Any, width: int) -> list[str]:
    """The words of ``text`` in lines of at most ``width`` pixels; a longer word has its own."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def draw_sheet(
    images: Sequence[Sequence[Image.Image]],
    *,
    title: str = "",
    captions: Sequence[Sequence[str]] = (),
    row_titles: Sequence[str] = (),
) -> Image.Image:
    """Rows of pictures under ``title``; ``captions`` holds the lines under each column.

    Titles are wrapped, and columns are as wide as their widest caption, so that nothing overlaps.
    """
    side = tile_size(images)
    font, bold = ImageFont.load_default(12), ImageFont.load_default(16)
    most = side // LINE  # lines beside a picture
    beside = [wrapped(text, font, ROW_TITLE)[:most] for text in row_titles]
    widest = max((int(font.getlength(t)) + 1 for c in captions for t in c), default=0)
    step = max(side, widest) + GAP
    left = MARGIN
    if row_titles:
        left += max((int(font.getlength(t)) + 1 for lines in beside for t in lines), default=0) + 12
    width = left + step * len(images[0]) - GAP + MARGIN
    above = wrapped(title, bold, width - 2 * MARGIN)
    width = max([width, *(int(bold.getlength(t)) + 1 + 2 * MARGIN for t in above)])
    top = MARGIN + (TITLE_LINE * len(above) + GAP if above else 0)
    below = max((len(c) for c in captions), default=0)
    height = top + (side + GAP) * len(images) + below * LINE + MARGIN
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, text in enumerate(above):
        draw.text((MARGIN, MARGIN + i * TITLE_LINE), text, INK, font=bold)
    for r, row in enumerate(images):
        y = top + r * (side + GAP)
        for i, text in enumerate(beside[r] if row_titles else ()):
            start = y + (side - LINE * len(beside[r])) // 2
            draw.text((MARGIN, start + i * LINE), text, GREY, font=font)
        for c, image in enumerate(row):
            shown = image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
            sheet.paste(shown, (left + c * step + (step - GAP - side) // 2, y))
    for c, texts in enumerate(captions):
        for i, text in enumerate(texts):
            x = left + c * step + (step - GAP - font.getlength(text)) / 2
            y = top + (side + GAP) * len(images) + i * LINE
            draw.text((x, y), text, INK if i == 0 else GREY, font=font)
    return sheet


def sweep_sheet(sweep: Sweep, space: RewardSpace, title: str) -> Image.Image:
    """The pictures of the first prompt and seed in a row, with what was asked and obtained of each
    reward under them."""
    samples = [plane[0][0] for plane in sweep.samples]
    return draw_sheet([samples], title=title, captions=sweep_captions(sweep, space))


def sweep_captions(sweep: Sweep, space: RewardSpace) -> list[list[str]]:
    """Under each picture of the first prompt and seed, for each reward: its name, asked and
    obtained z."""
    return [
        [
            line
            for i, name in enumerate(space.names)
            # Pillow's font has no arrow.
            for line in (
                name,
                f"{_asked(point.targets, name)} » {_obtained(sweep.z[p, 0, 0, i])}",
            )
        ]
        for p, point in enumerate(sweep.points)
    ]


def _obtained(z: float) -> str:
    return f"{z:+.1f}" if math.isfinite(z) else "none"


def _asked(targets: Mapping[str, float], name: str) -> str:
    return f"{targets[name]:+.1f}" if name in targets else "auto"
