"""A sweep as one picture and as data: what the app shows, and gives to download."""

from __future__ import annotations

import secrets
from pathlib import Path
from zipfile import ZipFile

from PIL import Image

from ric_diffusion.api.samples import GeneratedSample
from ric_diffusion.api.sweeps import DATA, SHEET, SweepResult, contact_sheet
from ric_diffusion.app.engine import SampleRequest
from ric_diffusion.data.images import save_png
from ric_diffusion.data.numbered import file_name
from ric_diffusion.evaluation.report.sheet import sweep_sheet
from ric_diffusion.evaluation.runner import Sweep
from ric_diffusion.rewards import RewardSpace

PICTURES = "sweep.zip"


def sheet_of(
    sweep: Sweep, request: SampleRequest, space: RewardSpace, along: str, across: str | None
) -> Image.Image:
    """One row with what was asked and obtained under it; or, over two rewards, a square with
    what was asked of them on its sides."""
    title = f"{request.prompt} · seed {request.seed}"
    if across is None:
        return sweep_sheet(sweep, space, title)
    samples = [plane[0][0] for plane in sweep.samples]
    targets = [point.targets for point in sweep.points]
    side = round(len(samples) ** 0.5)
    rows = [samples[i : i + side] for i in range(0, len(samples), side)]
    beside = [f"{across} {targets[i][across]:+.1f}" for i in range(0, len(samples), side)]
    below = [[along, f"{target[along]:+.1f}"] for target in targets[:side]]
    return contact_sheet(rows, title=title, captions=below, row_titles=beside)


def write_sweep(folder: Path, result: SweepResult) -> tuple[str, str, str]:
    """What ``ric sweep`` writes, in a new folder that cannot be guessed; the paths of grid.png, of
    sweep.json and of sweep.zip, which holds both and the pictures at their own size."""
    place = folder / secrets.token_hex(16)
    result.save(place)
    files = sorted(place.iterdir())
    with ZipFile(place / PICTURES, "w") as archive:  # PNGs are compressed already
        for path in files:
            archive.write(path, path.name)
    return str(place / SHEET), str(place / DATA), str(place / PICTURES)


def write_picture(folder: Path, drawn: GeneratedSample) -> str:
    """A PNG with its metadata in it, as ``ric generate`` writes it."""
    path = folder / secrets.token_hex(16) / file_name(1, drawn.prompt, drawn.seed)
    save_png(path, drawn.sample, drawn.metadata)
    return str(path)
