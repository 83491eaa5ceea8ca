"""How much can be asked for: bounds of counts and seeds, far above what anybody needs, so that a
slip of the keyboard is one line and not a full disk."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from ric_diffusion.io.errors import InputError

MOST_SAMPLES = 10**7  # of one run
MOST_PER_PROMPT = 10**5
MOST_POINTS = 1001  # of a sweep
MOST_STEPS = 1000  # of denoising: the noise levels that models are trained with
MOST_SIDE = 8192  # pixels
MOST_SCALE = 1000.0  # of guidance and whatever else scales it
LATEST_START = 0.99  # a share of the steps, of which some are left
MOST_SEED = 2**63 - 1  # what torch takes
MOST_RUN_SEED = 2**62  # of a run, which counts on from it


def check_count(name: str, value: Any, most: int, *, least: int = 1) -> int:
    """The value, if it is a whole number from ``least`` to ``most``; InputError."""
    number = int(value) if isinstance(value, Integral) and not isinstance(value, bool) else None
    if number is None or not least <= number <= most:
        raise InputError(f"{name} {value!r}: give a whole number from {least} to {most}")
    return number
