"""What is said of a long run for one preference."""

from dataclasses import replace

import numpy as np
import pytest

from plateau import late_rise, plateau_table, reached, weighted_z
from ric_diffusion.models.cost import Cost
from support.report import method_of, point_of, result_of
from support.tables import rows_of

HALF = {"a": 0.5, "b": 0.5}


def sweep_point(a, b, weight):
    return point_of({"a": a, "b": b}, preference={"a": weight, "b": 1 - weight})


def table(rewards, theirs=1.0):
    ours = method_of("ours", [sweep_point(2, 0, 1.0), sweep_point(1.0, 0.594, 0.5)])
    longer = method_of("longer", [sweep_point(theirs, theirs, 0.5)])
    costs = Cost(forwards=200_000), Cost(forwards=1_000_000)
    methods = (replace(m, training_cost=c) for m, c in zip((ours, longer), costs, strict=True))
    result = replace(result_of(["a", "b"]), methods=tuple(methods))
    return rows_of(plateau_table(result, "longer", HALF, np.array(rewards)))[0]


def test_what_it_took_to_come_as_far():
    row = table(np.linspace(0, 1, 101))  # 0.8 at the 81st
    assert (row["weighted z, longer"], row["weighted z, ours"]) == ("1.00", "0.80")
    assert row["iterations until that of ours, by its curve"] == "81"
    assert row["million forwards until then"] == f"{81 / 101:.3f}"
    assert row["ours, training for all preferences, million forwards"] == "0.200"
    assert row["of the last quarter, rise in z"] == "+0.25"


def test_a_run_that_stays_below_is_a_bound():
    row = table([0.0] * 20 + [0.5] * 20, theirs=0.5)
    assert row["iterations until that of ours, by its curve"] == "not in 40"
    assert row["million forwards until then"] == "> 1.000"
    assert row["of the last quarter, rise in z"] == "+0.00"


def test_one_lucky_batch_is_not_there_yet():
    rewards = np.zeros(30)
    rewards[10] = 1.0
    assert reached(rewards, 0.8) is None and reached(rewards, 0.2) == 9
    assert late_rise(np.arange(8.0)) == pytest.approx(2.0)


def test_weights_that_no_point_has():
    method = method_of("ours", [sweep_point(2, 0, 1.0)])
    assert weighted_z(method, HALF) is None
    assert weighted_z(method, {"a": 1.0, "b": 0.0}) == 2.0
