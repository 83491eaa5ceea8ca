"""Checks of what comes from users and files: the value, or an InputError that names its place."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ric_diffusion.io.errors import InputError, suggest


def known(name: str, names: Iterable[str], where: str) -> None:
    """Refuse a reward name that is not one of `names`."""
    if name not in names:
        raise InputError(f"{where}: unknown reward {name!r}{suggest(name, names)}")


def number(value: Any, where: str) -> float:
    """`value` as a finite float; text and truth values are refused."""
    try:
        if isinstance(value, str | bytes | bool | np.bool_):
            raise TypeError
        result = float(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{where} must be a number, not {value!r}") from None
    if not np.isfinite(result):
        raise InputError(f"{where} must be finite, not {result}")
    return result


def numbers(values: Any, where: str) -> tuple[float, ...]:
    """A list or tuple as finite floats."""
    return tuple(number(value, where) for value in items(values, where))


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
