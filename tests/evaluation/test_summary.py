"""metrics.json says what the scores say."""

import json
from pathlib import Path

import numpy as np
import pytest

from ric_diffusion.evaluation.summary import summarise
from ric_diffusion.rewards import hypervolume
from support.outcomes import NAMES, PROMPTS, SEEDS, base_of, outcome_of, setup_of, space


def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")


def summary_of(outcomes, setup, out=Path("report")):
    """metrics.json as it is read back."""
    found = summarise(outcomes, setup, out, model="emoji-64", versions={"ric-diffusion": "1"})
    return json.loads(json.dumps(found), parse_constant=refuse)


@pytest.fixture
def setup():
    return setup_of(held_out=["aesthetic"])


def test_one_model_by_hand(setup):
    outcome = outcome_of(setup)
    found = summary_of([outcome], setup)
    (model,) = found["models"]
    z = (outcome.scores[:5] - setup.space.means) / setup.space.stds
    means = z.mean(axis=(1, 2))
    assert model["hypervolume"]["value"] == pytest.approx(hypervolume(means, np.full(2, -2.0)))
    assert model["hypervolume"]["low"] < model["hypervolume"]["value"]
    assert model["hypervolume"]["value"] < model["hypervolume"]["high"]
    assert model["hypervolume_ratio"] is None
    assert len(model["points"]) == 5
    for p, point in enumerate(model["points"]):
        assert point["preference"] == outcome.points[p].preference
        assert point["targets"] == pytest.approx(outcome.points[p].targets)
        for i, name in enumerate(setup.space.names):
            assert point["obtained"][name]["value"] == pytest.approx(means[p, i])
            raw = outcome.scores[p, ..., i].mean()
            assert point["scores"][name] == pytest.approx(raw)
        assert point["held_out"]["aesthetic"]["value"] == pytest.approx(outcome.held_out[p].mean())
        assert point["prompt_kept"]["value"] == pytest.approx(outcome.kept[p].mean())
        assert point["diversity"]["value"] == pytest.approx(outcome.diversity[p].mean())
    assert model["diversity"]["value"] == pytest.approx(outcome.diversity.mean())
    assert model["prompt_kept"]["value"] == pytest.approx(outcome.kept.mean())
    assert model["samples"] == 15 * 3 * 2
    assert model["cost"] == {"forwards": 480, "scored": 0, "seconds": 12.5}
    assert found["reference"] == [-2, -2]
    assert (found["prompts"], found["seeds"]) == (PROMPTS, SEEDS)


def test_points_say_which_files_show_them(setup):
    outcome = outcome_of(setup, name="my run")
    (model,) = summary_of([outcome], setup)["models"]
    files = model["points"][3]["files"]
    assert len(files) == 3 and len(files[0]) == 2
    assert files[2][1] == "models/my-run/samples/003/0002-1006.png"


def test_control_of_a_model_that_gives_half(setup):
    (model,) = summary_of([outcome_of(setup, gain=0.5, noise=0.0)], setup)["models"]
    assert [sweep["reward"] for sweep in model["control"]] == list(setup.space.names)
    for sweep in model["control"]:
        requested = np.array(sweep["requested"])
        obtained = [one["value"] for one in sweep["obtained"]]
        assert obtained == pytest.approx(requested / 2)
        assert sweep["reached"] == pytest.approx([requested[0] / 2, requested[-1] / 2])
        assert sweep["saturation"]["value"] == pytest.approx(0.5)
        inside = np.abs(requested) <= np.abs(requested[[0, -1]]).max() / 2
        inside &= (requested >= requested[0] / 2) & (requested <= requested[-1] / 2)
        expected = np.abs(requested[inside] / 2).mean()
        assert sweep["error"]["value"] == pytest.approx(expected)
        assert sweep["error"]["low"] == pytest.approx(expected)  # nothing varies
        assert sweep["spearman_of_means"] == pytest.approx(1)
        assert sweep["spearman_per_sample"] == pytest.approx(1)


def test_errors_of_several_models_are_over_what_any_of_them_reaches(setup):
    """By hand: asked for z the one gives z, the other 0.1 z, which misses by 0.9 |z| on average;
    over what it reaches itself, it would hardly miss."""
    models = [
        outcome_of(setup, name=name, gain=gain, noise=0.0)
        for name, gain in (("good", 1.0), ("weak", 0.1))
    ]
    good, weak = summary_of(models, setup)["models"]
    for theirs, sweep in zip(good["control"], weak["control"], strict=True):
        requested = np.array(sweep["requested"])
        assert sweep["reach"] == theirs["reach"] == pytest.approx(requested[[0, -1]].tolist())
        assert sweep["error"]["value"] == pytest.approx(0.9 * np.abs(requested).mean())
        assert theirs["error"]["value"] == pytest.approx(0, abs=1e-9)


def test_everything_is_in_z_of_the_report(setup):
    """A model trained on other statistics, that gives what it is asked in its own z."""
    other = space(mean=11.0, std=4.0)
    models = [
        outcome_of(setup, name="first", gain=1.0, noise=0.0),
        outcome_of(setup, name="other", gain=1.0, noise=0.0, own=other),
    ]
    _, found = summary_of(models, setup)["models"]
    for sweep in found["control"]:
        obtained = [one["value"] for one in sweep["obtained"]]
        assert sweep["requested"] == pytest.approx(obtained)
        assert sweep["error"]["value"] == pytest.approx(0, abs=1e-9)
        # z of the report = (11 + 4 own - 10) / 2
        own = models[1].points[5].targets if sweep["reward"] == NAMES[0] else None
        if own:
            assert sweep["requested"][0] == pytest.approx(0.5 + 2 * own[NAMES[0]])


def test_ratio_to_the_first(setup):
    models = [outcome_of(setup, "first", gain=0.2), outcome_of(setup, "second", gain=0.6, seed=1)]
    first, second = summary_of(models, setup)["models"]
    ratio = second["hypervolume_ratio"]
    values = [model["hypervolume"]["value"] for model in (first, second)]
    assert ratio["value"] == pytest.approx(values[1] / values[0])
    assert 1 < ratio["low"] < ratio["value"] < ratio["high"]
    assert summary_of(models[::-1], setup)["models"][1]["hypervolume_ratio"]["high"] < 1


def test_model_without_sliders(setup):
    model = summary_of([outcome_of(setup), base_of(setup)], setup)["models"][1]
    (point,) = model["points"]
    assert point["preference"] is None and point["targets"] == {}
    assert model["control"] == []
    assert model["near_front"] == {"count": 1, "of": 1}
    assert model["hypervolume"]["value"] == pytest.approx(4, abs=1)


def test_faulty_samples_are_left_out(setup):
    outcome = outcome_of(setup, noise=0.0, faults={"blank": 2})
    clean = summary_of([outcome], setup)["models"][0]
    outcome.scores[:, 1, 0] = np.nan  # what is left gives the same
    outcome.held_out[:, 1, 0] = np.nan
    found = summary_of([outcome], setup)["models"][0]
    assert found["faults"] == {"blank": 2}
    assert found["hypervolume"]["value"] == pytest.approx(clean["hypervolume"]["value"])
    assert found["control"][0]["error"] == pytest.approx(clean["control"][0]["error"])


def test_nothing_but_faults(setup):
    outcome = outcome_of(setup)
    outcome.scores[:], outcome.held_out[:] = np.nan, np.nan
    (found,) = summary_of([outcome], setup)["models"]
    assert found["hypervolume"] == {"value": 0, "low": 0, "high": 0}
    assert found["points"][0]["obtained"][NAMES[0]] == {"value": None, "low": None, "high": None}
    assert found["control"][0]["reached"] == [None, None]
    assert found["control"][0]["error"]["value"] is None
    assert found["near_front"]["count"] == 0


@pytest.mark.parametrize("n", [1, 3])
def test_other_numbers_of_rewards(n):
    setup = setup_of(n)
    found = summary_of([outcome_of(setup), base_of(setup)], setup)
    assert found["reference"] == [-2] * n
    assert len(found["models"][0]["points"]) == (1 if n == 1 else 5)
    assert len(found["models"][0]["control"]) == n
    assert found["models"][1]["hypervolume"]["value"] == pytest.approx(2**n, abs=0.5 * 2**n)
