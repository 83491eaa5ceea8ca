"""Contact sheets: samples in rows and columns with what was asked and what was obtained."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

TILE = 112  # smallest side of a picture on a sheet, pixels
MARGIN = 12
LINE = 16
INK, GREY, PAPER = (28, 32, 38), (110, 118, 128), (255, 255, 255)


def tile_size(images: Sequence[Sequence[Image.Image]]) -> int:
    """Small pictures are enlarged by a whole number, large ones shown at 256."""
    side = max(images[0][0].size)
    return min(side * -(-TILE // side), 256)


def draw_sheet(
    images: Sequence[Sequence[Image.Image]],
    *,
    title: str = "",
    captions: Sequence[Sequence[str]] = (),
    row_titles: Sequence[str] = (),
) -> Image.Image:
    """Rows of pictures under ``title``; ``captions`` holds the lines under each column."""
    side = tile_size(images)
    font, bold = ImageFont.load_default(12), ImageFont.load_default(16)
    left = MARGIN + (max(int(font.getlength(t)) for t in row_titles) + 12 if row_titles else 0)
    top = MARGIN + (30 if title else 0)
    lines = max((len(c) for c in captions), default=0)
    step = side + 8
    width = left + step * len(images[0]) + MARGIN - 8
    height = top + step * len(images) + lines * LINE + MARGIN
    sheet = Image.new("RGB", (max(width, int(bold.getlength(title)) + 2 * MARGIN), height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN), title, INK, font=bold)
    for r, row in enumerate(images):
        if row_titles:
            draw.text((MARGIN, top + r * step + side // 2 - 6), row_titles[r], GREY, font=font)
        for c, image in enumerate(row):
            shown = image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
            sheet.paste(shown, (left + c * step, top + r * step))
    for c, texts in enumerate(captions):
        for i, text in enumerate(texts):
            x = left + c * step + side / 2 - font.getlength(text) / 2
            ink = INK if i == 0 else GREY
            draw.text((x, top + step * len(images) + i * LINE), text, ink, font=font)
    return sheet
