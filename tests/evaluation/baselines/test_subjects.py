"""Baselines, made subjects of an evaluation."""

from ric_diffusion.cost import Meter
from ric_diffusion.evaluation.baselines.base import BaseModel, Tuned
from ric_diffusion.evaluation.baselines.best_of_n import BestOfN
from ric_diffusion.evaluation.baselines.subjects import method_subject, preference_points
from ric_diffusion.evaluation.subject import Point

PROMPTS, SEEDS = ["red apple", "pizza"], [3, 4]


def test_weights_tell_subjects_apart(sampler, lora_files):
    bright, warm = lora_files.values()
    method = BaseModel(sampler)
    subjects = [
        method_subject("base", method, sampler, [Point()]),
        method_subject("base", method, sampler, [Point()], [bright]),
        method_subject("base", method, sampler, [Point()], [warm]),
        method_subject("base", method, sampler, [Point()], [bright, warm]),
    ]
    assert len({subject.about["weights"] for subject in subjects}) == 4
    again = method_subject("base", method, sampler, [Point()], [bright])
    assert again.about == subjects[1].about


def test_a_method_is_asked_for_preferences(sampling, space, pixel_scorers, sampler):
    meter = Meter()
    method = BestOfN(BaseModel(sampler), space, meter.metered(pixel_scorers), 2)
    points = preference_points(space, 3)
    assert [point.preference for point in points] == [
        {"bright": 1.0, "warm": 0.0},
        {"bright": 0.5, "warm": 0.5},
        {"bright": 0.0, "warm": 1.0},
    ]
    subject = method_subject("best", method, sampler, points, meter=meter, n=2)
    assert subject.about["n"] == 2 and subject.preferences == 3
    with subject.meter.running(subject.sampler.watched()):
        assert len(subject.draw(points[:2], PROMPTS, SEEDS)) == 2
    cost = subject.meter.read()
    assert cost.forwards == 2 * 2 * 2 * sampling["num_inference_steps"]
    assert cost.scored == 2 * 2 * len(pixel_scorers)


def test_one_lora_answers_without_any_preference(sampler, space, lora_files, pixels):
    made = [({"bright": 1.0}, lora_files["bright"])]
    tuned = Tuned("sft", sampler, space, made)
    subject = method_subject("sft", tuned, sampler, [Point()], [lora_files["bright"]])
    found = pixels(subject.draw([Point(), Point()], PROMPTS, SEEDS))
    assert (found == pixels(tuned.draw({"warm": 1.0}, PROMPTS, SEEDS))).all()
