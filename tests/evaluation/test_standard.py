"""Rewards compared within a prompt, on a grid: one group of each prompt for a whole report."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ric_diffusion.evaluation.calibration import curves_of
from ric_diffusion.evaluation.grid import Point
from ric_diffusion.evaluation.metrics import means_of
from ric_diffusion.evaluation.report.summary import in_space, summarise
from ric_diffusion.evaluation.runner import run_sweep
from ric_diffusion.evaluation.standard import Standard
from ric_diffusion.rewards import Centring, RewardSpace
from support.scores import NAMES, base_of, config_of, scores_of, sweep_of

# Prompts differ by far more than samples of one: what is known of one is its own.
CENTRING = Centring(mean=10.0, between=1e6, within=2.0, variation=0.0)


def within_prompts(space, centring=CENTRING):
    """The first of its rewards is compared within prompts."""
    first = replace(space.rewards[0], mean=0.0, centring=centring)
    return replace(space, rewards=(first, *space.rewards[1:]))


CONFIG = replace(config_of(), space=within_prompts(config_of().space))
WORTH = np.array([500.0, -200.0, 0.0])[:, None, None]  # of each prompt, to every sample of it


def shifted(scores, config=CONFIG):
    """The same where prompts are worth something to the first reward."""
    raw = scores.scores.copy()
    raw[..., :1] += WORTH[: raw.shape[1]]
    return replace(scores, scores=raw, space=config.space if scores.space else None)


@pytest.fixture(scope="module")
def methods():
    return [scores_of(CONFIG), scores_of(CONFIG, name="weak", gain=0.3, seed=1), base_of(CONFIG)]


def test_samples_are_compared_with_all_of_their_prompt(methods):
    standard = Standard.of(CONFIG.space, [one.scores for one in methods])
    everything = np.concatenate([one.scores for one in methods])[..., 0]  # (P, Q, S)
    usual = everything.mean(axis=(0, 2))[:, None]
    for one in methods:
        z = standard.z(one.scores)
        expected = (one.scores[..., 0] - usual) / CONFIG.space.stds[0]
        assert z[..., 0] == pytest.approx(expected, abs=1e-6)
        other = (one.scores[..., 1] - CONFIG.space.means[1]) / CONFIG.space.stds[1]
        assert np.array_equal(z[..., 1], other)


def test_what_a_prompt_is_worth_changes_nothing_in_a_report(methods):
    def result(given):
        return summarise(given, CONFIG, Path("report"), model="m", versions={})

    plain, other = result(methods), result([shifted(one) for one in methods])
    assert plain.rewards[0].unit == "kB, within its prompt"
    for one, same in zip(plain.methods, other.methods, strict=True):
        assert same.hypervolume.value == pytest.approx(one.hypervolume.value, abs=1e-6)
        for a, b in zip(one.control, same.control, strict=True):
            assert b.error.value == pytest.approx(a.error.value, abs=1e-6)
            assert b.reachable == pytest.approx(a.reachable, abs=1e-6)
    over_all = replace(CONFIG, space=config_of().space)
    far = summarise(
        [shifted(one, over_all) for one in methods], over_all, Path("r"), model="m", versions={}
    )
    assert far.methods[0].control[0].error.value != pytest.approx(
        plain.methods[0].control[0].error.value, abs=1
    )


def test_a_calibration_does_not_see_what_a_prompt_is_worth():
    plain = curves_of(sweep_of(CONFIG, 0.4), CONFIG.space)[NAMES[0]]
    other = curves_of(shifted(sweep_of(CONFIG, 0.4)), CONFIG.space)[NAMES[0]]
    assert other.obtained == pytest.approx(plain.obtained, abs=1e-6)
    width = np.diff(CONFIG.space.range(NAMES[0]))[0]
    assert np.ptp(plain.obtained) == pytest.approx(0.4 * width, abs=1e-3)


def test_a_rejected_sample_is_no_part_of_its_prompt(methods):
    raw = methods[0].scores.copy()
    raw[0, 0, 0] = np.nan
    z = Standard.of(CONFIG.space, [raw]).z(raw)
    assert np.isnan(z[0, 0, 0]).all() and np.isfinite(z).sum() == z.size - 2
    usual = np.nanmean(raw[:, 0, :, 0])
    expected = (raw[1, 0, 0, 0] - usual) / CONFIG.space.stds[0]
    assert z[1, 0, 0, 0] == pytest.approx(expected, abs=1e-6)


def test_a_sweep_compares_its_own_samples(painter, space, fake_scorers):
    points = [Point(targets={"bright": z}) for z in (-1.0, 0.0, 1.0)]
    own = within_prompts(space)
    sweep = run_sweep(painter, own, points, ["a", "much longer"], [0], fake_scorers)
    assert sweep.scores[:, 1, 0, 0].tolist() == (sweep.scores[:, 0, 0, 0] + 30).tolist()
    assert sweep.z[:, 1, 0, 0] == pytest.approx(sweep.z[:, 0, 0, 0], abs=1e-6)
    assert means_of(sweep.z)[:, 0] == pytest.approx([-20 / 50, 0, 20 / 50], abs=1e-6)


def test_requests_are_told_in_the_spread_of_the_report():
    own = within_prompts(config_of().space, replace(CENTRING, within=4.0))
    assert in_space(1.0, NAMES[0], own, CONFIG.space) == pytest.approx(0.5)
    assert in_space(1.0, NAMES[1], own, CONFIG.space) == pytest.approx(1.0)


def test_a_space_without_such_rewards_is_as_before(methods):
    space: RewardSpace = config_of().space
    raw = methods[0].scores
    z = space.normalize(raw.reshape(-1, 2)).reshape(raw.shape)
    assert np.array_equal(Standard.of(space, [raw]).z(raw), z)
