"""The figure of costs shows the numbers, and its labels can be read."""

import io
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cost_plot import (
    APART,
    beside_each_other,
    cost_figure,
    cost_range,
    marks,
)
from ric_diffusion.evaluation.report import plots
from ric_diffusion.evaluation.report.summary import summarise
from ric_diffusion.models.cost import Cost
from support.scores import config_of, scores_of

SPENT = {"ours": 700_000, "soup": 770_000, "slow": 8_600_000, "base": 0, "best": 0, "twin": 700_000}


@pytest.fixture(scope="module")
def result():
    config = config_of()
    scores = [
        scores_of(config, name=name, gain=0.9 - 0.1 * i, seed=i) for i, name in enumerate(SPENT)
    ]
    found = summarise(scores, config, Path("report"), model="m", versions={})
    methods = (
        replace(method, training_cost=Cost(forwards=SPENT[method.name])) for method in found.methods
    )
    return replace(found, methods=tuple(methods))


def test_every_point_is_where_its_numbers_say(result):
    (axes,) = cost_figure(result, list(SPENT)).axes
    points = np.concatenate(
        [line.get_xydata() for line in axes.lines if len(line.get_xdata()) == 1]
    )
    volumes = [method.hypervolume.value for method in result.methods]
    assert points[:, 1].tolist() == pytest.approx(volumes)
    paid = np.array(list(SPENT.values())) > 0
    # a little apart where they cost about the same
    assert points[paid, 0].tolist() == pytest.approx([0.7, 0.77, 8.6, 0.7], rel=0.08)
    assert points[0, 0] < 0.7 and points[0, 0] < points[-1, 0] < points[1, 0]
    left = float(np.sqrt(points[~paid, 0].prod()))
    ticks = axes.get_xticks().tolist()
    assert ticks == pytest.approx([left, 0.5, 1, 2, 5, 10]) and left < 0.7 / 2
    written = [text.get_text() for text in axes.get_xticklabels()]
    assert written == ["none", "0.5", "1", "2", "5", "10"]


def test_labels_stay_clear_of_each_other_and_of_marks_and_inside(result):
    figure = cost_figure(result, list(SPENT))
    (axes,) = figure.axes
    boxes = {text.get_text(): text.get_window_extent() for text in axes.texts}
    assert set(boxes) == set(SPENT)
    for box in boxes.values():
        assert axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1
    for a, b in combinations(boxes.values(), 2):
        assert not a.overlaps(b)
    marked = [line.get_xydata()[0] for line in axes.lines if len(line.get_xdata()) == 1]
    for x, y in axes.transData.transform(marked):
        assert not any(box.contains(x, y) for box in boxes.values())


def test_only_the_named_methods_in_their_own_colours(result):
    whole = cost_figure(result, list(SPENT)).axes[0]
    few = cost_figure(result, ["slow", "base"]).axes[0]
    colours = [{t.get_text(): t.get_color() for t in axes.texts} for axes in (whole, few)]
    assert set(colours[1]) == {"slow", "base"}
    assert all(colours[0][name] == colour for name, colour in colours[1].items())


def test_picture_is_the_same_each_time_and_wide_enough(result):
    first, second = (plots.png(cost_figure(result, ["ours", "base"])) for _ in "ab")
    assert first == second
    with Image.open(io.BytesIO(first)) as image:
        assert image.width >= 800


@pytest.mark.parametrize("least", [0.0003, 0.65, 0.99, 1.0, 1.01, 47.0])
def test_there_is_always_a_mark(least):
    found = marks(least, least)
    assert found and all(least / 1.4 <= mark <= 2 * least for mark in found)


def test_places_are_moved_apart_as_little_as_can_be():
    found = beside_each_other(np.array([2.0, 5.0, 2.0, 2.0, 2.01]))
    assert found[1] == pytest.approx(5.0)
    close = found[[0, 2, 3, 4]]
    assert close[1:] / close[:-1] == pytest.approx(APART)
    assert np.log(close).mean() == pytest.approx(np.log([2.0, 2.0, 2.0, 2.01]).mean())


def test_marks_and_range():
    assert marks(0.38, 8.6) == pytest.approx([0.5, 1, 2, 5, 10])
    assert cost_range(np.array([0.0, 3.0, 2.0])) == (2.0, 3.0)
    assert cost_range(np.zeros(2)) == (1.0, 1.0)
