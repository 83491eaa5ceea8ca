"""``ric scorers``: what there is to score with."""

from __future__ import annotations

import argparse
import textwrap

from scorers import Listed, available, listed
from scorers.listing import REQUIRED

WIDTH = 96


def run(options: argparse.Namespace) -> None:
    """A few lines of each scorer; of those that are named, all that is said of them."""
    named = options.names
    for name in named or available():
        print(described(listed(name), in_full=bool(named)))
    if not named:
        print("`ric scorers NAME` says what the options mean.")


def described(scorer: Listed, *, in_full: bool) -> str:
    """As lines of text, the name first."""
    lines = [f"{scorer.name}  ({'; '.join(_facts(scorer))})"]
    paragraphs = scorer.text.split("\n\n")
    lines += _wrapped(paragraphs if in_full else paragraphs[:1])
    if scorer.options:
        written = ", ".join(f"{name}={_value(value)}" for name, value in scorer.options.items())
        lines += _wrapped([f"options: {written}"])
    return "\n".join(lines) + "\n"


def _facts(scorer: Listed) -> list[str]:
    if scorer.problem:
        return [scorer.problem]
    sees = {"image": "pictures", "text": "texts", None: "what its server scores"}[scorer.medium]
    facts = [f"{sees} with their prompts" if scorer.needs_prompts else sees]
    facts += [f"unit: {scorer.unit}"] if scorer.unit else []
    return facts + ([f"package {scorer.package}"] if scorer.package else [])


def _value(value: object) -> str:
    """As one writes it behind the equals sign."""
    if value is REQUIRED:
        return "…"
    return str(value).lower() if value in (None, True, False) else str(value)


def _wrapped(paragraphs: list[str]) -> list[str]:
    found = []
    for paragraph in paragraphs:
        text = " ".join(paragraph.replace("``", "").split())
        found += textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="  ")
    return found
