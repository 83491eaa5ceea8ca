"""Methods: what is asked of them, and in which order the answers lie."""

import pytest

from ric_diffusion.evaluation.grid import Point
from ric_diffusion.evaluation.method import by_preference, by_targets, weights_of
from ric_diffusion.io.errors import InputError

LINE = [{"bright": 1.0}, {"bright": 0.5, "dark": 0.5}]


class Echo:
    """Samples that say what they were drawn for."""

    def __init__(self):
        self.calls = []

    def draw(self, preference, prompts, seeds):
        self.calls.append(len(prompts))
        pairs = zip(prompts, seeds, strict=True)
        return [1000 * preference["bright"] + 10 * len(p) + s for p, s in pairs]


def test_points_of_an_evaluation_are_drawn_by_their_preference():
    method = Echo()
    points = [Point(preference=LINE[i]) for i in (0, 0, 1, 0)]
    samples = by_preference(method)(points, ["a", "b", "cc", "d"], [1, 2, 3, 4])
    assert samples == [1011, 1012, 523, 1014]
    assert method.calls == [2, 1, 1]


def test_points_without_a_preference_are_drawn_for_none():
    class Indifferent:
        def draw(self, preference, prompts, seeds):
            assert preference == {}
            return list(seeds)

    assert by_preference(Indifferent())([Point(), Point()], ["a", "b"], [3, 4]) == [3, 4]


def test_points_of_an_evaluation_are_drawn_by_their_targets(painter):
    draw = by_targets(painter)
    points = [Point(targets={"bright": z}) for z in (-1.0, 0.0, 2.0)]
    samples = draw(points, ["a"] * 3, [1, 2, 3])
    assert [s.getpixel((0, 0)) for s in samples] == [104, 125, 166]
    assert painter.calls == [3]


def test_targets_are_moved_to_where_they_can_be_had(painter):
    class Limited:
        """An adapter, as far as drawing goes, of one prompt."""

        def __init__(self, prompt):
            self.most = {"a": 1.0, "b": 1.5}[prompt]

        def reachable(self, targets):
            return {name: min(z, self.most) for name, z in targets.items()}

    points = [Point(targets={"bright": z}) for z in (0.0, 2.0, 2.0)]
    draw = by_targets(painter, lambda prompts: [Limited(prompt) for prompt in prompts])
    assert [s.getpixel((0, 0)) for s in draw(points, ["a", "a", "b"], [1, 1, 1])] == [124, 144, 154]


def test_weights_in_the_order_of_the_space(space):
    assert weights_of({"dark": 3.0, "bright": 1.0}, space) == pytest.approx([0.25, 0.75])
    assert weights_of({"dark": 1e308, "bright": 1e308}, space) == pytest.approx([0.5, 0.5])
    with pytest.raises(InputError, match="every weight is 0"):
        weights_of({"dark": 0.0}, space)
