"""What is wished of the rewards, as the command line and other front ends give it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from ric_diffusion.errors import InputError


def wishes_of(options: argparse.Namespace) -> dict[str, Any]:
    """The pipeline's arguments about rewards. InputError for a name given twice."""
    found = {}
    for argument in ("preference", "targets", "negative_targets"):
        if given := getattr(options, argument, None):  # not every verb has all three
            found[argument] = once(given, f"--{argument.replace('_', '-')}")
    return found


def once(given: Sequence[tuple[str, float]], field: str) -> dict[str, float]:
    """Names with their values -> values by name. InputError for a name given twice."""
    names = [name for name, _ in given]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"{field}: {twice[0]} is given twice; keep one of them")
    return dict(given)
