"""A sweep as one picture and as data: what the app shows, and gives to download."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from PIL import Image

from ric_diffusion.app.engine import Drawn, Wish
from ric_diffusion.commands.sweep import captions
from ric_diffusion.data.images import save_png
from ric_diffusion.evaluation.sheet import draw_sheet
from ric_diffusion.evaluation.sweep import Sweep
from ric_diffusion.files import write_json
from ric_diffusion.rewards import RewardSpace


def sheet_of(
    sweep: Sweep, wish: Wish, space: RewardSpace, along: str, across: str | None
) -> Image.Image:
    """One row with what was asked and obtained under it; or, over two rewards, a square with
    what was asked of them on its sides."""
    title = f"{wish.prompt} · seed {wish.seed}"
    samples = [plane[0][0] for plane in sweep.samples]
    if across is None:
        return draw_sheet([samples], title=title, captions=captions(sweep, space))
    side = round(len(samples) ** 0.5)
    rows = [samples[i : i + side] for i in range(0, len(samples), side)]
    beside = [f"{across} {sweep.targets[i][across]:+.1f}" for i in range(0, len(samples), side)]
    below = [[along, f"{target[along]:+.1f}"] for target in sweep.targets[:side]]
    return draw_sheet(rows, title=title, captions=below, row_titles=beside)


def write_sweep(folder: Path, sheet: Image.Image, story: dict[str, Any]) -> tuple[str, str]:
    """grid.png and sweep.json, as ``ric sweep`` names them, in a new folder that cannot be
    guessed; their paths."""
    place = folder / secrets.token_hex(16)
    save_png(place / "grid.png", sheet)
    write_json(place / "sweep.json", story)
    return str(place / "grid.png"), str(place / "sweep.json")


def write_picture(folder: Path, drawn: Drawn) -> str:
    """A PNG with its story in it, as ``ric generate`` writes it."""
    path = folder / secrets.token_hex(16) / f"{drawn.story['seed']}.png"
    save_png(path, drawn.sample, drawn.story)
    return str(path)
