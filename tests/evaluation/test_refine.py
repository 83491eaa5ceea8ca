"""Drawing again until a sample is near its targets: what is drawn, with what, and what is kept."""

import math
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

import scorers
from ric_diffusion.adapters.adapter import Adapter
from ric_diffusion.conditioning.conditioner import EmbeddingConditioner, TextConditioner
from ric_diffusion.conditioning.encoder import RewardEncoder
from ric_diffusion.conditioning.grammar import Grammar
from ric_diffusion.evaluation.grid import Point
from ric_diffusion.evaluation.refine import by_refinement, check_refine, refined_samples
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.progress import reporting
from ric_diffusion.models.cost import Meter
from ric_diffusion.rewards import Curve, RewardSpace
from support.points import NAMES, Axis, PointFiles, Points, space

SPACE = space()
SCORERS = [Axis(name) for name in NAMES]
PROMPTS, SEEDS = ["a", "bb", "ccc"], [5, 6, 7]
CURVE = Curve.fit([-2.0, 0.0, 2.0], [-0.8, 0.1, 0.9])


class Model(Points):
    """A model and its sampler: what is read of x and y, bent, coupled, and moved by prompt and
    seed; ``broken`` seeds come out as no number. Remembers what it read of every batch."""

    medium = PointFiles()

    def __init__(self, calibration=None, conditioner=None, broken=(), longer=0.0):
        super().__init__(gain=1.0, noise=0.3)
        conditioner = conditioner or EmbeddingConditioner(RewardEncoder(NAMES, 8))
        self.adapter = Adapter(
            family="points",
            base_model="points",
            space=SPACE,
            conditioner=conditioner,
            calibration=calibration or {},
        )
        self.broken, self.longer, self.read = broken, longer, []

    @contextmanager
    def uncalibrated(self):
        adapter = self.adapter
        self.adapter = replace(adapter, calibration={})
        yield
        self.adapter = adapter

    def adapters_for(self, prompts):
        """Where it is ``longer``, a letter more of the prompt gives so much more."""
        curves = [
            {
                name: replace(
                    curve, obtained=tuple(np.add(curve.obtained, self.longer * len(prompt)))
                )
                for name, curve in self.adapter.calibration.items()
            }
            for prompt in prompts
        ]
        return [replace(self.adapter, calibration=each) for each in curves]

    def sample(self, prompts, targets, seeds):
        read = [self.adapter.model_targets(self.adapter.used(one)) for one in targets]
        self.read.append(list(zip(seeds, read, strict=True)))
        points = super().sample(prompts, read, seeds)
        return [
            (math.nan, y) if seed in self.broken else bent(x, y, prompt)
            for (x, y), prompt, seed in zip(points, prompts, seeds, strict=True)
        ]


def bent(x, y, prompt):
    return math.tanh(0.7 * x) + 0.1 * len(prompt) + 0.2 * y, 0.8 * y - 0.2 * x


def test_the_first_pass_is_calibrated_for_the_prompt():
    model = Model({"x": CURVE}, longer=0.1)
    refined(model, {"x": 0.5}, passes=1)
    first = [read["x"] for _, read in model.read[0]]
    assert first == pytest.approx([CURVE.request(0.5 - 0.1 * n) for n in (1, 2, 3)])


def refined(model, targets, passes=3, **more):
    asked = [targets] * 3 if isinstance(targets, dict) else targets
    return refined_samples(model, model, SCORERS, PROMPTS, asked, SEEDS, passes=passes, **more)


def test_samples_come_near_their_targets_from_their_own_seeds():
    model = Model()
    open_loop = model.sample(PROMPTS, [{"x": 0.5}] * 3, SEEDS)
    model.read.clear()
    found = refined(model, {"x": 0.5})
    assert [one.sample[0] for one in found] == pytest.approx([0.5] * 3, abs=0.05)
    assert all(one.reached and set(one.nearest.model_targets) == {"x"} for one in found)
    assert [one.passes[0].obtained["x"] for one in found] == [x for x, _ in open_loop]
    assert [seed for seed, _ in model.read[0]] == SEEDS
    # What is on auto stays there, and who is near is not drawn again.
    drawn = [(seed, read) for batch in model.read for seed, read in batch]
    assert all(set(read) == {"x"} for _, read in drawn)
    for one, seed in zip(found, SEEDS, strict=True):
        assert [p.model_targets for p in one.passes] == [r for s, r in drawn if s == seed]
        assert one.sample == model.sample([PROMPTS[SEEDS.index(seed)]],
                                          [one.nearest.model_targets], [seed])[0]  # fmt: skip


def test_several_at_once_and_each_with_its_own():
    asked = [{"x": 0.4, "y": -0.5}, {"y": 0.3}, {"x": 0.2, "y": 0.2}]
    found = refined(Model(), asked, passes=6)
    for one, targets in zip(found, asked, strict=True):
        assert one.reached and set(one.nearest.obtained) == set(targets)
        for name, z in targets.items():
            assert one.sample[NAMES.index(name)] == pytest.approx(z, abs=0.08)


def test_the_first_pass_is_that_of_the_calibrated_model_and_the_target_stays_what_was_asked():
    model = Model(calibration={"x": CURVE})
    (open_loop,) = Model(calibration={"x": CURVE}).sample(["ccc"], [{"x": 1.2}], [7])
    *_, found = refined(model, {"x": 1.2}, passes=5)
    assert found.passes[0].obtained["x"] == open_loop[0]
    assert found.passes[0].model_targets == {"x": 2.0}  # the end of the curve, which is at 0.9 z
    assert found.targets == {"x": 1.2} and found.reached  # of this prompt more can be had
    assert model.adapter.calibration == {"x": CURVE}


def test_never_worse_than_the_first_and_better_by_every_pass():
    rng = np.random.default_rng(0)
    asked = [{"x": x, "y": y} for x, y in rng.normal(size=(3, 2))]
    for one in refined(Model(), asked, passes=8):
        nearest = [one.after(count).distance for count in range(9)]
        assert nearest == sorted(nearest, reverse=True)
        assert nearest[0] == one.passes[0].distance and nearest[8] == one.nearest.distance
        z = np.array(one.sample)
        assert one.nearest.distance == pytest.approx(
            np.sqrt(np.mean((z - list(one.targets.values())) ** 2))
        )


def test_alone_or_beside_others_is_the_same():
    together, apart = Model(), Model()
    one = refined(together, {"x": 0.5, "y": 0.1})
    assert refined(apart, {"x": 0.5, "y": 0.1}, batch_size=1) == one
    assert max(map(len, together.read)) == 3 and max(map(len, apart.read)) == 1


def test_a_sample_that_is_always_rejected_is_kept_as_it_came_first():
    first, broken, last = refined(Model(broken=[6]), {"x": 0.5})
    assert first.reached and last.reached and not broken.reached
    assert broken.nearest is broken.passes[0] and math.isinf(broken.nearest.distance)
    assert math.isnan(broken.nearest.obtained["x"]) and math.isnan(broken.sample[0])


def test_words_are_told_as_they_are_read():
    words = TextConditioner(Grammar.preset("words", NAMES))
    for one in refined(Model(conditioner=words), {"x": 0.53}, passes=6):
        asked = [p.model_targets["x"] for p in one.passes]
        assert asked == [round(x, 1) for x in asked] and len(set(asked)) == len(asked)
        assert one.nearest.distance < 0.1


def test_what_it_costs_is_counted():
    model, meter, told = Model(), Meter(), []
    with meter.running(model.network()), reporting(lambda one: told.append((one.done, one.total))):
        found = refined_samples(
            model, model, meter.metered(SCORERS), PROMPTS, [{"x": 0.5}] * 3, SEEDS, passes=3
        )
    drawn = sum(len(one.passes) for one in found)
    assert 3 < drawn < 12
    assert (meter.read().forwards, meter.read().scored) == (drawn, drawn)  # y is not scored
    assert told[0] == (0, 12) and told[-1] == (12, 12) and told == sorted(told)


def test_as_a_method_it_draws_for_points():
    model = Model()
    draw = by_refinement(model, model, SCORERS, 3)
    points = [Point(targets={"x": z}, along="x") for z in (-0.4, 0.1, 0.6)]
    samples = draw(points, PROMPTS, SEEDS)
    assert [x for x, _ in samples] == pytest.approx([-0.4, 0.1, 0.6], abs=0.05)


@pytest.mark.parametrize(
    "said, asked, passes",
    [
        ("refine 0: give 1 to 20", {"x": 1.0}, 0),
        ("refine 21: give 1 to 20", {"x": 1.0}, 21),
        ("refine: nothing is asked for; give targets or a preference", {}, 3),
    ],
)
def test_what_is_refused(said, asked, passes):
    model = Model()
    with pytest.raises(InputError, match=said):
        refined(model, asked, passes=passes)
    assert model.read == []


def test_a_missing_scorer_and_a_comparison_within_prompts_are_one_line():
    missing = [Axis("x"), scorers.stand_in("aesthetic")]
    check_refine(SPACE, ["x"], missing)
    with pytest.raises(InputError, match="refine: the scorer of y cannot be loaded here; leave y"):
        check_refine(SPACE, ["x", "y"], missing)
    scores = {name: np.random.default_rng(0).normal(size=40) for name in NAMES}
    within = RewardSpace.fit(scores, prompts=["a", "b"] * 20, within=["y"])
    check_refine(within, ["x"], SCORERS)
    with pytest.raises(InputError, match="refine: y is compared within its prompt"):
        check_refine(within, ["x", "y"], SCORERS)
