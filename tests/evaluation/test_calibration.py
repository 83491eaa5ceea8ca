"""A calibration is fitted on a sweep of its own and judged by the requests that can be had."""

import dataclasses
import html
from pathlib import Path

import numpy as np
import pytest

from ric_diffusion.evaluation.calibration import curves_of, on_average, with_prompts
from ric_diffusion.evaluation.report.page import page
from ric_diffusion.evaluation.report.summary import summarise
from ric_diffusion.evaluation.report.text import statements, with_interval
from support.scores import NAMES, calibrated_scores, config_of, scores_of, sweep_of
from support.scores import calibration_of as fitted

GAIN = 0.4
FIRST, OTHER = NAMES[:2]
CONFIG = config_of()


def sweep(gain=GAIN, **changes):
    return sweep_of(CONFIG, gain, **changes)


def calibration_of(*names, gain=GAIN):
    return fitted(CONFIG, *names, gain=gain)


def with_calibration(calibration, **method):
    return calibrated_scores(CONFIG, calibration, **method)


def summary_of(given, calibration):
    return summarise(given, CONFIG, Path("report"), model="m", versions={}, calibration=calibration)


def controls(result, name=FIRST):
    """The control entries of one reward, a model each."""
    return [one for m in result.methods if (one := m.control_of(name))]


def test_curves_turn_the_sweep_around():
    curves = curves_of(sweep(), CONFIG.space)
    assert list(curves) == [FIRST, OTHER]
    for name, curve in curves.items():
        assert curve.reachable == pytest.approx([GAIN * end for end in CONFIG.space.range(name)])
        assert curve.request(0.3) == pytest.approx(0.3 / GAIN)


def test_a_reward_where_nothing_rises_has_no_curve():
    for gain in (0.0, -0.5):
        assert list(curves_of(sweep(np.array([GAIN, gain])), CONFIG.space)) == [FIRST]


def test_rejected_samples_are_no_part_of_a_curve():
    given = sweep()
    given.scores[2] = np.nan  # one point along the first reward
    given.scores[7:] = np.nan  # all along the other
    curves = curves_of(given, CONFIG.space)
    assert list(curves) == [FIRST]
    assert len(curves[FIRST].requested) == 6
    assert curves[FIRST].request(0.3) == pytest.approx(0.3 / GAIN)


def test_both_errors_are_over_the_requests_that_can_be_had():
    """By hand: a model that gives 0.4 z misses z by 0.6 |z|; calibrated it misses nothing."""
    calibration = calibration_of(FIRST)
    given = [
        scores_of(CONFIG, gain=GAIN, noise=0.0),
        with_calibration(calibration, gain=GAIN, noise=0.0),
    ]
    result = summary_of(given, calibration)
    without, calibrated = controls(result)
    reachable = calibration.curves[FIRST].reachable
    requested = np.array(without.requested)
    inside = requested[(requested >= reachable[0]) & (requested <= reachable[1])]
    assert len(inside) == 3  # inside what the model itself reached there would be one
    assert without.reachable == calibrated.reachable == reachable
    assert calibrated.requested == without.requested
    expected = 0.6 * np.abs(inside).mean()
    for figure in ("error", "sample_error"):
        assert getattr(without, figure).value == pytest.approx(expected)
        assert getattr(calibrated, figure).value == pytest.approx(0, abs=1e-9)
    (found,) = result.calibration.rewards
    assert found.reward == FIRST and found.reachable == reachable
    assert found.curve == calibration.curves[FIRST]
    assert found.error_ratio.value == pytest.approx(0, abs=1e-9)
    assert result.calibration.seeds == (7, 8)
    assert result.calibration.cost.forwards == 1234


@pytest.mark.parametrize("pair", [(0, 1), (1, 0)])
def test_the_pair_may_come_in_either_order(pair):
    """Both errors are known by name, whichever of the two comes first in the report."""
    calibration = dataclasses.replace(calibration_of(FIRST), pair=pair)
    both = [
        scores_of(CONFIG, gain=GAIN, noise=0.02),
        with_calibration(calibration, gain=GAIN, noise=0.02, seed=1),
    ]
    result = summary_of([both[i] for i in pair], calibration)
    assert result.calibration.methods == ("method", "calibrated")
    without, after = (controls(result)[i].error for i in pair)
    assert result.calibration_errors(FIRST) == (without, after)
    assert after.value < without.value
    (found,) = result.calibration.rewards
    assert found.error_ratio.value == pytest.approx(after.value / without.value)
    with pytest.raises(ValueError, match="not calibrated in this report"):
        summary_of(both, None).calibration_errors(FIRST)


def test_the_error_of_all_sliders_is_over_the_requests_of_each():
    """By hand: the first reward has 0.6 of each request missing, the other 0.2."""
    model = {"gain": np.array([0.4, 0.8]), "noise": 0.0}
    curves = curves_of(sweep(**model), CONFIG.space)
    calibration = dataclasses.replace(calibration_of(), curves=curves)
    pair = [scores_of(CONFIG, **model), with_calibration(calibration, **model)]
    result = summary_of(pair[::-1], dataclasses.replace(calibration, pair=(0, 1)))
    missing = []
    for name, fraction in ((FIRST, 0.6), (OTHER, 0.2)):
        requested = np.array(controls(result, name)[0].requested)
        low, high = curves[name].reachable
        inside = requested[(requested >= low) & (requested <= high)]
        missing += (fraction * np.abs(inside)).tolist()
    found = result.calibration
    assert found.error.value == pytest.approx(np.mean(missing))  # the pair is turned around
    assert found.error_ratio.value > 100
    assert found.rewards[0].error_ratio != found.rewards[1].error_ratio


def test_the_reward_without_a_curve_is_judged_as_ever():
    calibration = calibration_of(FIRST)
    model = scores_of(CONFIG, gain=GAIN)
    result = summary_of([model, model], calibration)
    alone = summary_of([model], None)
    assert alone.calibration is None
    assert result.calibration.uncalibrated == (OTHER,)
    assert controls(result, OTHER)[0] == controls(alone, OTHER)[0]
    assert controls(alone)[0].reachable == controls(alone)[0].reached
    assert controls(result)[0].error != controls(alone)[0].error


def test_clamped_requests_count_for_nothing():
    """Whatever comes of a request beyond the reachable range, no error changes."""
    calibration = calibration_of(FIRST, OTHER)
    given = [
        scores_of(CONFIG, gain=GAIN),
        with_calibration(calibration, gain=GAIN),
    ]
    before = summary_of(given, calibration)
    for p, point in enumerate(given[0].points):
        if point.along and point.targets[point.along] != calibration.curves[point.along].clamp(
            point.targets[point.along]
        ):
            for one in given:
                one.scores[p] += 50.0
    after = summary_of(given, calibration)
    assert after.methods != before.methods
    for name in (FIRST, OTHER):
        for one, other in zip(controls(before, name), controls(after, name), strict=True):
            assert one.reached != other.reached
            for figure in ("error", "sample_error"):
                assert getattr(one, figure) == getattr(other, figure)
    for one, other in zip(before.calibration.rewards, after.calibration.rewards, strict=True):
        assert one.error_ratio == other.error_ratio


def said_of(given, calibration):
    """The sentences about the calibration, and the result they are made of."""
    result = summary_of(given, calibration)
    return [text for text in statements(result) if "alibrat" in text.split(":")[0]], result


def test_what_is_found_comes_first():
    calibration = calibration_of(FIRST)
    given = [
        scores_of(CONFIG, name="plain", gain=GAIN, noise=0.02),
        with_calibration(calibration, gain=GAIN, noise=0.02, seed=1),
    ]
    _, result = said_of(given, calibration)
    helped, single, left, *others = statements(result)
    without, calibrated = (with_interval(one.error) for one in controls(result))
    assert helped.startswith(
        f"Calibration brings the error of {FIRST} from {without} to {calibrated} z inside"
    )
    assert helped.endswith(" z: it helps.")
    assert single.startswith(f"A single sample misses the {FIRST} it was asked for by")
    assert left.startswith(f"{OTHER} is not calibrated")
    # The error of a calibrated reward is told once, and that of the other for each model.
    assert not any("misses" in text for text in others if f"for {FIRST}" in text)
    assert sum("misses" in text for text in others if f"for {OTHER}" in text) == 2


def test_verdicts():
    calibration = calibration_of(FIRST)
    good = scores_of(CONFIG, gain=1.0, noise=0.02)
    noisy = [scores_of(CONFIG, gain=1.0, noise=0.5, seed=seed) for seed in (1, 2)]
    (harm, *_), _ = said_of([good, scores_of(CONFIG, gain=-1.0)], calibration)
    assert harm.endswith("it does harm.")
    (tie, *_), _ = said_of(noisy, calibration)
    assert tie.endswith("the two cannot be told apart.")


def test_no_request_can_be_had():
    """A slider that reaches so little that the report asks for nothing in there."""
    calibration = calibration_of(FIRST, gain=1e-4)
    model = scores_of(CONFIG, gain=1e-4)
    requested = [p.targets[FIRST] for p in model.points if p.along == FIRST]
    low, high = calibration.curves[FIRST].reachable
    assert not any(low <= z <= high for z in requested)
    (said, _), result = said_of([model, model], calibration)
    assert said.endswith("no request of the report lies in there.")
    assert [one.error.value for one in controls(result)] == [None, None]


def test_nothing_was_calibrated():
    calibration = calibration_of()
    said, result = said_of([scores_of(CONFIG)], calibration)
    assert [text.split()[0] for text in said] == [FIRST, OTHER]
    assert result.calibration.rewards == ()
    assert "those inside what can be reached: nothing" in text_of(result)


@pytest.mark.parametrize("prompts", [CONFIG.prompts, ["a crow", "a raven"]])
def test_the_page_says_whether_prompts_were_calibrated_on(prompts):
    calibration = dataclasses.replace(calibration_of(FIRST), prompts=prompts)
    model = scores_of(CONFIG)
    said = text_of(summary_of([model, model], calibration))
    apart = f"{len(prompts)} prompts that the report does not use"
    assert (apart in said) == (prompts != CONFIG.prompts)
    assert f"moved alone, on {len(prompts)} prompts" in said


def text_of(result):
    return html.unescape(page(result, [], [], None))


def test_the_page_says_how():
    calibration = calibration_of(FIRST)
    model = scores_of(CONFIG, gain=GAIN)
    text = text_of(summary_of([model, with_calibration(calibration, gain=GAIN)], calibration))
    low, high = calibration.curves[FIRST].reachable
    assert "seeds that it does not use (7, 8 for the first)" in text
    assert f"{FIRST} {low:+.2f} to {high:+.2f} z".replace("-", "−") in text
    assert "1\N{NARROW NO-BREAK SPACE}234 forward passes" in text
    assert "Calibration" not in text_of(summary_of([model], None))


MANY = config_of(prompts=[f"prompt {q}" for q in range(16)])


def shifted(scores, shifts):
    """The same scores with so many z more of the first reward for each prompt, (Q,)."""
    moved = scores.scores.copy()
    moved[..., 0] += CONFIG.space.stds[0] * np.asarray(shifts)[:, None]
    return dataclasses.replace(scores, scores=moved)


def prompt_aware():
    """The calibration of a method whose prompts differ in the first reward alone, and how much."""
    features = np.random.default_rng(3).normal(size=(16, 2))
    shifts = 0.5 * (features[:, 0] - features[:, 0].mean())
    found = shifted(sweep_of(MANY, GAIN, noise=0.05), shifts)
    curves = with_prompts(curves_of(found, MANY.space), found, MANY.space, features)
    calibration = dataclasses.replace(
        calibration_of(), curves=curves, prompts=MANY.prompts, average=2
    )
    return calibration, features, shifts


def test_prompts_are_known_where_their_features_tell_them_apart():
    calibration, features, shifts = prompt_aware()
    curve, other = calibration.curves[FIRST], calibration.curves[OTHER]
    assert other.prompt is None and curve.prompt.slope is None
    for row, shift in zip(features, shifts, strict=True):
        own = curve.for_prompt(row)
        assert own.obtained == pytest.approx(np.array(curve.obtained) + shift, abs=0.15)
    before, after = curve.prompt.errors
    assert before == pytest.approx(np.abs(shifts).mean(), abs=0.1) and after < 0.3 * before
    assert on_average(calibration.curves)[FIRST] == dataclasses.replace(curve, prompt=None)


def test_the_report_tells_single_samples_before_on_average_and_with_the_prompt():
    calibration, _, shifts = prompt_aware()
    given = [
        shifted(scores_of(MANY, name="plain", gain=GAIN, noise=0.05), shifts),
        scores_of(MANY, name="calibrated", gain=1.0, noise=0.05, seed=1),
        shifted(scores_of(MANY, name="on average", gain=1.0, noise=0.05, seed=2), shifts),
    ]
    result = summarise(given, MANY, Path("report"), model="m", versions={}, calibration=calibration)
    assert result.calibration.methods == ("plain", "calibrated")
    assert result.calibration.average == "on average"
    first, second = result.calibration.rewards
    assert first.left_out == calibration.curves[FIRST].prompt.errors and second.left_out is None
    assert first.curve.prompt is None  # a report does without its numbers
    errors = result.sample_errors(FIRST)
    values = [one.value for one in errors]
    assert values == sorted(values, reverse=True)
    assert values[1] == pytest.approx(np.abs(shifts).mean(), abs=0.08) and values[2] < 0.1
    told = [with_interval(one) for one in errors]
    promised = f"{first.left_out[1]:.2f}"
    assert (
        f"A single sample misses the {FIRST} it was asked for by {told[0]} z without calibration, "
        f"{told[1]} z with the average curve and {told[2]} z with calibration for its prompt, of "
        f"which prompts left out of the fit promised {promised} z."
    ) in statements(result)
    assert f"{first.left_out[0]:.2f} z by the average curve, {promised} z with the prompt" in (
        text_of(result)
    )


def test_a_calibration_that_knows_no_prompts_says_so():
    calibration = calibration_of(FIRST)
    given = [
        scores_of(CONFIG, gain=GAIN, noise=0.05),
        with_calibration(calibration, gain=GAIN, noise=0.05),
    ]
    result = summary_of(given, calibration)
    assert result.calibration.average is None and len(result.sample_errors(FIRST)) == 2
    assert "what a prompt gives is not told from its features" in text_of(result)
    assert summary_of(given, None).sample_errors(FIRST) == []
