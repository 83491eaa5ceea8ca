"""A calibration is fitted on a sweep of its own and judged by the requests that can be had."""

import dataclasses
import html
from pathlib import Path

import numpy as np
import pytest

from ric_diffusion.cost import Cost
from ric_diffusion.evaluation import comparison
from ric_diffusion.evaluation.calibration import Calibration, curves_of, level_points, range_points
from ric_diffusion.evaluation.findings import findings, with_interval
from ric_diffusion.evaluation.page import page
from ric_diffusion.evaluation.summary import summarise
from ric_diffusion.rewards import Curve
from support.outcomes import NAMES, outcome_of, setup_of

GAIN = 0.4
FIRST, OTHER = NAMES[:2]
SETUP = setup_of()


def sweep(gain=GAIN, noise=0.0, **changes):
    """Of a model that gives ``gain`` times what it is asked, along each reward alone."""
    points = range_points(SETUP.space, 7)
    return outcome_of(SETUP, gain=gain, noise=noise, points=points, **changes)


def calibration_of(*names, gain=GAIN):
    found = curves_of(sweep(gain), SETUP.space)
    curves = {name: curve for name, curve in found.items() if name in names}
    cost = Cost(forwards=1234, scored=0, seconds=3.0)
    return Calibration(curves=curves, prompts=["a crow"], seeds=[7, 8], cost=cost)


def with_calibration(calibration, **model):
    """What a model gives once its targets go through the curves, on the points of a report."""
    plain = outcome_of(SETUP, **model)
    points = [
        dataclasses.replace(
            point,
            targets={
                name: calibration.curves[name].request(z) if name in calibration.curves else z
                for name, z in point.targets.items()
            },
        )
        for point in plain.points
    ]
    asked = outcome_of(SETUP, points=points, **model)
    return dataclasses.replace(asked, name="calibrated", points=plain.points)


def summary_of(outcomes, calibration):
    return summarise(
        outcomes, SETUP, Path("report"), model="m", versions={}, calibration=calibration
    )


def controls(metrics, name=FIRST):
    """The control entries of one reward, a model each."""
    return [one for m in metrics["models"] for one in m["control"] if one["reward"] == name]


def test_points_reach_from_end_to_end():
    points = range_points(SETUP.space, 5)
    assert [point.along for point in points] == [FIRST] * 5 + [OTHER] * 5
    assert all(list(point.targets) == [point.along] for point in points)
    assert not any(point.preference for point in points)
    for name in (FIRST, OTHER):
        asked = [point.targets[name] for point in points if point.along == name]
        assert (asked[0], asked[-1]) == pytest.approx(SETUP.space.range(name))
        assert np.diff(asked) == pytest.approx(np.diff(asked)[0])


def test_requests_lie_where_what_is_obtained_rises():
    """By a curve that jumps by 2 z between requests of 0 and 0.1, most requests go there."""
    jump = Curve(requested=(-1, 0, 0.1, 1), obtained=(-1, -0.9, 1.1, 1.2))
    points = level_points(SETUP.space, {FIRST: jump}, 12)
    asked = {name: [p.targets[name] for p in points if p.along == name] for name in NAMES[:2]}
    assert (asked[FIRST][0], asked[FIRST][-1]) == pytest.approx(SETUP.space.range(FIRST))
    assert all(np.diff(asked[FIRST]) > 0)
    assert sum(0 < z < 0.1 for z in asked[FIRST]) == 10
    even = [p.targets[OTHER] for p in range_points(SETUP.space, 12) if p.along == OTHER]
    assert asked[OTHER] == even  # no curve


def test_curves_turn_the_sweep_around():
    curves = curves_of(sweep(), SETUP.space)
    assert list(curves) == [FIRST, OTHER]
    for name, curve in curves.items():
        assert curve.reach == pytest.approx([GAIN * end for end in SETUP.space.range(name)])
        assert curve.request(0.3) == pytest.approx(0.3 / GAIN)


def test_a_reward_where_nothing_rises_has_no_curve():
    for gain in (0.0, -0.5):
        assert list(curves_of(sweep(np.array([GAIN, gain])), SETUP.space)) == [FIRST]


def test_faulty_samples_are_no_part_of_a_curve():
    outcome = sweep()
    outcome.scores[2] = np.nan  # one point along the first reward
    outcome.scores[7:] = np.nan  # all along the other
    curves = curves_of(outcome, SETUP.space)
    assert list(curves) == [FIRST]
    assert len(curves[FIRST].requested) == 6
    assert curves[FIRST].request(0.3) == pytest.approx(0.3 / GAIN)


def test_both_errors_are_over_the_requests_that_can_be_had():
    """By hand: a model that gives 0.4 z misses z by 0.6 |z|; calibrated it misses nothing."""
    calibration = calibration_of(FIRST)
    outcomes = [
        outcome_of(SETUP, gain=GAIN, noise=0.0),
        with_calibration(calibration, gain=GAIN, noise=0.0),
    ]
    metrics = summary_of(outcomes, calibration)
    without, calibrated = controls(metrics)
    reach = calibration.curves[FIRST].reach
    requested = np.array(without["requested"])
    inside = requested[(requested >= reach[0]) & (requested <= reach[1])]
    assert len(inside) == 3  # inside what the model itself reached there would be one
    assert without["reach"] == calibrated["reach"] == list(reach)
    assert calibrated["requested"] == without["requested"]
    expected = 0.6 * np.abs(inside).mean()
    for figure in ("error", "sample_error"):
        assert without[figure]["value"] == pytest.approx(expected)
        assert calibrated[figure]["value"] == pytest.approx(0, abs=1e-9)
    (found,) = metrics["calibration"]["rewards"]
    assert found["reward"] == FIRST and found["reach"] == list(reach)
    assert found["curve"] == calibration.curves[FIRST].to_dict()
    assert found["error_ratio"]["value"] == pytest.approx(0, abs=1e-9)
    assert metrics["calibration"]["seeds"] == [7, 8]
    assert metrics["calibration"]["cost"]["forwards"] == 1234


@pytest.mark.parametrize("pair", [(0, 1), (1, 0)])
def test_the_bars_of_a_calibration(pair):
    """Halved and at most so far off, whichever of the two comes first in the report."""
    calibration = dataclasses.replace(calibration_of(FIRST), pair=pair)
    both = [
        outcome_of(SETUP, gain=GAIN, noise=0.02),
        with_calibration(calibration, gain=GAIN, noise=0.02, seed=1),
    ]
    metrics = summary_of([both[i] for i in pair], calibration)
    assert metrics["calibration"]["models"] == ["model", "calibrated"]
    without, after = (controls(metrics)[i]["error"]["value"] for i in pair)
    assert after < without
    *_, error, ratio = comparison.calibration(metrics, halved=0.5, most=after * 0.99)
    assert FIRST in error.what and error.found.startswith(f"{after:.2f} (") and not error.met
    assert ratio.found.startswith(f"{after / without:.2f} (") and ratio.met
    *_, error, ratio = comparison.calibration(metrics, halved=after / without * 0.99, most=after)
    assert error.met and not ratio.met


def test_a_slider_that_cannot_be_calibrated_misses_its_bar():
    model = outcome_of(SETUP, gain=GAIN)
    metrics = summary_of([model, model], calibration_of(FIRST))
    missed, *others = comparison.calibration(metrics, halved=0.5, most=0.25)
    assert OTHER in missed.what and missed.found == "cannot be calibrated" and missed.met is False
    assert [FIRST in bar.what for bar in others] == [False, False, True, True]


def test_the_error_of_all_sliders_is_over_the_requests_of_each():
    """By hand: the first reward has 0.6 of each request missing, the other 0.2."""
    model = {"gain": np.array([0.4, 0.8]), "noise": 0.0}
    curves = curves_of(sweep(**model), SETUP.space)
    calibration = dataclasses.replace(calibration_of(), curves=curves)
    pair = [outcome_of(SETUP, **model), with_calibration(calibration, **model)]
    metrics = summary_of(pair[::-1], dataclasses.replace(calibration, pair=(0, 1)))
    missing = []
    for name, share in ((FIRST, 0.6), (OTHER, 0.2)):
        requested = np.array(controls(metrics, name)[0]["requested"])
        low, high = curves[name].reach
        inside = requested[(requested >= low) & (requested <= high)]
        missing += (share * np.abs(inside)).tolist()
    found = metrics["calibration"]
    assert found["error"]["value"] == pytest.approx(np.mean(missing))  # the pair is turned around
    assert found["error_ratio"]["value"] > 100
    assert found["rewards"][0]["error_ratio"] != found["rewards"][1]["error_ratio"]
    error, ratio, *others = comparison.calibration(metrics, halved=0.5, most=1.0)
    assert (error.what, error.met) == ("error of all sliders, calibrated, z", True)
    assert (ratio.what, ratio.met) == ("error of all sliders, calibrated / not", False)
    assert len(others) == 4


def test_the_reward_without_a_curve_is_judged_as_ever():
    calibration = calibration_of(FIRST)
    model = outcome_of(SETUP, gain=GAIN)
    metrics = summary_of([model, model], calibration)
    alone = summary_of([model], None)
    assert alone["calibration"] is None
    assert metrics["calibration"]["uncalibrated"] == [OTHER]
    assert controls(metrics, OTHER)[0] == controls(alone, OTHER)[0]
    assert controls(alone)[0]["reach"] == controls(alone)[0]["reached"]
    assert controls(metrics)[0]["error"] != controls(alone)[0]["error"]


def test_clamped_requests_count_for_nothing():
    """Whatever comes of a request beyond the reach, no error changes."""
    calibration = calibration_of(FIRST, OTHER)
    outcomes = [
        outcome_of(SETUP, gain=GAIN),
        with_calibration(calibration, gain=GAIN),
    ]
    before = summary_of(outcomes, calibration)
    for p, point in enumerate(outcomes[0].points):
        if point.along and point.targets[point.along] != calibration.curves[point.along].clamp(
            point.targets[point.along]
        ):
            for outcome in outcomes:
                outcome.scores[p] += 50.0
    after = summary_of(outcomes, calibration)
    assert after["models"] != before["models"]
    for name in (FIRST, OTHER):
        for one, other in zip(controls(before, name), controls(after, name), strict=True):
            assert one["reached"] != other["reached"]
            for figure in ("error", "sample_error"):
                assert one[figure] == other[figure]
    for one, other in zip(
        before["calibration"]["rewards"], after["calibration"]["rewards"], strict=True
    ):
        assert one["error_ratio"] == other["error_ratio"]


def said_of(outcomes, calibration):
    """The sentences about the calibration, and the metrics they are made of."""
    metrics = summary_of(outcomes, calibration)
    return [text for text in findings(metrics) if "alibrat" in text.split(":")[0]], metrics


def test_what_is_found_comes_first():
    calibration = calibration_of(FIRST)
    outcomes = [
        outcome_of(SETUP, name="plain", gain=GAIN, noise=0.02),
        with_calibration(calibration, gain=GAIN, noise=0.02, seed=1),
    ]
    _, metrics = said_of(outcomes, calibration)
    helped, left, *others = findings(metrics)
    without, calibrated = (with_interval(one["error"]) for one in controls(metrics))
    assert helped.startswith(
        f"Calibration brings the error of {FIRST} from {without} to {calibrated} z inside"
    )
    assert helped.endswith(" z: it helps.")
    assert left.startswith(f"{OTHER} is not calibrated")
    # The error of a calibrated reward is told once, and that of the other for each model.
    assert not any("misses" in text for text in others if f"for {FIRST}" in text)
    assert sum("misses" in text for text in others if f"for {OTHER}" in text) == 2


def test_verdicts():
    calibration = calibration_of(FIRST)
    good = outcome_of(SETUP, gain=1.0, noise=0.02)
    noisy = [outcome_of(SETUP, gain=1.0, noise=0.5, seed=seed) for seed in (1, 2)]
    (harm, _), _ = said_of([good, outcome_of(SETUP, gain=-1.0)], calibration)
    assert harm.endswith("it does harm.")
    (tie, _), _ = said_of(noisy, calibration)
    assert tie.endswith("the two cannot be told apart.")


def test_no_request_can_be_had():
    """A slider that reaches so little that the report asks for nothing in there."""
    calibration = calibration_of(FIRST, gain=1e-4)
    model = outcome_of(SETUP, gain=1e-4)
    requested = [p.targets[FIRST] for p in model.points if p.along == FIRST]
    low, high = calibration.curves[FIRST].reach
    assert not any(low <= z <= high for z in requested)
    (said, _), metrics = said_of([model, model], calibration)
    assert said.endswith("no request of the report lies in there.")
    assert [one["error"]["value"] for one in controls(metrics)] == [None, None]


def test_nothing_was_calibrated():
    calibration = calibration_of()
    said, metrics = said_of([outcome_of(SETUP)], calibration)
    assert [text.split()[0] for text in said] == [FIRST, OTHER]
    assert metrics["calibration"]["rewards"] == []
    assert "those inside what can be reached: nothing" in text_of(metrics)


@pytest.mark.parametrize("prompts", [SETUP.prompts, ["a crow", "a raven"]])
def test_the_page_says_whether_prompts_were_calibrated_on(prompts):
    calibration = dataclasses.replace(calibration_of(FIRST), prompts=prompts)
    model = outcome_of(SETUP)
    said = text_of(summary_of([model, model], calibration))
    apart = f"{len(prompts)} prompts that the report does not use"
    assert (apart in said) == (prompts != SETUP.prompts)
    assert f"moved alone, on {len(prompts)} prompts" in said


def text_of(metrics):
    return html.unescape(page(metrics, [], [], None))


def test_the_page_says_how():
    calibration = calibration_of(FIRST)
    model = outcome_of(SETUP, gain=GAIN)
    text = text_of(summary_of([model, with_calibration(calibration, gain=GAIN)], calibration))
    low, high = calibration.curves[FIRST].reach
    assert "seeds that it does not use (7, 8 for the first)" in text
    assert f"{FIRST} {low:+.2f} to {high:+.2f} z".replace("-", "−") in text
    assert "1\N{NARROW NO-BREAK SPACE}234 forward passes" in text
    assert "Calibration" not in text_of(summary_of([model], None))
