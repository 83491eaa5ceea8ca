"""Reward curves are drawn as they were logged, and named where they end."""

from itertools import combinations

import numpy as np
import pytest

from baselines.curves import WINDOW, curves_figure

STEPS = np.arange(1, 31)
RUNS = {f"run {k}": (STEPS, k / 50 + STEPS / 100 + 0.1 * (-1.0) ** STEPS) for k in range(3)}


def test_every_run_has_its_numbers_and_their_running_mean():
    (axes,) = curves_figure(RUNS).axes
    lines = [line.get_xydata() for line in axes.lines]
    assert len(lines) == 2 * len(RUNS)
    for (steps, rewards), raw, smooth in zip(RUNS.values(), lines[::2], lines[1::2], strict=True):
        assert raw.tolist() == np.stack([steps, rewards], axis=1).tolist()
        middle = slice(WINDOW // 2, -(WINDOW // 2))
        means = np.convolve(rewards, np.ones(WINDOW) / WINDOW, mode="valid")
        assert smooth[middle, 1] == pytest.approx(means)


def test_names_stand_beside_the_ends_and_clear_of_each_other():
    figure = curves_figure(RUNS)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    boxes = {text.get_text(): text.get_window_extent() for text in axes.texts}
    assert list(boxes) == list(RUNS)
    for box in boxes.values():
        assert box.x0 > axes.bbox.x1 and box.x1 <= figure.bbox.x1
    for a, b in combinations(boxes.values(), 2):
        assert not a.overlaps(b)


def test_a_single_iteration_is_a_curve_too():
    (axes,) = curves_figure({"short": (np.array([1]), np.array([0.5]))}).axes
    assert axes.lines[1].get_ydata().tolist() == [0.5]
