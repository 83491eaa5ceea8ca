"""``ric evaluate --calibrate``: what an adapter gives for what it is asked, measured and stored.

In the report's folder: calibration/ with the samples of the sweep, adapter/ with the curves.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ric_diffusion.commands.entrants import NONE, Entrant, put, space_of, subject_of
from ric_diffusion.diffusion.pipeline import RiCStableDiffusionPipeline
from ric_diffusion.errors import InputError
from ric_diffusion.evaluation.calibration import Calibration, curves_of, range_points
from ric_diffusion.evaluation.evaluate import evaluate
from ric_diffusion.evaluation.subject import SETTINGS, Setup
from ric_diffusion.rewards import Curve, RewardSpace

FIRST_SEED = 1_000_001  # no report has so many seeds that it would come to these
SWEEP, ADAPTER = "calibration", "adapter"


def check_calibrate(named: Sequence[str], out: Path) -> None:
    """InputError unless one adapter is to be calibrated, and nothing is lost by writing it."""
    if len(named) > 1 or NONE in named:
        raise InputError(
            f"--calibrate: one adapter is calibrated at a time; give it alone with --adapter, not "
            f"{', '.join(named)}"
        )
    if os.path.lexists(out / ADAPTER) and not (out / SWEEP / SETTINGS).exists():
        raise InputError(
            f"--out {out}: holds an adapter already, which --calibrate would write over; choose "
            "another"
        )


def uncalibrated(entrant: Entrant) -> Entrant:
    """The entrant without the curves it may have."""
    assert entrant.adapter is not None
    return replace(entrant, adapter=replace(entrant.adapter, calibration={}))


def calibrate(
    pipe: RiCStableDiffusionPipeline,
    options: argparse.Namespace,
    entrant: Entrant,
    base: Sequence[str],
    setup: Setup,
) -> Calibration:
    """Sweep an uncalibrated entrant, on as many seeds as the report has but others, and fit."""
    seeds, space = range(FIRST_SEED, FIRST_SEED + options.seeds), space_of(entrant)
    points = range_points(space, options.points)
    subject = subject_of(pipe, entrant, base, name=SWEEP, points=points)
    put(pipe, entrant)
    apart = replace(setup, seeds=seeds, held_out=())
    outcome = evaluate(subject, apart, options.out / SWEEP)
    return Calibration(curves=curves_of(outcome, space), seeds=seeds, cost=outcome.cost)


def calibrated(entrant: Entrant, curves: Mapping[str, Curve]) -> Entrant:
    """The entrant with these curves, which hold for the sampling they were measured with."""
    assert entrant.adapter is not None
    adapter = replace(entrant.adapter, calibration=curves, sampling=entrant.sampling)
    return replace(entrant, name="calibrated", adapter=adapter)


def save(pipe: RiCStableDiffusionPipeline, entrant: Entrant, out: Path) -> None:
    """Write the calibrated adapter; one that is there came of the same sweep and is kept."""
    if not (out / ADAPTER).exists():
        put(pipe, entrant)
        pipe.save_adapter(out / ADAPTER)


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
