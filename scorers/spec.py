"""The grammar of scorer names with options: ``name:key=value,key=value``."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from scorers.base import ScorerError

Value = bool | int | float | str | None
_WORDS: dict[str, Value] = {"none": None, "true": True, "false": False}


def parse_spec(spec: str) -> tuple[str, dict[str, Value]]:
    """``"compressibility:quality=90,resize=none"`` -> name and options.

    Values are none, true, false, an integer, a number or else text. Text with a comma in it cannot
    be written here: give that option as a keyword of ``scorers.load``.
    """
    if not isinstance(spec, str):
        raise ScorerError(f"scorer {spec!r} is not a name; give a string such as 'compressibility'")
    name, colon, rest = spec.partition(":")
    options: dict[str, Value] = {}
    for item in rest.split(",") if colon else []:
        key, _, text = (part.strip() for part in item.partition("="))
        if not key or not text:
            raise ScorerError(
                f"scorer {spec!r}: {item!r} is not an option; write name:key=value,key=value"
            )
        if key in options:
            raise ScorerError(f"scorer {spec!r}: {key} is given twice; keep one of them")
        options[key] = parse_value(text)
    return name.strip(), options


def parse_value(text: str) -> Value:
    """none/true/false in any case, else int, else float, else the text itself."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


def suggest(given: str, known: Iterable[str], what: str) -> str:
    """How to mend an unknown word: the nearest known one, else all of them."""
    names = sorted(known)
    if near := difflib.get_close_matches(given, names, n=1, cutoff=0.5):
        return f"did you mean {near[0]!r}?"
    listed = names if len(names) <= 12 else [*names[:12], f"… ({len(names)} in all)"]
    return f"{what}: {', '.join(listed) or 'none'}"
