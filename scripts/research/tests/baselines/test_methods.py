"""Baselines, made methods of an evaluation."""

from baselines.base import BaseModel, Tuned
from baselines.best_of_n import BestOfN
from baselines.methods import baseline_method
from ric_diffusion.evaluation.grid import Point, preference_points
from ric_diffusion.models.cost import Meter

PROMPTS, SEEDS = ["red apple", "pizza"], [3, 4]


def test_weights_tell_methods_apart(sampler, lora_files):
    bright, warm = lora_files.values()
    base = BaseModel(sampler)
    methods = [
        baseline_method("base", base, sampler, [Point()]),
        baseline_method("base", base, sampler, [Point()], [bright]),
        baseline_method("base", base, sampler, [Point()], [warm]),
        baseline_method("base", base, sampler, [Point()], [bright, warm]),
    ]
    assert len({method.about["weights"] for method in methods}) == 4
    again = baseline_method("base", base, sampler, [Point()], [bright])
    assert again.about == methods[1].about


def test_a_method_is_asked_for_preferences(sampling, space, pixel_scorers, sampler):
    meter = Meter()
    best = BestOfN(BaseModel(sampler), space, meter.metered(pixel_scorers), 2)
    points = preference_points(space, 3)
    assert [point.preference for point in points] == [
        {"bright": 1.0, "warm": 0.0},
        {"bright": 0.5, "warm": 0.5},
        {"bright": 0.0, "warm": 1.0},
    ]
    method = baseline_method("best", best, sampler, points, meter=meter, n=2)
    assert method.about["n"] == 2 and method.preferences == 3
    with method.meter.running(method.sampler.network()):
        assert len(method.draw(points[:2], PROMPTS, SEEDS)) == 2
    cost = method.meter.read()
    assert cost.forwards == 2 * 2 * 2 * sampling["num_inference_steps"]
    assert cost.scored == 2 * 2 * len(pixel_scorers)


def test_one_lora_answers_without_any_preference(sampler, space, lora_files, pixels):
    made = [({"bright": 1.0}, lora_files["bright"])]
    tuned = Tuned(sampler, space, made)
    method = baseline_method("sft", tuned, sampler, [Point()], [lora_files["bright"]])
    found = pixels(method.draw([Point(), Point()], PROMPTS, SEEDS))
    assert (found == pixels(tuned.draw({"warm": 1.0}, PROMPTS, SEEDS))).all()
