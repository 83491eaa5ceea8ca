"""``ric evaluate --calibrate``: what an adapter gives for what it is asked, measured and stored.

In the report's folder: calibration/ with the samples of its two sweeps, adapter/ with the curves.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ric_diffusion.commands.entrants import NONE, Entrant, put, space_of, subject_of
from ric_diffusion.cost import Cost
from ric_diffusion.errors import InputError
from ric_diffusion.evaluation.calibration import Calibration, curves_of, level_points, range_points
from ric_diffusion.evaluation.evaluate import evaluate
from ric_diffusion.evaluation.subject import SETTINGS, Point, Setup
from ric_diffusion.rewards import Curve, RewardSpace

FIRST_SEED = 1_000_001  # no report has so many seeds that it would come to these
SWEEP, ADAPTER = "calibration", "adapter"
COARSE, FINE = "coarse", "fine"  # below it
COARSELY = 0.25  # of the prompts tell where the fine sweep's requests should lie


def check_calibrate(named: Sequence[str], out: Path) -> None:
    """InputError unless one adapter is to be calibrated, and nothing is lost by writing it."""
    if len(named) > 1 or NONE in named:
        raise InputError(
            f"--calibrate: one adapter is calibrated at a time; give it alone with --adapter, not "
            f"{', '.join(named)}"
        )
    if os.path.lexists(out / ADAPTER) and not (out / SWEEP / COARSE / SETTINGS).exists():
        raise InputError(
            f"--out {out}: holds an adapter already, which --calibrate would write over; choose "
            "another"
        )


def uncalibrated(entrant: Entrant) -> Entrant:
    """The entrant without the curves it may have."""
    assert entrant.adapter is not None
    return replace(entrant, adapter=replace(entrant.adapter, calibration={}))


def calibrate(
    model: Any,
    entrant: Entrant,
    base: Sequence[str],
    setup: Setup,
    out: Path,
    *,
    points: int,
    seeds: int,
) -> Calibration:
    """Sweep an uncalibrated entrant, each reward over so many points, and fit; the samples go to
    the folder ``out``. Prompts are those of ``setup``, seeds are not.

    A first sweep over a few of the prompts, evenly spaced, places the requests of the second, whose
    means the curves go through: what is obtained may jump between two evenly spaced requests.
    """
    seeds_of_first, space = range(FIRST_SEED, FIRST_SEED + seeds), space_of(entrant)
    few = setup.prompts[: math.ceil(COARSELY * len(setup.prompts))]
    put(model, entrant)

    def sweep(name: str, points: list[Point], **drawn: Any) -> tuple[dict[str, Curve], Cost]:
        subject = subject_of(model, entrant, base, name=f"{SWEEP}, {name}", points=points)
        outcome = evaluate(subject, replace(setup, held_out=(), **drawn), out / name)
        scored = Cost(scored=outcome.scores.size)  # judging is part of it
        return curves_of(outcome, space), outcome.cost + scored

    coarse, first = sweep(COARSE, range_points(space, points), prompts=few, seeds=[FIRST_SEED - 1])
    curves, second = sweep(FINE, level_points(space, coarse, points), seeds=seeds_of_first)
    return Calibration(
        curves=curves, prompts=setup.prompts, seeds=seeds_of_first, cost=first + second
    )


def calibrated(entrant: Entrant, curves: Mapping[str, Curve]) -> Entrant:
    """The entrant with these curves, which hold for the sampling they were measured with."""
    assert entrant.adapter is not None
    adapter = replace(entrant.adapter, calibration=curves, sampling=entrant.sampling)
    return replace(entrant, name="calibrated", adapter=adapter)


def save(model: Any, entrant: Entrant, out: Path) -> None:
    """Write the calibrated adapter; one that is there came of the same sweep and is kept."""
    if not (out / ADAPTER).exists():
        put(model, entrant)
        model.save_adapter(out / ADAPTER)


def tell(calibration: Calibration, space: RewardSpace, out: Path) -> None:
    """Say what was left uncalibrated, and where the adapter is, if there is one."""
    for name in space.names:
        if name not in calibration.curves:
            print(
                f"ric evaluate: {name}: what is obtained does not rise with what is asked; left "
                "uncalibrated",
                file=sys.stderr,
            )
    if calibration.curves:
        print(out / ADAPTER)
