"""What there is to score with, for people to read: nothing is loaded but the code of scorers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from scorers.base import ScorerError
from scorers.loading import available, factory_of


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A scorer as a person chooses it.

    Attributes:
        name: what ``load`` takes.
        medium: what it scores; None where that is its server's to say, as ``unit`` is.
        unit: of its scores.
        needs_prompts: whether it also reads what was to be seen.
        options: their defaults by name; REQUIRED for one that has none.
        text: its docstring.
        package: of an installed scorer that is not built in.
        problem: why an installed one cannot be used; the rest is then empty.
    """

    name: str
    medium: Literal["image", "text"] | None = None
    unit: str = ""
    needs_prompts: bool = False
    options: Mapping[str, Any]
    text: str = ""
    package: str | None = None
    problem: str | None = None


REQUIRED = inspect.Parameter.empty


def listed(name: str) -> Listed:
    """What is known of the scorer of that name. ScorerError if there is none."""
    try:
        factory, package = factory_of(name)
    except ScorerError as error:
        if name not in available():
            raise
        return Listed(name=name, options={}, problem=str(error))
    kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(factory).parameters.values()
    is_class = inspect.isclass(factory)
    return Listed(
        name=name,
        medium=getattr(factory, "medium", "image") if is_class else None,
        unit=str(getattr(factory, "unit", "")) if is_class else "",
        needs_prompts=bool(getattr(factory, "needs_prompts", False)),
        options={one.name: one.default for one in parameters if one.kind in kinds},
        text=inspect.getdoc(factory) or "",
        package=package,
    )
