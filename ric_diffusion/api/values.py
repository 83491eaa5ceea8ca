"""Rewards with their values, as people write them: ``colorfulness=1.5 compressibility=0.3``. What
arguments of sampling are called by the same name for all families of models."""

from __future__ import annotations

from collections.abc import Iterable

from ric_diffusion.io.errors import InputError

COMMON = (
    "steps",
    "guidance_scale",
    "true_cfg_scale",
    "contrast",
    "prompt_guidance",
    "reward_start",
    "width",
    "height",
)


def name_value(text: str) -> tuple[str, float]:
    """``name=1.5`` -> ("name", 1.5). InputError for anything else."""
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise InputError(f"{text!r}: write name=number") from None


def by_name(given: Iterable[tuple[str, float]], field: str) -> dict[str, float]:
    """Names with their values -> values by name. InputError, naming ``field``, for a name given
    twice."""
    pairs = list(given)
    names = [name for name, _ in pairs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"{field}: {twice[0]} is given twice; keep one of them")
    return dict(pairs)
