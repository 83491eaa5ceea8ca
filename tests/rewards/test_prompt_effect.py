"""What prompts change of a curve: found where features tell it, and nothing where they do not."""

import json
from dataclasses import replace

import numpy as np
import pytest

from ric_diffusion.io.errors import InputError
from ric_diffusion.rewards import Curve
from ric_diffusion.rewards.prompt_effect import LEAST_PROMPTS, PromptEffect, _kernel, fit_effect

CURVE = np.linspace(-1, 1, 7)


def sweep(offsets, slopes=0.0, *, seeds=2, noise=0.1, prompts=32):
    """Obtained (P, Q, S) of prompts with these offsets and slopes; each seed has a noise that all
    its points share, and every sample one of its own."""
    rng = np.random.default_rng(0)
    shape = len(CURVE), prompts, seeds
    moved = CURVE[:, None] * (1 + np.zeros(prompts) + slopes) + np.zeros(prompts) + offsets
    shared = rng.normal(size=shape[1:]) * noise
    return moved[..., None] + shared + 0.05 * rng.normal(size=shape)


def features(prompts=32, count=16, seed=1):
    return np.random.default_rng(seed).normal(3.0, 2.0, size=(prompts, count))


def test_offset_and_slope_are_found_and_hold_for_a_prompt_never_seen():
    x = features(40, 4)
    offsets, slopes = 0.4 * (x[:, 0] - 3), 0.15 * (x[:, 1] - 3)
    obtained = sweep(offsets, slopes, prompts=40)
    effect = fit_effect(x[:32], CURVE, obtained[:, :32])
    assert effect.offset is not None and effect.slope is not None
    assert effect.errors[1] < 0.35 * effect.errors[0]
    left = slice(32, None)
    average = np.abs(obtained[:, left] - CURVE[:, None, None]).mean()
    moved = np.array([effect.applied(CURVE, row) for row in x[left]]).T[..., None]
    known = np.abs(obtained[:, left] - moved).mean()
    assert known < 0.5 * average
    assert effect.errors[0] == pytest.approx(average, rel=0.5)


def test_the_error_told_is_that_of_prompts_left_out():
    """By hand: the fit without one prompt after the other, by the strength that all of them chose,
    misses by what is told."""
    x = features(24, 3)
    obtained = sweep(0.5 * (x[:, 0] - 3), prompts=24)
    effect = fit_effect(x, CURVE, obtained)
    assert effect.slope is None
    weights = np.array(effect.offset.weights)
    assert weights[0] * 2.0 == pytest.approx(1.0, abs=0.15) and np.abs(weights[1:]).max() < 0.05
    inside = np.abs(obtained - CURVE[:, None, None] - 0.5 * (x[:, 0] - 3)[:, None]).mean()
    assert inside < effect.errors[1] < 2 * inside


def test_features_that_tell_nothing_give_nothing():
    rng = np.random.default_rng(5)
    obtained = sweep(rng.normal(size=32), 0.3 * rng.normal(size=32))
    found = [fit_effect(features(seed=seed), CURVE, obtained) for seed in range(20)]
    assert sum(effect is not None for effect in found) <= 4  # of two chances in twenty each


def test_prompts_that_differ_by_their_seeds_alone_give_nothing():
    """Two seeds on either side say little of their prompt, whatever little they do not cancel."""
    x = features(32, 2)
    seeds = np.array([1.0, -1.0]) * (0.5 + np.random.default_rng(2).random(32))[:, None]
    obtained = CURVE[:, None, None] + seeds + 0.1 * (x[:, :1] - 3)
    assert fit_effect(x, CURVE, obtained) is None
    assert fit_effect(x, CURVE, obtained - 0.9 * seeds) is not None


def test_no_features_that_vary_and_too_few_prompts_give_nothing():
    x = features(32, 2)
    obtained = sweep(x[:, 0])
    assert fit_effect(x, CURVE, obtained) is not None
    assert fit_effect(np.ones_like(x), CURVE, obtained) is None
    few = LEAST_PROMPTS - 1
    assert fit_effect(x[:few], CURVE, obtained[:, :few]) is None


def test_samples_left_out_count_for_nothing():
    x = features(32, 2)
    obtained = sweep(0.5 * x[:, 0] - 1.5)
    obtained[:, 3] = np.nan  # all of a prompt
    obtained[2:, 4, 0] = np.nan
    effect = fit_effect(x, CURVE, obtained)
    assert effect.offset.weights[0] == pytest.approx(0.5, abs=0.05)
    assert np.isfinite(effect.errors).all()


def test_one_seed_is_enough():
    x = features(32, 2)
    effect = fit_effect(x, CURVE, sweep(0.5 * (x[:, 0] - 3), seeds=1))
    assert effect.offset.weights[0] == pytest.approx(0.5, abs=0.1)


def stored(**changes):
    part = {"weights": [0.5, 0.0], "bias": 0.1, "limits": [-1.0, 1.0]}
    slope = {"weights": [0.0, 0.2], "bias": 0.0, "limits": [-0.5, 0.5]}
    return {"offset": part, "slope": slope, "pivot": 0.0, "errors": [0.6, 0.3], **changes}


def curve():
    return Curve(
        requested=(-2.0, 2.0), obtained=(-1.0, 1.0), prompt=PromptEffect.from_dict(stored())
    )


def test_a_curve_is_moved_and_turned_around_for_its_prompt():
    own = curve().for_prompt([1.0, 1.0])  # offset 0.6, slope 0.2
    assert own.prompt is None and own.requested == (-2.0, 2.0)
    assert own.reachable == pytest.approx((-0.6, 1.8))
    assert own.request(0.6) == pytest.approx(0.0) and own.request(1.2) == pytest.approx(1.0)
    pivoted = PromptEffect.from_dict(stored(pivot=0.5))
    assert pivoted.applied([0.5, 1.5], [1.0, 1.0]).tolist() == pytest.approx([1.1, 2.3])
    sloped = PromptEffect.from_dict(stored(offset=None))  # without an offset there is none
    assert sloped.applied([0.0, 1.0], [1.0, 1.0]).tolist() == pytest.approx([0.0, 1.2])
    far = curve().for_prompt([100.0, -100.0])  # no prompt is taken for what none of them was
    assert far.obtained == pytest.approx((0.5, 1.5))
    plain = replace(curve(), prompt=None)
    assert plain.for_prompt([1.0, 1.0]) is plain


def test_it_is_stored_as_plain_data_and_read_back():
    plain = json.loads(json.dumps(curve().to_dict()))
    assert plain["prompt"] == stored()
    assert Curve.from_dict(plain) == curve()
    assert replace(curve(), prompt=None).to_dict() == {
        "requested": (-2.0, 2.0),
        "obtained": (-1.0, 1.0),
    }
    x = features(48, 64)
    x[:, 1:] = x[:, :1] + 0.1 * x[:, 1:]
    fitted = replace(curve(), prompt=fit_effect(x, CURVE, sweep(x[:, 0] - 3, prompts=48)))
    assert fitted.prompt.features == 64
    text = json.dumps(fitted.to_dict())
    assert Curve.from_dict(json.loads(text)) == fitted and len(text) < 3000


BROKEN = {"weights": [0.5, float("nan")], "bias": 0.0, "limits": [0.0, 1.0]}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"offset": BROKEN}, "weights must be finite"),
        ({"offset": {**BROKEN, "weights": []}}, "weights must be 1 to 4096 numbers"),
        ({"offset": {**BROKEN, "weights": [0.0] * 5000}}, "weights must be 1 to 4096 numbers"),
        ({"offset": {**BROKEN, "weights": [0.0], "limits": [0.0, 1.0]}}, "the same features"),
        ({"offset": {**BROKEN, "weights": [0.0, 0.0], "limits": [1.0, 0.0]}}, "the lower first"),
        ({"offset": {**BROKEN, "weights": [0.0, 0.0], "limits": [0.0]}}, "must be two numbers"),
        ({"offset": {"weights": [0.0]}}, "field bias, limits is missing"),
        ({"offset": None, "slope": None}, "offset and slope"),
        ({"slope": {**BROKEN, "weights": [0.0, 0.0], "limits": [-1.0, 1.0]}}, "slope must be -0.8"),
        ({"pivot": "0"}, "pivot must be a number"),
        ({"errors": [0.1]}, "errors must be two numbers"),
        ({"errors": [0.1, "0"]}, "prompt: errors must be a number, not .0."),
        ({"errors": [0.1, 1e9]}, "prompt: errors is 1000000000.0"),
        ({"more": 1}, "unknown field 'more'"),
    ],
)
def test_what_is_malformed_is_refused(changes, said):
    with pytest.raises(InputError, match=said):
        PromptEffect.from_dict(stored(**changes))


def test_what_is_malformed_is_said_to_be_the_calibrations():
    for changes in ({"more": 1}, {"offset": {"weights": [0.0]}}):
        with pytest.raises(InputError, match=r"^calibration: prompt"):
            PromptEffect.from_dict(stored(**changes))


def test_other_features_than_it_was_fitted_on_are_refused():
    with pytest.raises(InputError, match="reads 2 features of a prompt, this model has 3"):
        curve().for_prompt([1.0, 2.0, 3.0])


def test_a_feature_that_varies_by_rounding_alone_tells_nothing():
    """A thousand for every prompt, but for the last bits: these follow the offsets, by chance."""
    x = features(40, 4)
    offsets = 0.4 * (x[:, 0] - 3)
    plain = fit_effect(x, CURVE, sweep(offsets, prompts=40))
    more = np.concatenate([x, 1000 + 1e-10 * offsets[:, None]], axis=1)
    found = fit_effect(more, CURVE, sweep(offsets, prompts=40))
    assert found.offset.weights[:4] == pytest.approx(plain.offset.weights)
    assert found.offset.weights[4] == 0


def test_the_kernel_by_hand():
    """Products of standard scores over the number of features that vary; the dual coefficients of
    a regression on them are one on the features themselves."""
    x = np.array([[0.0, 7.0, 1.0], [2.0, 7.0, 1.0], [4.0, 7.0, 7.0], [2.0, 7.0, 3.0]])
    scores = (x - x.mean(axis=0))[:, [0, 2]] / x.std(axis=0)[[0, 2]]
    kernel, to_weights = _kernel(x)
    assert kernel == pytest.approx(scores @ scores.T / 2)
    assert np.trace(kernel) / 4 == pytest.approx(1.0)
    dual = np.array([0.5, -1.0, 2.0, 0.25])
    weights = to_weights(dual)
    assert weights[1] == 0.0
    assert (x - x.mean(axis=0)) @ weights == pytest.approx(kernel @ dual)
    alone, of_one = _kernel(x[:, :1])
    assert alone == pytest.approx(np.outer(scores[:, 0], scores[:, 0]))
    assert (x[:, :1] - 2.0) @ of_one(dual) == pytest.approx(alone @ dual)
    same, of_none = _kernel(x[:, 1:2])
    assert not same.any() and of_none(dual).tolist() == [0.0]
