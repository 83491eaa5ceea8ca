"""Adapters and baselines, made subjects of an evaluation."""

import json

import pytest

from ric_diffusion.cost import Meter
from ric_diffusion.diffusion.backend import DiffusionBackend
from ric_diffusion.evaluation.baselines.base import BaseModel, Tuned
from ric_diffusion.evaluation.baselines.best_of_n import BestOfN
from ric_diffusion.evaluation.baselines.subjects import (
    adapter_subject,
    method_subject,
    preference_points,
)
from ric_diffusion.evaluation.subject import Point, slider_points
from ric_diffusion.rewards import to_targets

PROMPTS, SEEDS = ["red apple", "pizza"], [3, 4]


@pytest.fixture(scope="module")
def adapter(model, space, config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("subjects") / "adapter"
    DiffusionBackend.create(model, space, config, seed=0).save(folder)
    return folder


def test_an_adapter_has_all_its_points(pipe, sampling, space, adapter):
    subject = adapter_subject("ours", pipe, adapter, sampling, 5)
    assert list(subject.points) == slider_points(space, "front", 5)
    assert subject.preferences == 5 and len(subject.points) == 15
    assert subject.space == space
    assert subject.about["mapping"] == "front" and subject.about["mode"] == "embedding"
    json.dumps(subject.about)


def test_another_mapping_changes_preferences_alone(pipe, sampling, space, adapter):
    subject = adapter_subject("ours", pipe, adapter, sampling, 3, mapping="linf")
    assert len(subject.points) == subject.preferences == 3
    for point in subject.points:
        assert point.targets == to_targets(point.preference, space, "linf")
    assert subject.about["mapping"] == "linf"


def test_it_draws_under_the_adapter_that_was_loaded(pipe, sampling, adapter, pixels):
    subject = adapter_subject("ours", pipe, adapter, sampling, 2)
    pipe.load_adapter(adapter)
    points = [subject.points[0], subject.points[1]]
    found = pixels(subject.draw(points, PROMPTS, SEEDS))
    targets = [point.targets for point in points]
    assert (found == pixels(subject.sampler.sample(PROMPTS, targets, SEEDS))).all()


def test_weights_tell_subjects_apart(pipe, sampling, space, adapter, lora_files):
    bright, warm = lora_files.values()
    method = BaseModel(pipe, sampling)
    subjects = [
        method_subject("base", method, pipe, sampling, [Point()]),
        method_subject("base", method, pipe, sampling, [Point()], [bright]),
        method_subject("base", method, pipe, sampling, [Point()], [warm]),
        method_subject("base", method, pipe, sampling, [Point()], [bright, warm]),
        adapter_subject("ours", pipe, adapter, sampling, 2),
    ]
    assert len({subject.about["weights"] for subject in subjects}) == 5
    again = method_subject("base", method, pipe, sampling, [Point()], [bright])
    assert again.about == subjects[1].about


def test_a_method_is_asked_for_preferences(pipe, sampling, space, pixel_scorers):
    meter = Meter()
    method = BestOfN(BaseModel(pipe, sampling), space, meter.metered(pixel_scorers), 2)
    points = preference_points(space, 3)
    assert [point.preference for point in points] == [
        {"bright": 1.0, "warm": 0.0},
        {"bright": 0.5, "warm": 0.5},
        {"bright": 0.0, "warm": 1.0},
    ]
    subject = method_subject("best", method, pipe, sampling, points, meter=meter, n=2)
    assert subject.about["n"] == 2 and subject.preferences == 3
    with subject.meter.running(subject.sampler.watched()):
        assert len(subject.draw(points[:2], PROMPTS, SEEDS)) == 2
    cost = subject.meter.read()
    assert cost.forwards == 2 * 2 * 2 * sampling["num_inference_steps"]
    assert cost.scored == 2 * 2 * len(pixel_scorers)


def test_one_lora_answers_without_any_preference(pipe, sampling, space, lora_files, pixels):
    made = [({"bright": 1.0}, lora_files["bright"])]
    tuned = Tuned("sft", pipe, sampling, space, made)
    subject = method_subject("sft", tuned, pipe, sampling, [Point()], [lora_files["bright"]])
    found = pixels(subject.draw([Point(), Point()], PROMPTS, SEEDS))
    assert (found == pixels(tuned.draw({"warm": 1.0}, PROMPTS, SEEDS))).all()
