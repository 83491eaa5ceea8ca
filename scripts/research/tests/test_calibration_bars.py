"""The bars that a calibration has to reach, against figures of known scores."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import comparison
from ric_diffusion.evaluation.calibration import curves_of
from ric_diffusion.evaluation.report.summary import summarise
from support.scores import (
    NAMES,
    calibrated_scores,
    calibration_of,
    config_of,
    scores_of,
    sweep_of,
)

GAIN = 0.4
FIRST, OTHER = NAMES[:2]
CONFIG = config_of()


def result_of(given, calibration):
    return summarise(given, CONFIG, Path("report"), model="m", versions={}, calibration=calibration)


@pytest.mark.parametrize("pair", [(0, 1), (1, 0)])
def test_the_bars_of_a_calibration(pair):
    """Halved and at most so far off, whichever of the two comes first in the report."""
    calibration = dataclasses.replace(calibration_of(CONFIG, FIRST, gain=GAIN), pair=pair)
    both = [
        scores_of(CONFIG, gain=GAIN, noise=0.02),
        calibrated_scores(CONFIG, calibration, gain=GAIN, noise=0.02, seed=1),
    ]
    result = result_of([both[i] for i in pair], calibration)
    without, after = (one.value for one in result.calibration_errors(FIRST))
    assert after < without
    *_, error, ratio = comparison.calibration(result, halved=0.5, most=after * 0.99)
    assert FIRST in error.what and error.found.startswith(f"{after:.2f} (") and not error.met
    assert ratio.found.startswith(f"{after / without:.2f} (") and ratio.met
    *_, error, ratio = comparison.calibration(result, halved=after / without * 0.99, most=after)
    assert error.met and not ratio.met


def test_a_slider_that_cannot_be_calibrated_misses_its_bar():
    method = scores_of(CONFIG, gain=GAIN)
    result = result_of([method, method], calibration_of(CONFIG, FIRST, gain=GAIN))
    missed, *others = comparison.calibration(result, halved=0.5, most=0.25)
    assert OTHER in missed.what and missed.found == "cannot be calibrated" and missed.met is False
    assert [FIRST in bar.what for bar in others] == [False, False, True, True]


def test_the_bars_of_all_sliders_come_first():
    method = {"gain": np.array([0.4, 0.8]), "noise": 0.0}
    curves = curves_of(sweep_of(CONFIG, **method), CONFIG.space)
    calibration = dataclasses.replace(calibration_of(CONFIG, gain=GAIN), curves=curves)
    pair = [scores_of(CONFIG, **method), calibrated_scores(CONFIG, calibration, **method)]
    result = result_of(pair[::-1], dataclasses.replace(calibration, pair=(0, 1)))
    error, ratio, *others = comparison.calibration(result, halved=0.5, most=1.0)
    assert (error.what, error.met) == ("error of all sliders, calibrated, z", True)
    assert (ratio.what, ratio.met) == ("error of all sliders, calibrated / not", False)
    assert len(others) == 4
