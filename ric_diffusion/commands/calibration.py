"""``ric evaluate --calibrate``: what an adapter gives for what it is asked, measured and stored.

In the report's folder: calibration/ with the samples of the sweep, adapter/ with the curves.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ric_diffusion.commands.entrants import NONE, Entrant, put, space_of, subject_of
from ric_diffusion.cost import Cost
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
    the folder ``out``. Prompts are those of ``setup``, seeds are not."""
    own, space = range(FIRST_SEED, FIRST_SEED + seeds), space_of(entrant)
    subject = subject_of(model, entrant, base, name=SWEEP, points=range_points(space, points))
    put(model, entrant)
    outcome = evaluate(subject, replace(setup, seeds=own, held_out=()), out)
    cost = outcome.cost + Cost(scored=outcome.scores.size)  # judging is part of it
    return Calibration(
        curves=curves_of(outcome, space), prompts=setup.prompts, seeds=own, cost=cost
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
