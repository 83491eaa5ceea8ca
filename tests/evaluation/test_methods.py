"""Methods: what is asked of them, and in which order the answers lie."""

from types import SimpleNamespace

import pytest

from ric_diffusion.errors import InputError
from ric_diffusion.evaluation.methods import by_preference, weights_of

LINE = [{"bright": 1.0}, {"bright": 0.5, "dark": 0.5}]


class Echo:
    """Samples that say what they were drawn for."""

    name = "echo"

    def __init__(self):
        self.calls = []

    def draw(self, preference, prompts, seeds):
        self.calls.append(len(prompts))
        pairs = zip(prompts, seeds, strict=True)
        return [1000 * preference["bright"] + 10 * len(p) + s for p, s in pairs]


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
