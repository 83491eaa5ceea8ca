"""The plots show the numbers, and their labels can be read."""

import io
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from ric_diffusion.evaluation.report import plots
from ric_diffusion.evaluation.report.labels import Label, along, beside, place, spread
from ric_diffusion.evaluation.report.schema import Estimate
from ric_diffusion.evaluation.report.summary import summarise
from support.scores import base_of, config_of, scores_of


def result_of(n=2, methods=1, tmp="report"):
    config = config_of(n)
    given = [
        scores_of(config, name=f"method number {i}", gain=0.95 - 0.1 * i, seed=i)
        for i in range(methods)
    ]
    if methods > 1:
        given[-1] = base_of(config)
    return summarise(given, config, Path(tmp), model="m", versions={})


@pytest.fixture(scope="module")
def one():
    return result_of()


def texts_of(axes):
    """The labels inside or beside a panel, with their boxes."""
    return [(text.get_text(), text.get_window_extent()) for text in axes.texts]


def test_front_shows_the_means(one):
    figure = plots.front_figure(one, plots.reward_pairs(one))
    (axes,) = figure.axes
    drawn = [tuple(line.get_xydata()[0]) for line in axes.lines if len(line.get_xydata())]
    method = one.methods[0]
    first = tuple(point.value for point in method.points[0].obtained.values())
    assert first in drawn
    assert axes.get_xlabel() == "compressibility, mean obtained (z)"
    assert axes.get_ylabel() == "colorfulness, mean obtained (z)"
    said = {text for text, _ in texts_of(axes)}
    assert said == {"only compressibility", "only colorfulness", "training data"}


def test_hollow_marks_are_those_off_the_front(one):
    (axes,) = plots.front_figure(one, plots.reward_pairs(one)).axes
    hollow = [
        len(line.get_xydata())
        for line in axes.lines
        if line.get_marker() == "o" and line.get_markerfacecolor() == plots.LIGHT.paper
    ]
    assert hollow == [sum(not point.on_front for point in one.methods[0].points)]


def test_control_shows_requested_and_obtained(one):
    figure = plots.control_figure(one, ["colorfulness"])
    (axes,) = figure.axes
    sweep = one.methods[0].control[1]
    expected = np.stack([sweep.requested, [point.value for point in sweep.obtained]], axis=1)
    assert any(np.array_equal(line.get_xydata(), expected) for line in axes.lines)
    assert axes.get_xlim() == axes.get_ylim()
    low, high = axes.get_xlim()
    assert low < expected.min() and expected.max() < high


@pytest.mark.parametrize("kind", ["front", "control"])
@pytest.mark.parametrize("methods", [plots.DIRECT, plots.DIRECT + 1, 12])
def test_methods_can_be_told_apart(kind, methods):
    """Each is named once, inside the picture, clear of all other names."""
    result = result_of(methods=methods)
    shown = [method.name for method in result.methods if kind == "front" or method.control]
    if kind == "front":
        figure = plots.front_figure(result, plots.reward_pairs(result))
    else:
        figure = plots.control_figure(result, ["compressibility"])
    figure.draw_without_rendering()
    (axes,) = figure.axes
    labels = texts_of(axes)
    for legend in figure.legends:
        labels += [(text.get_text(), text.get_window_extent()) for text in legend.get_texts()]
    names = [text for text, _ in labels]
    assert sorted(names) == sorted({*names, *shown})
    page = figure.bbox
    for _, box in labels:
        assert box.x0 >= page.x0 and box.x1 <= page.x1
        assert box.y0 >= page.y0 and box.y1 <= page.y1
    for (_, a), (_, b) in combinations(labels, 2):
        assert not a.overlaps(b)
    looks = {(plots.colour_of(plots.LIGHT, i), plots.marker_of(i)) for i in range(methods)}
    assert len(looks) == methods


def test_three_rewards_have_three_panels():
    result = result_of(3)
    pairs = plots.reward_pairs(result)
    assert len(pairs) == 3
    assert len(plots.front_figure(result, pairs).axes) == 3
    assert len(plots.control_figure(result, ["aesthetic"]).axes) == 1


def test_one_reward_has_no_pairs():
    assert plots.reward_pairs(result_of(1)) == []


@pytest.mark.parametrize("theme", [plots.LIGHT, plots.DARK])
def test_picture_is_on_its_paper(one, theme):
    figure = plots.front_figure(one, plots.reward_pairs(one), theme)
    first, second = plots.png(figure), plots.png(figure)
    assert first == second
    with Image.open(io.BytesIO(first)) as image:
        corner = image.convert("RGB").getpixel((0, 0))
        assert image.width >= 800
    assert "#" + bytes(corner).hex() == theme.paper


def contrast(a, b):
    """WCAG 2 contrast of two colours."""

    def luminance(colour):
        c = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(c <= 0.03928, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    light, dark = sorted([luminance(a), luminance(b)], reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [plots.LIGHT, plots.DARK])
def test_every_colour_can_be_seen(theme):
    for colour in (*theme.colours, theme.grey, theme.ink):
        assert contrast(colour, theme.paper) >= 3
    assert len(set(theme.colours)) == 12


def test_methods_without_any_score_leave_the_rest_standing(one):
    nothing = Estimate(value=None, low=None, high=None)
    method = one.methods[0]
    points = [
        replace(point, obtained=dict.fromkeys(point.obtained, nothing), on_front=False)
        for point in method.points
    ]
    control = [
        replace(sweep, obtained=(nothing,) * len(sweep.obtained)) for sweep in method.control
    ]
    gone = replace(method, name="gone", points=tuple(points), control=tuple(control))
    result = replace(one, methods=(method, gone))
    (axes,) = plots.front_figure(result, plots.reward_pairs(result)).axes
    assert "gone" not in {text for text, _ in texts_of(axes)}
    plots.control_figure(result, ["colorfulness"])
    plots.png(plots.front_figure(replace(one, methods=(gone,)), plots.reward_pairs(result)))


@pytest.fixture
def axes():
    figure = Figure(figsize=(5, 4), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    figure.draw_without_rendering()
    return axes


def test_label_goes_where_nothing_is(axes):
    wall = np.stack([np.full(400, 0.6), np.linspace(0, 1, 400)], axis=1)
    anchor = np.array([[0.5, 0.5]])
    place(axes, [Label(text="here", colour="k", anchors=anchor)], wall, paper="w")
    ((_, box),) = texts_of(axes)
    (x,), _ = axes.transData.transform(wall[:1]).T
    assert box.x1 < x


def test_labels_stay_clear_of_each_other(axes):
    """Five lines that lie nearly on each other."""
    labels = [
        Label(
            text=f"label {i}",
            colour="k",
            anchors=np.array([[x, 0.5 + 0.01 * i] for x in (0.1, 0.3, 0.5, 0.7)]),
        )
        for i in range(5)
    ]
    place(axes, labels, np.zeros((0, 2)), paper="w")
    for (_, a), (_, b) in combinations(texts_of(axes), 2):
        assert not a.overlaps(b)


def test_spread_keeps_the_order_and_moves_no_more_than_needed(axes):
    heights = [0.5, 0.51, 0.1, 0.9, 0.505]
    labels = [
        Label(text=str(height), colour="k", anchors=np.array([[0.0, 0.2], [1.0, height]]))
        for height in heights
    ]
    texts = beside(axes, labels)
    spread(axes, texts)
    found = [text.get_position()[1] for text in texts]
    assert np.argsort(found).tolist() == np.argsort(heights).tolist()
    for a, b in combinations([text.get_window_extent() for text in texts], 2):
        assert not a.overlaps(b)
    assert np.abs(np.array(found) - heights).max() < 0.1
    spread(axes, [])


def test_line_in_steps():
    line = along(np.array([[0.0, 0.0], [np.nan, 1.0], [1.0, 2.0], [2.0, 2.0]]), steps=2)
    assert line.tolist() == [[0, 0], [0.5, 1], [1, 2], [1.5, 2], [2, 2]]
    assert along(np.array([[1.0, 2.0]])).tolist() == [[1.0, 2.0]]
