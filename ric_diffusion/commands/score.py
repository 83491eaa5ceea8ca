"""``ric score``: print the scores of pictures."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path

import scorers
from ric_diffusion.data.images import SUFFIXES, UnreadableImage, open_image
from ric_diffusion.errors import InputError
from ric_diffusion.evaluation.scoring import scores_of

BATCH = 32


def files_of(paths: list[Path]) -> list[Path]:
    """Pictures named, and those in the folders named, sorted. InputError if there is none."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(p for p in path.rglob("*") if is_picture(p.relative_to(path)))
        elif path.exists():
            found.append(path)
        else:
            raise InputError(f"{path}: no such file or folder")
    if not found:
        raise InputError(f"{paths[0]}: no pictures in it")
    return found


def is_picture(path: Path) -> bool:
    """By its suffix; hidden names are none, among them what a killed process left half written."""
    return path.suffix.lower() in SUFFIXES and not any(n.startswith(".") for n in path.parts)


def run(options: argparse.Namespace) -> None:
    using = [scorers.load(spec) for spec in options.scorers]
    names = [scorer.name for scorer in using]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"--scorers: {twice[0]} is given twice; score them one after the other")
    files = files_of(options.paths)
    if not options.json:
        print("\t".join(["file", *(f"{s.name} ({s.unit})" for s in using)]))
    unreadable = 0
    for start in range(0, len(files), BATCH):
        images, kept = [], []
        for path in files[start : start + BATCH]:
            try:
                images.append(open_image(path))
                kept.append(path)
            except UnreadableImage as error:
                unreadable += 1
                print(f"ric score: {path}: {error}; skipped", file=sys.stderr)
        if not images:
            continue
        # A picture's own name is the only prompt known here; scorers that need one say so.
        rows = scores_of(images, [path.stem.replace("-", " ") for path in kept], using)
        for path, row in zip(kept, rows.tolist(), strict=True):
            if options.json:
                scores = [value if math.isfinite(value) else None for value in row]
                print(json.dumps({"file": str(path), **dict(zip(names, scores, strict=True))}))
            else:
                print("\t".join([str(path), *(f"{value:.4f}" for value in row)]))
    if unreadable == len(files):
        raise InputError(f"{options.paths[0]}: none of {len(files)} files is a readable picture")
