"""Methods under one sweep: what is asked of them, and in which order the answers lie."""

from types import SimpleNamespace

import numpy as np
import pytest

from ric_diffusion.errors import InputError
from ric_diffusion.evaluation.methods import RewardsInContext, by_preference, sweep, weights_of
from ric_diffusion.rewards import to_targets

LINE = [{"bright": 1.0}, {"bright": 0.5, "dark": 0.5}]
PROMPTS = ["a", "abcd"]
SEEDS = [0, 7, 9]


class Echo:
    """Samples that say what they were drawn for."""

    name = "echo"

    def __init__(self):
        self.calls = []

    def draw(self, preference, prompts, seeds):
        self.calls.append(len(prompts))
        pairs = zip(prompts, seeds, strict=True)
        return [1000 * preference["bright"] + 10 * len(p) + s for p, s in pairs]


def value(samples, prompts):
    return np.array(samples)


def minus(samples, prompts):
    return -np.array(samples)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_a_sweep_is_a_grid(space, batch_size):
    method = Echo()
    z = sweep(method, space, LINE, PROMPTS, SEEDS, [value, minus], batch_size=batch_size)
    assert z.shape == (2, 2, 3, 2)
    expected = [
        [[1000 * w["bright"] + 10 * len(p) + s for s in SEEDS] for p in PROMPTS] for w in LINE
    ]
    assert z[..., 0] == pytest.approx((np.array(expected) - space.means[0]) / space.stds[0])
    assert z[..., 1] == pytest.approx((-np.array(expected) - space.means[1]) / space.stds[1])
    assert max(method.calls) <= batch_size and sum(method.calls) == 12


def test_ours_maps_the_preference_to_targets(painter, space, pixels_of):
    method = RewardsInContext(painter, space, "linear")
    assert method.name == "ric"
    found = pixels_of(method.draw(LINE[1], PROMPTS, [0, 1]))
    targets = to_targets(LINE[1], space, "linear")
    assert found == pixels_of(painter.sample(PROMPTS, [targets] * 2, [0, 1]))


@pytest.fixture
def pixels_of():
    return lambda images: [image.getpixel((0, 0)) for image in images]


def test_points_of_an_evaluation_are_drawn_by_their_preference():
    method = Echo()
    points = [SimpleNamespace(preference=LINE[i]) for i in (0, 0, 1, 0)]
    samples = by_preference(method)(points, ["a", "b", "cc", "d"], [1, 2, 3, 4])
    assert samples == [1011, 1012, 523, 1014]
    assert method.calls == [2, 1, 1]


def test_weights_in_the_order_of_the_space(space):
    assert weights_of({"dark": 3.0, "bright": 1.0}, space) == pytest.approx([0.25, 0.75])
    assert weights_of({"dark": 1e308, "bright": 1e308}, space) == pytest.approx([0.5, 0.5])
    with pytest.raises(InputError, match="every weight is 0"):
        weights_of({"dark": 0.0}, space)
