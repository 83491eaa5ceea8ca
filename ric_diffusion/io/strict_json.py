"""JSON that somebody else may have written: bounded in size and depth, and nothing but JSON.

Python's own reader takes NaN and infinities, keeps the last of two equal keys without a word, and
makes of 200 000 brackets what later breaks whoever walks through it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ric_diffusion.io.errors import InputError, reason_of
from ric_diffusion.io.files import check_regular

MOST_BYTES = 2**24  # of a file; an adapter's has some tens of thousands
MOST_DEPTH = 32  # of lists and objects in each other


def read_json(path: Path) -> Any:
    """What a JSON file says. InputError if it is too large, or is not JSON; OSError for what cannot
    be read, or is no file."""
    check_regular(path)
    with path.open("rb") as file:
        text = file.read(MOST_BYTES + 1)
    if len(text) > MOST_BYTES:
        raise InputError(
            f"{path}: holds {os.stat(path).st_size} bytes, at most {MOST_BYTES} are read"
        )
    return parse_json(text, str(path))


def parse_json(text: str | bytes, where: str) -> Any:
    """What a JSON text says. InputError, which begins with ``where``, if it is not JSON."""
    try:
        value = json.loads(text, parse_constant=_no_number, object_pairs_hook=_object)
    except RecursionError:
        raise _nested(where) from None
    except ValueError as error:
        raise InputError(f"{where}: not valid JSON ({reason_of(error)})") from None
    level: Iterable[Any] = [value]
    for _ in range(MOST_DEPTH):
        level = [child for item in level for child in _children(item)]
        if not level:
            return value
    raise _nested(where)


def _nested(where: str) -> InputError:
    return InputError(f"{where}: not valid JSON (nested more than {MOST_DEPTH} deep)")


def _children(item: Any) -> Iterable[Any]:
    if isinstance(item, dict):
        return item.values()
    return item if isinstance(item, list) else ()


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{key!r} is there twice")
        found[key] = value
    return found
