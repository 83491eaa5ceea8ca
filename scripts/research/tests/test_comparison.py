"""The tables of a comparison say what its result says."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

import comparison
from ric_diffusion.evaluation.metrics import ratio_interval, volume_of
from ric_diffusion.evaluation.report.schema import Estimate, NearFront
from ric_diffusion.evaluation.report.summary import preference_z, summarise
from ric_diffusion.evaluation.standard import Standard
from ric_diffusion.models.cost import Cost
from support.report import estimate, method_of, point_of, result_of
from support.scores import base_of, config_of, scores_of
from support.tables import rows_of

SPENT = {"ours": Cost(700_000, 8192), "rival": Cost(8_600_000, 64_000, 132.0), "no adapter": Cost()}


@pytest.fixture(scope="module")
def config():
    return config_of(2, held_out=["aesthetic"])


@pytest.fixture(scope="module")
def scores(config):
    return [
        scores_of(config, name="ours", gain=0.9),
        scores_of(config, name="rival", gain=0.5, seed=1),
        base_of(config),
    ]


@pytest.fixture(scope="module")
def result(config, scores):
    found = summarise(scores, config, Path("report"), model="m", versions={})
    methods = (replace(method, training_cost=SPENT[method.name]) for method in found.methods)
    return replace(found, methods=tuple(methods))


def with_ratio(result, value, low, high):
    """The result with this ratio of the second method to the first."""
    first, second, *rest = result.methods
    ratio = Estimate(value=value, low=low, high=high)
    return replace(result, methods=(first, replace(second, hypervolume_ratio=ratio), *rest))


def with_first(result, **changes):
    """The result with its first method alone, changed."""
    return replace(result, methods=(replace(result.methods[0], **changes),))


def test_a_row_for_each_method(result):
    each = {"ours": [7.126, None, 8.0], "rival": [6.5], "no adapter": [4.0]}
    ours, rival, alone = rows_of(comparison.methods_table(result, each))
    assert [row["method"] for row in (ours, rival, alone)] == list(SPENT)
    assert ours["× ours"] == "1"
    assert (ours["of each training"], rival["of each training"]) == ("7.13, –, 8.00", "")
    ratio = result.methods[1].hypervolume_ratio
    assert rival["× ours"].startswith(f"{ratio.value:.2f} ({ratio.low:.2f} to ")
    assert rival["training, million forwards"] == "8.600"
    assert rival["training, thousand scored"] == "64.0"
    assert rival["training, minutes"] == "2"
    assert alone["training, million forwards"] == "0.000"
    samples = result.methods[0].samples
    assert ours["a sample, forwards"] == f"{480 / samples:.0f}"
    points = result.methods[0].points
    mean = sum(point.held_out["aesthetic"].value for point in points) / len(points)
    assert ours["aesthetic"] == f"{mean:.2f}".replace("-", "−")
    assert ours["near its front"] == "5 of 5" and alone["near its front"] == "1 of 1"


def test_the_ratio_is_the_paired_one_upside_down(result, config, scores):
    standard = Standard.of(config.space, [some.scores for some in scores])
    one, other = (preference_z(some, standard) for some in scores[:2])
    expected = ratio_interval(one, other, volume_of)
    found = comparison.inverse(result.methods[1].hypervolume_ratio)
    assert found.value == pytest.approx(float(expected.value))
    assert found.low == pytest.approx(float(expected.low), rel=1e-2)
    assert found.high == pytest.approx(float(expected.high), rel=1e-2)


def test_nothing_goes_into_it_infinitely_often():
    found = comparison.inverse(Estimate(value=0.5, low=0.0, high=0.8))
    assert found == Estimate(value=2.0, low=1.25, high=math.inf)
    nothing = Estimate(value=None, low=None, high=None)
    assert comparison.inverse(nothing) == nothing


@pytest.mark.parametrize(
    ("ratio", "met"),
    [
        ((0.80, 0.70, 0.90), True),
        ((0.90, 0.80, 1.00), False),
        ((0.80, 0.70, 1.10), True),  # the value alone decides
        ((None, None, None), False),
    ],
)
def test_beating(result, ratio, met):
    some = with_ratio(result, *ratio)
    bar = comparison.beats(some, "rival", 1.2)
    assert bar.met is met
    assert (bar.what, bar.bar) == ("hypervolume, ours / rival", "≥ 1.2")


@pytest.mark.parametrize(
    ("high", "low", "met"),
    [
        (0.97, 7.1, [True, True]),
        (0.97, 6.9, [True, False]),  # the ratio is sure, what each reaches is not
        (1.00, 7.1, [False, True]),
        (None, 7.1, [False, True]),
    ],
)
def test_telling_apart(result, high, low, met):
    some = with_ratio(result, 0.9, 0.8, high)
    first, second, *rest = some.methods
    first = replace(first, hypervolume=Estimate(value=8.0, low=low, high=9.0))
    second = replace(second, hypervolume=Estimate(value=6.0, low=5.0, high=7.0))
    bars = comparison.apart(replace(some, methods=(first, second, *rest)), "rival")
    assert [bar.met for bar in bars] == met
    assert bars[1].found == f"8.00 ({low:.2f} to 9.00) and 6.00 (5.00 to 7.00)"
    assert bars[0].found == ("–" if high is None else f"{1 / high:.2f}")


def test_costing_less(result):
    bar = comparison.cheaper(result, "rival", 0.10)
    assert (bar.found, bar.met) == ("0.081", True)
    assert comparison.cheaper(result, "rival", 0.08).met is False


def test_near_the_front(result):
    bar = comparison.near(with_first(result, near_front=NearFront(count=9, total=11)), 9 / 11)
    assert (bar.found, bar.bar, bar.met) == ("9 of 11", "≥ 9 of 11", True)
    bar = comparison.near(with_first(result, near_front=NearFront(count=4, total=6)), 9 / 11)
    assert (bar.found, bar.bar, bar.met) == ("4 of 6", "≥ 5 of 6", False)


def test_control_of_every_reward(result):
    bars = comparison.control(result, 0.9)
    assert [bar.what.split(":")[0] for bar in bars] == [
        f"control, {reward.name}" for reward in result.rewards
    ]
    assert all(bar.met and float(bar.found) >= 0.9 for bar in bars)
    sweep = replace(result.methods[0].control[0], spearman_of_means=None)
    (bar,) = comparison.control(with_first(result, control=(sweep,)), 0.9)
    assert (bar.found, bar.met) == ("–", False)


def test_what_was_not_run_is_said(result):
    bars = [comparison.beats(result, "gone", 1.2), comparison.cheaper(result, "gone", 0.1)]
    bars += comparison.apart(result, "gone")
    rows = rows_of(comparison.bars_table([*bars, comparison.near(result, 1.0)]))
    assert [row["value"] for row in rows] == ["not run"] * 4 + ["5 of 5"]
    assert [row[""] for row in rows] == [""] * 4 + ["met"]


def test_a_row_for_every_way_to_condition(result):
    first, second = rows_of(comparison.conditioning_table(result, {"rival": 2_500_000, "ours": 10}))
    assert (first["method"], first["trained, million parameters"]) == ("rival", "2.50")
    (sweep, _) = result.methods[0].control
    ends = sweep.obtained[0].value, sweep.obtained[-1].value
    assert float(second[f"{sweep.reward}: span, z"]) == pytest.approx(ends[1] - ends[0], abs=0.005)
    assert first[f"{sweep.reward}: Spearman of the means"] == "1.000"


def test_following_rewards(result):
    bars = comparison.follows(result, "rival", 0.95)
    assert [bar.met for bar in bars] == [True] * 2 and len({bar.what for bar in bars}) == 2
    assert [bar.met for bar in comparison.follows(result, "rival", 1.01)] == [False] * 2
    (gone,) = comparison.follows(result, "gone", 0.95)
    assert gone.met is None and gone.found == "not run"


@pytest.mark.parametrize(("ours", "met"), [(-2.4, True), (-2.6, False), (None, False)])
def test_fluency_in_the_middle(ours, met):
    def method(name, *values):
        point = point_of({"a": 0.0, "b": 0.0})
        return method_of(name, [replace(point, held_out={"fluency": estimate(v)}) for v in values])

    methods = method("ours", -9.0, ours, -1.0), method("base", -2.0)
    found = replace(result_of(["a", "b"]), methods=methods)
    bar = comparison.fluent(found, "base", 0.5)
    assert bar.met is met and bar.bar == "≥ −0.50"
    assert bar.found == ("–" if ours is None else f"−{-2.0 - ours:.2f}")
    assert comparison.fluent(found, "gone", 0.5).met is None
