"""``ric sweep``: one prompt and seed along a line of preferences or of one reward's targets."""

from __future__ import annotations

import argparse
from typing import Any

from ric_diffusion.commands.model import check_mapping, load_backend, sampling_of
from ric_diffusion.commands.paths import check_out_folder
from ric_diffusion.data.images import save_png
from ric_diffusion.evaluation.scoring import load_scorers
from ric_diffusion.evaluation.sheet import draw_sheet
from ric_diffusion.evaluation.sweep import Sweep, preference_line, run_sweep, target_line
from ric_diffusion.files import write_json
from ric_diffusion.rewards import RewardSpace, to_targets


def run(options: argparse.Namespace) -> None:
    check_mapping(options.mapping)
    check_out_folder(options.out)
    backend = load_backend(options.model, options.adapter, options.dtype)
    backend.sampling = sampling_of(backend.pipe, options)
    adapter = backend.adapter
    space = adapter.space
    preferences: list[dict[str, float]] = []
    if options.along or len(space.names) == 1:
        along = options.along or space.names[0]
        targets = target_line(space, along, options.points, adapter.calibration.get(along))
    else:
        preferences = preference_line(space.names, options.points)
        mapping = options.mapping or adapter.mapping
        targets = [adapter.reachable(to_targets(p, space, mapping)) for p in preferences]
    sweep = run_sweep(
        backend, space, targets, [options.prompt], [options.seed], load_scorers(space)
    )
    about = f"{options.prompt} · seed {options.seed}"
    sheet = draw_sheet(
        [[plane[0][0] for plane in sweep.samples]], title=about, captions=captions(sweep, space)
    )
    save_png(options.out / "grid.png", sheet)
    write_json(options.out / "sweep.json", story(options.model, sweep, space, preferences))
    print(options.out / "grid.png")


def captions(sweep: Sweep, space: RewardSpace) -> list[list[str]]:
    """Under each picture and for each reward: its name, asked and obtained z."""
    return [
        [
            line
            for i, name in enumerate(space.names)
            for line in (
                name,
                # Pillow's font has no arrow.
                f"{_asked(targets, name)} » {sweep.z[p, 0, 0, i]:+.1f}",
            )
        ]
        for p, targets in enumerate(sweep.targets)
    ]


def _asked(targets: dict[str, float], name: str) -> str:
    return f"{targets[name]:+.1f}" if name in targets else "auto"


def story(
    model: str, sweep: Sweep, space: RewardSpace, preferences: list[dict[str, float]]
) -> dict[str, Any]:
    """``sweep.json``: one prompt and seed."""
    points = []
    for p, targets in enumerate(sweep.targets):
        point: dict[str, Any] = {"preference": preferences[p]} if preferences else {}
        point["targets"] = targets
        point["scores"] = dict(zip(space.names, sweep.scores[p, 0, 0].tolist(), strict=True))
        point["obtained"] = dict(zip(space.names, sweep.z[p, 0, 0].tolist(), strict=True))
        points.append(point)
    return {
        "model": model,
        "prompt": sweep.prompts[0],
        "seed": sweep.seeds[0],
        "units": dict(zip(space.names, space.units, strict=True)),
        "points": points,
    }
