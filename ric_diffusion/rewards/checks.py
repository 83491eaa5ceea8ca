"""Checks of what comes from users and files: the value, or an InputError that names its place."""

import math
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ric_diffusion.io.errors import InputError, suggest

MOST_TEXT = 1000  # characters of a name, a path, a unit
MOST_SCORE = 1e12  # either way; no unit has scores beyond
MOST_Z = 1e6  # either way; of a million samples the farthest is at a thousand


def known(name: str, names: Iterable[str], where: str) -> None:
    """Refuse a reward name that is not one of `names`."""
    if name not in names:
        raise InputError(f"{where}: unknown reward {name!r}{suggest(name, names)}")


def number(value: Any, where: str, most: float = math.inf) -> float:
    """`value` as a finite float, of `most` at most either way; text and truth values are
    refused."""
    try:
        if isinstance(value, str | bytes | bool | np.bool_):
            raise TypeError
        result = float(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{where} must be a number, not {value!r}") from None
    if not np.isfinite(result):
        raise InputError(f"{where} must be finite, not {result}")
    if abs(result) > most:
        raise InputError(f"{where} is {result}; {most:g} is the most, either way")
    return result


def numbers(values: Any, where: str, most: float = math.inf) -> tuple[float, ...]:
    """A list or tuple as finite floats, of `most` at most either way."""
    return tuple(number(value, where, most) for value in items(values, where))


def text(value: Any, where: str, most: int) -> str:
    """Text of `most` characters, without any that moves a cursor or reorders a line: it stands in
    tables, cards and terminals."""
    if not isinstance(value, str):
        raise InputError(f"{where} must be text, not {value!r}")
    if len(value) > most:
        raise InputError(f"{where} has {len(value)} characters; {most} is the most")
    if not is_one_line(value):
        raise InputError(f"{where} must be text of one line, without control characters: {value!r}")
    return value


def is_one_line(text: str) -> bool:
    """Whether there is nothing in it that moves a cursor or reorders a line."""
    return all(unicodedata.category(c) not in _CONTROLS for c in text)


_CONTROLS = ("Cc", "Cf", "Cs", "Zl", "Zp")


def scorer(value: Any, where: str) -> Mapping[str, Any]:
    """How a reward was scored: nothing, or the name of a scorer and its options by name."""
    if mapping(value, where):
        given = fields({"options": {}, **value}, ("name", "options"), where)
        text(given["name"], f"{where}: name", MOST_TEXT)
        mapping(given["options"], f"{where}: options")
    return dict(value)


def items(values: Any, where: str) -> list[Any] | tuple[Any, ...]:
    """A list or tuple, as it is."""
    if not isinstance(values, list | tuple):
        raise InputError(f"{where} must be a list, not {values!r}")
    return values


def mapping(value: Any, where: str) -> Mapping[str, Any]:
    """A mapping, as it is."""
    if not isinstance(value, Mapping):
        raise InputError(f"{where} must map names to values, not {value!r}")
    return value


def fields(data: Any, expected: Iterable[str], where: str) -> dict[str, Any]:
    """A mapping whose keys are those expected, all of them and no others, as a dict."""
    expected = list(expected)
    for key in mapping(data, where):
        if key not in expected:
            raise InputError(f"{where}: unknown field {key!r}{suggest(key, expected)}")
    missing = [key for key in expected if key not in data]
    if missing:
        raise InputError(f"{where}: field {', '.join(missing)} is missing")
    return dict(data)


def column(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """The scores of one reward as float64 (N,), all finite, N ≥ 1."""
    try:
        array = np.asarray(values)
    except ValueError:  # ragged
        array = np.array(None)
    if array.shape == (0,):
        raise InputError(f"{name}: no scores given")
    if array.ndim != 1 or array.dtype.kind not in "fiu":
        raise InputError(f"{name}: scores must be one list of numbers")
    bad = int((~np.isfinite(array)).sum())
    if bad:
        raise InputError(f"{name}: {bad} of {len(array)} scores are not finite; drop those samples")
    return array.astype(np.float64)
