"""The result says what the scores say."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from ric_diffusion.evaluation.report.schema import Estimate, EvaluationResult, NearFront
from ric_diffusion.evaluation.report.summary import summarise
from ric_diffusion.models.cost import Cost
from ric_diffusion.rewards import hypervolume
from support.scores import NAMES, PROMPTS, SEEDS, base_of, config_of, scores_of, space


@pytest.fixture
def summary_of(tmp_path):
    """summary_of(given, config): the result as it is read back from metrics.json."""

    def read_back(given, config, out=Path("report")):
        found = summarise(given, config, out, model="emoji-64", versions={"ric-diffusion": "1"})
        found.save(tmp_path / "metrics.json")
        assert EvaluationResult.load(tmp_path / "metrics.json") == found
        return found

    return read_back


@pytest.fixture
def config():
    return config_of(held_out=["aesthetic"])


def test_one_method_by_hand(summary_of, config):
    given = scores_of(config)
    found = summary_of([given], config)
    (method,) = found.methods
    z = (given.scores[:5] - config.space.means) / config.space.stds
    means = z.mean(axis=(1, 2))
    assert method.hypervolume.value == pytest.approx(hypervolume(means, np.full(2, -2.0)))
    assert method.hypervolume.low < method.hypervolume.value
    assert method.hypervolume.value < method.hypervolume.high
    assert method.hypervolume_ratio is None
    assert len(method.points) == 5
    for p, point in enumerate(method.points):
        assert point.preference == given.points[p].preference
        assert point.targets == pytest.approx(given.points[p].targets)
        for i, name in enumerate(config.space.names):
            assert point.obtained[name].value == pytest.approx(means[p, i])
            raw = given.scores[p, ..., i].mean()
            assert point.scores[name] == pytest.approx(raw)
        assert point.held_out["aesthetic"].value == pytest.approx(given.held_out[p].mean())
        assert point.prompt_r_precision.value == pytest.approx(given.prompt_r_precision[p].mean())
        assert point.diversity.value == pytest.approx(given.diversity[p].mean())
    assert method.diversity.value == pytest.approx(given.diversity.mean())
    assert method.prompt_r_precision.value == pytest.approx(given.prompt_r_precision.mean())
    assert method.samples == 15 * 3 * 2
    assert method.cost == Cost(forwards=480, scored=0, seconds=12.5)
    assert found.reference == (-2, -2)
    assert (found.prompts, found.seeds) == (tuple(PROMPTS), tuple(SEEDS))


def test_points_say_which_files_show_them(summary_of, config):
    given = scores_of(config, name="my run")
    (method,) = summary_of([given], config).methods
    files = method.points[3].files
    assert len(files) == 3 and len(files[0]) == 2
    assert files[2][1] == "methods/my-run/samples/003/0002-1006.png"


def test_control_of_a_model_that_gives_half(summary_of, config):
    (method,) = summary_of([scores_of(config, gain=0.5, noise=0.0)], config).methods
    assert [sweep.reward for sweep in method.control] == list(config.space.names)
    for sweep in method.control:
        requested = np.array(sweep.requested)
        obtained = [one.value for one in sweep.obtained]
        assert obtained == pytest.approx(requested / 2)
        assert sweep.reached == pytest.approx((requested[0] / 2, requested[-1] / 2))
        assert sweep.saturation.value == pytest.approx(0.5)
        inside = np.abs(requested) <= np.abs(requested[[0, -1]]).max() / 2
        inside &= (requested >= requested[0] / 2) & (requested <= requested[-1] / 2)
        expected = np.abs(requested[inside] / 2).mean()
        assert sweep.error.value == pytest.approx(expected)
        assert sweep.error.low == pytest.approx(expected)  # nothing varies
        assert sweep.spearman_of_means == pytest.approx(1)
        assert sweep.spearman_per_sample == pytest.approx(1)


def test_errors_of_several_methods_are_over_what_any_of_them_reaches(summary_of, config):
    """By hand: asked for z the one gives z, the other 0.1 z, which misses by 0.9 |z| on average;
    over what it reaches itself, it would hardly miss."""
    methods = [
        scores_of(config, name=name, gain=gain, noise=0.0)
        for name, gain in (("good", 1.0), ("weak", 0.1))
    ]
    good, weak = summary_of(methods, config).methods
    for theirs, sweep in zip(good.control, weak.control, strict=True):
        requested = np.array(sweep.requested)
        assert sweep.reachable == theirs.reachable == pytest.approx(tuple(requested[[0, -1]]))
        assert sweep.error.value == pytest.approx(0.9 * np.abs(requested).mean())
        assert theirs.error.value == pytest.approx(0, abs=1e-9)


def test_everything_is_in_z_of_the_report(summary_of, config):
    """A method trained on other statistics, that gives what it is asked in its own z."""
    other = space(mean=11.0, std=4.0)
    methods = [
        scores_of(config, name="first", gain=1.0, noise=0.0),
        scores_of(config, name="other", gain=1.0, noise=0.0, own=other),
    ]
    _, found = summary_of(methods, config).methods
    for sweep in found.control:
        obtained = [one.value for one in sweep.obtained]
        assert sweep.requested == pytest.approx(obtained)
        assert sweep.error.value == pytest.approx(0, abs=1e-9)
        # z of the report = (11 + 4 own - 10) / 2
        own = methods[1].points[5].targets if sweep.reward == NAMES[0] else None
        if own:
            assert sweep.requested[0] == pytest.approx(0.5 + 2 * own[NAMES[0]])


def test_ratio_to_the_first(summary_of, config):
    methods = [scores_of(config, "first", gain=0.2), scores_of(config, "second", gain=0.6, seed=1)]
    first, second = summary_of(methods, config).methods
    ratio = second.hypervolume_ratio
    values = [method.hypervolume.value for method in (first, second)]
    assert ratio.value == pytest.approx(values[1] / values[0])
    assert 1 < ratio.low < ratio.value < ratio.high
    assert summary_of(methods[::-1], config).methods[1].hypervolume_ratio.high < 1


def test_model_without_sliders(summary_of, config):
    method = summary_of([scores_of(config), base_of(config)], config).methods[1]
    (point,) = method.points
    assert point.preference is None and point.targets == {}
    assert method.control == ()
    assert method.near_front == NearFront(count=1, total=1)
    assert method.hypervolume.value == pytest.approx(4, abs=1)


def test_rejected_samples_are_left_out(summary_of, config):
    given = scores_of(config, noise=0.0, rejected={"blank": 2})
    clean = summary_of([given], config).methods[0]
    given.scores[:, 1, 0] = np.nan  # what is left gives the same
    given.held_out[:, 1, 0] = np.nan
    found = summary_of([given], config).methods[0]
    assert found.rejected == {"blank": 2}
    assert found.hypervolume.value == pytest.approx(clean.hypervolume.value)
    assert asdict(found.control[0].error) == pytest.approx(asdict(clean.control[0].error))


def test_nothing_but_rejected_samples(summary_of, config):
    given = scores_of(config)
    given.scores[:], given.held_out[:] = np.nan, np.nan
    (found,) = summary_of([given], config).methods
    assert found.hypervolume == Estimate(value=0, low=0, high=0)
    assert found.points[0].obtained[NAMES[0]] == Estimate(value=None, low=None, high=None)
    assert found.control[0].reached == (None, None)
    assert found.control[0].error.value is None
    assert found.near_front.count == 0


@pytest.mark.parametrize("n", [1, 3])
def test_other_numbers_of_rewards(summary_of, n):
    config = config_of(n)
    found = summary_of([scores_of(config), base_of(config)], config)
    assert found.reference == (-2,) * n
    assert len(found.methods[0].points) == (1 if n == 1 else 5)
    assert len(found.methods[0].control) == n
    assert found.methods[1].hypervolume.value == pytest.approx(2**n, abs=0.5 * 2**n)
