"""Counts beyond any use are refused in one line, and so is what is no count."""

import dataclasses
import math

import numpy as np
import pytest

from ric_diffusion.io.bounds import check_count
from ric_diffusion.io.config import above_zero, within
from ric_diffusion.io.errors import InputError


@dataclasses.dataclass
class Config:
    number: float


@pytest.mark.parametrize("value", [1, 7, np.int64(3)])
def test_a_count(value):
    assert check_count("count", value, 7) == value and type(check_count("count", value, 7)) is int
    assert check_count("seed", 0, 7, least=0) == 0


@pytest.mark.parametrize("value", [0, 8, -1, 10**30, 1.0, True, "3", None, math.nan])
def test_no_count(value):
    with pytest.raises(InputError) as caught:
        check_count("count", value, 7)
    assert str(caught.value) == f"count {value!r}: give a whole number from 1 to 7"


@pytest.mark.parametrize(
    "value, told",
    [(-0.1, "give 0 or more"), (math.nan, "give 0 or more"), (1e308, "give 5 at most")],
)
def test_a_field_out_of_bounds(value, told):
    within(Config(0), 0, 5, "number"), within(Config(5), 0, 5, "number")
    with pytest.raises(ValueError, match=f"^number is {value}; {told}$".replace("+", r"\+")):
        within(Config(value), 0, 5, "number")


@pytest.mark.parametrize(
    "value, told",
    [(0, "a number above 0"), (math.nan, "a number above 0"), (math.inf, "5 at most")],
)
def test_a_field_that_is_not_above_0(value, told):
    above_zero(Config(1e300), "number"), above_zero(Config(5), "number", most=5)
    with pytest.raises(ValueError, match=f"^number is {value}; give {told}$"):
        above_zero(Config(value), "number", most=5)
