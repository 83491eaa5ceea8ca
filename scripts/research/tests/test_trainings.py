"""Figures of methods that were trained several times."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ric_diffusion.evaluation import metrics
from ric_diffusion.evaluation.report.summary import summarise
from support.scores import (
    NAMES,
    base_of,
    calibrated_scores,
    calibration_of,
    config_of,
    scores_of,
)
from trainings import Pair, mean_of, over_trainings

CONFIG = config_of(2, held_out=["aesthetic"])
GAINS = 0.4, 0.6, 0.8


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    resamples = metrics.resamples
    monkeypatch.setattr(metrics, "resamples", lambda shape, n, seed: resamples(shape, 200, seed))


def result_of(scores, pair=None, runs=None):
    runs = runs or [trainings[0].name for trainings in scores]
    return over_trainings(scores, runs, CONFIG, Path("report"), model="m", versions={}, pair=pair)


def trained(name, gains, **given):
    """A method with a training for each of the gains, which differ in nothing else."""
    names = [name, *(f"{name}, training seed {k}" for k in range(1, len(gains)))]
    return [
        scores_of(CONFIG, name=one, gain=gain, **given)
        for one, gain in zip(names, gains, strict=True)
    ]


def width(estimate):
    return estimate.high - estimate.low


def test_methods_that_were_trained_once_have_the_figures_of_a_report():
    calibration = calibration_of(CONFIG, NAMES[0], gain=0.4)
    scores = [
        calibrated_scores(CONFIG, calibration, gain=0.4),
        scores_of(CONFIG, name="plain", gain=0.4),
        base_of(CONFIG),
    ]
    pair = Pair(plain="plain", calibrated="calibrated", calibrations=[calibration])
    found = result_of([[one] for one in scores], pair)
    expected = summarise(
        scores,
        CONFIG,
        Path("report"),
        model="m",
        versions={},
        calibration=replace(calibration, pair=(1, 0)),
    )
    assert found.result == expected
    assert found.hypervolumes["plain"] == (expected.methods[1].hypervolume.value,)


def test_a_figure_is_the_mean_over_trainings_and_its_interval_knows_that_they_differ():
    rival = [scores_of(CONFIG, name="rival", gain=0.5, seed=1)]
    found = result_of([trained("ours", GAINS), rival])
    ours, other = found.result.methods
    alone = [result_of([[one], rival]).result.methods for one in trained("ours", GAINS)]
    for figure in ("hypervolume", "diversity", "prompt_r_precision"):
        each = [getattr(first, figure) for first, _ in alone]
        mean = getattr(ours, figure)
        assert mean.value == pytest.approx(np.mean([one.value for one in each]))
    volumes = [first.hypervolume for first, _ in alone]
    assert found.hypervolumes["ours"] == pytest.approx([one.value for one in volumes])
    assert width(ours.hypervolume) > 1.3 * max(map(width, volumes))
    assert ours.hypervolume.low < volumes[0].high and ours.hypervolume.high > volumes[2].low
    # what it is compared with is the mean, too
    assert other.hypervolume_ratio.value == pytest.approx(
        other.hypervolume.value / ours.hypervolume.value
    )
    assert width(other.hypervolume_ratio) > 1.3 * max(
        width(two.hypervolume_ratio) for _, two in alone
    )
    point, single = ours.points[1], [first.points[1] for first, _ in alone]
    for name in NAMES[:2]:
        each = [one.obtained[name].value for one in single]
        assert point.obtained[name].value == pytest.approx(np.mean(each))
        assert point.scores[name] == pytest.approx(np.mean([one.scores[name] for one in single]))
    assert point.held_out["aesthetic"].value == pytest.approx(
        np.mean([one.held_out["aesthetic"].value for one in single])
    )
    assert ours.samples == 3 * alone[0][0].samples and ours.cost.forwards == 3 * 480
    assert ours.name == "ours" and [m.name for m in found.result.methods] == ["ours", "rival"]


def test_trainings_that_are_equal_add_nothing():
    once = result_of([trained("ours", [0.8])]).result.methods[0]
    twice = result_of([trained("ours", [0.8, 0.8])]).result.methods[0]
    assert twice.hypervolume.low == pytest.approx(once.hypervolume.low)
    assert twice.control[0].error.high == pytest.approx(once.control[0].error.high)


def test_ratios_are_paired_over_prompts_and_seeds_but_not_over_trainings():
    one, same = trained("one", GAINS), trained("same", GAINS)
    ratio = result_of([one[:1], same[:1]]).result.methods[1].hypervolume_ratio
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((1, 1, 1))
    ratio = result_of([one, same]).result.methods[1].hypervolume_ratio
    assert ratio.value == pytest.approx(1) and ratio.low < 0.95 and ratio.high > 1.05


def test_methods_of_the_same_runs_are_paired_over_trainings_wherever_they_stand():
    one, other, same = (trained(name, GAINS) for name in ("one", "other", "same"))
    found = result_of([one, other, same], runs=["ours", "theirs", "ours"]).result
    (ratio,) = {method.hypervolume_ratio for method in found.methods if method.name == "same"}
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((1, 1, 1))
    fewer = result_of([one, same], runs=["ours", "ours"]).result
    assert fewer.methods[1].hypervolume == found.methods[2].hypervolume
    alone = result_of([one, other], runs=["ours", "theirs"]).result
    assert alone.methods[1] == found.methods[1]


def test_each_draw_is_of_as_many_trainings():
    """Of 3 trainings drawn with replacement the mean varies as a third of their variance."""
    each = [np.full(20001, value) for value in (0.0, 3.0, 6.0)]
    found = mean_of(each, "ours")
    assert found[0] == 3.0 and found[1:].mean() == pytest.approx(3.0, abs=0.05)
    assert found[1:].var() == pytest.approx(np.var([0, 3, 6]) / 3, rel=0.05)
    assert not np.array_equal(found, mean_of(each, "others"))


def test_sliders_are_judged_by_the_calibration_of_each_training():
    gains = 0.4, 0.5
    calibrations = [calibration_of(CONFIG, *NAMES[:2], gain=gain) for gain in gains]
    plain = trained("plain", gains)
    calibrated = [
        replace(calibrated_scores(CONFIG, one, gain=gain), name=some.name + "!")
        for one, gain, some in zip(calibrations, gains, plain, strict=True)
    ]
    pair = Pair(plain="plain", calibrated="plain!", calibrations=calibrations)
    found = result_of([calibrated, plain], pair).result
    alone = [
        result_of(
            [[a], [b]], Pair(plain=b.name, calibrated=a.name, calibrations=[one])
        ).result.calibration
        for a, b, one in zip(calibrated, plain, calibrations, strict=True)
    ]
    mean = np.mean([one.error.value for one in alone])
    assert found.calibration.error.value == pytest.approx(mean)
    assert found.calibration.methods == ("plain", "plain!")
    for name in NAMES[:2]:
        without, error = found.calibration_errors(name)
        assert error.value < without.value
    # A slider that one of the trainings could not calibrate counts as not calibrated.
    curves = {NAMES[0]: calibrations[1].curves[NAMES[0]]}
    some = [calibrations[0], replace(calibrations[1], curves=curves)]
    found = result_of([calibrated, plain], replace(pair, calibrations=some)).result
    assert found.calibration.uncalibrated == (NAMES[1],)
    assert [one.reward for one in found.calibration.rewards] == [NAMES[0]]


def test_nothing_calibrated_is_no_error():
    flat = replace(calibration_of(CONFIG, gain=0.4), curves={})
    both = [scores_of(CONFIG, name="a"), scores_of(CONFIG, name="b")]
    pair = Pair(plain="a", calibrated="b", calibrations=[flat])
    found = result_of([[one] for one in both], pair).result.calibration
    assert found.error is None and found.uncalibrated == NAMES[:2] and found.methods == ()
