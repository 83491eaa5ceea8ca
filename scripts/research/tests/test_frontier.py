"""What is said of methods that keep more or less of their prompts."""

from dataclasses import replace

import numpy as np
import pytest

import comparison
from frontier import frontier_figure, frontier_table, places
from support.report import estimate, method_of, point_of, result_of
from support.tables import rows_of

# hypervolume and prompt R-precision
FIGURES = {
    "ours": (11.0, 0.88),
    "ours, guided": (10.0, 0.95),
    "rival": (9.0, 0.95),
    "twin": (9.0, 0.95),
    "base": (4.0, 0.96),
    "lost": (5.0, None),
}


@pytest.fixture(scope="module")
def result():
    point = point_of({"a": 0.0, "b": 0.0})
    methods = (
        replace(
            method_of(name, [point]),
            hypervolume=estimate(volume),
            prompt_r_precision=estimate(kept),
        )
        for name, (volume, kept) in FIGURES.items()
    )
    return replace(result_of(["a", "b"]), methods=tuple(methods))


def test_the_table_says_who_does_better_in_both(result):
    rows = rows_of(frontier_table(result, "base"))
    assert [row["method"] for row in rows] == ["base", "ours, guided", "rival", "twin", "ours"]
    assert [row["dominated by"] for row in rows] == [
        "none", "none", "ours, guided", "ours, guided", "none",
    ]  # fmt: skip
    assert rows[-1]["prompt R-precision / base"] == "0.917"
    assert next(one.kept for one in places(result, "not there")) == 0.88


def test_what_prints_alike_is_alike(result):
    (base,) = (one for one in result.methods if one.name == "base")
    near = replace(
        base, name="near", prompt_r_precision=estimate(0.9599), hypervolume=estimate(4.5)
    )
    rows = rows_of(frontier_table(replace(result, methods=(*result.methods, near)), "base"))
    said = {row["method"]: row for row in rows}
    assert said["near"]["prompt R-precision / base"] == said["base"]["prompt R-precision / base"]
    assert said["base"]["dominated by"] == "near" and said["near"]["dominated by"] == "none"


def test_of_many_some_are_named(result):
    worst = replace(result.methods[0], name="worst", hypervolume=estimate(1.0))
    some = replace(result, methods=(*result.methods, worst))
    (row,) = (row for row in rows_of(frontier_table(some, "base")) if row["method"] == "worst")
    assert row["dominated by"] == "base; ours, guided; 3 more"


def test_the_figure_joins_those_that_none_beats(result):
    (axes,) = frontier_figure(result, "base").axes
    points = [line for line in axes.lines if len(line.get_xdata()) == 1]
    drawn = np.concatenate([line.get_xydata() for line in points])
    known = ["base", "ours, guided", "rival", "twin", "ours"]
    kept = [FIGURES[name][1] / 0.96 for name in known]
    assert drawn[:, 0].tolist() == pytest.approx(kept, abs=5e-4)
    assert drawn[:, 1].tolist() == [FIGURES[name][0] for name in known]
    hollow = [line.get_markerfacecolor() == "#ffffff" for line in points]
    assert hollow == [False, False, True, True, False]
    (line,) = (line for line in axes.lines if len(line.get_xdata()) > 1)
    assert line.get_ydata().tolist() == [11.0, 10.0, 4.0]
    # Marks that cover each other share a label.
    assert {text.get_text() for text in axes.texts} == {"1", "2", "3, 4", "5"}
    listed = [text.get_text() for text in axes.get_legend().get_texts()]
    assert listed == [f"{row}  {name}" for row, name in enumerate(known, 1)]


@pytest.mark.parametrize(("least", "met"), [(0.9, True), (0.97, False)])
def test_keeping_prompts(result, least, met):
    bar = comparison.keeps(result, "base", least)
    assert (bar.found, bar.met) == ("0.917", met)
    assert comparison.keeps(result, "gone", least).met is None
