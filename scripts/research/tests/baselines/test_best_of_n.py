"""Best of n: never worse than its first sample, and paid for."""

import numpy as np
import pytest
from PIL import Image

from baselines.base import BaseModel, z_of
from baselines.best_of_n import BestOfN, nth_seed
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.cost import Meter

PROMPTS = ["a", "b", "c"]
SEEDS = [0, 1, 1]


class Noise:
    """A base model whose pictures depend on the seed alone; ``blank`` says which are all black."""

    name = "noise"

    def __init__(self, blank=lambda seed: False):
        self.blank = blank

    def draw(self, preference, prompts, seeds):
        return [self._picture(seed) for seed in seeds]

    def _picture(self, seed):
        if self.blank(seed):
            return Image.new("RGB", (8, 8))
        rng = np.random.default_rng(seed)
        levels = rng.integers(30, 220, 3) + rng.integers(-20, 20, (8, 8, 3))
        return Image.fromarray(levels.astype(np.uint8))


@pytest.mark.parametrize("preference", [{"bright": 1.0}, {"bright": 1.0, "warm": 3.0}])
def test_the_best_by_weighted_z(space, pixel_scorers, preference, pixels):
    weights = np.array([preference["bright"], preference.get("warm", 0.0)])
    best = BestOfN(Noise(), space, pixel_scorers, 5)
    found = best.draw(preference, PROMPTS, SEEDS)
    tries = [Noise().draw(None, PROMPTS, [nth_seed(s, i) for s in SEEDS]) for i in range(5)]
    values = np.array([z_of(t, PROMPTS, pixel_scorers, space) @ weights for t in tries])
    obtained = z_of(found, PROMPTS, pixel_scorers, space) @ weights
    assert (obtained >= values[0]).all() and (obtained > values[0]).any()
    assert obtained == pytest.approx(values.max(axis=0))
    again = best.draw(preference, PROMPTS, SEEDS)
    assert np.array_equal(pixels(found), pixels(again))


def test_the_best_of_one_is_the_base_model(space, pixel_scorers, pixels):
    found = BestOfN(Noise(), space, pixel_scorers, 1).draw({"warm": 1.0}, PROMPTS, SEEDS)
    assert np.array_equal(pixels(found), pixels(Noise().draw(None, PROMPTS, SEEDS)))


def test_a_blank_picture_is_never_chosen_unless_all_are(space, pixel_scorers):
    def darkness(images, prompts):
        return -pixel_scorers[0](images, prompts)

    dark = [darkness, darkness]
    mostly = Noise(blank=lambda seed: seed not in (0, nth_seed(1, 3)))
    found = BestOfN(mostly, space, dark, 4).draw({"bright": 1.0}, PROMPTS, SEEDS)
    assert all(max(image.getextrema())[1] > 0 for image in found)
    nothing = BestOfN(Noise(blank=lambda seed: True), space, dark, 4)
    assert len(nothing.draw({"bright": 1.0}, PROMPTS, SEEDS)) == 3


def test_forwards_and_scorer_calls_are_counted(pipe, sampling, space, pixel_scorers, sampler):
    meter = Meter()
    best = BestOfN(BaseModel(sampler), space, meter.metered(pixel_scorers), 3)
    with meter.running(pipe.unet):
        best.draw({"bright": 1.0}, ["pizza", "rocket"], [0, 1])
    steps, guided = sampling["num_inference_steps"], 2
    assert meter.read().forwards == 3 * 2 * steps * guided
    assert meter.read().scored == 3 * 2 * len(pixel_scorers)


def test_seeds_differ_and_begin_with_the_given_one():
    seeds = [nth_seed(seed, i) for seed in range(50) for i in range(8)]
    assert len(set(seeds)) == len(seeds)
    assert nth_seed(17, 0) == 17 and all(0 <= seed < 2**63 for seed in seeds)


def test_n_must_be_a_count(space, pixel_scorers):
    with pytest.raises(InputError, match="n 0"):
        BestOfN(Noise(), space, pixel_scorers, 0)
