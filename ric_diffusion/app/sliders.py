"""The sliders of an adapter: their ranges, and what their positions ask for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ric_diffusion.adapters.adapter import Adapter
from ric_diffusion.io.errors import InputError
from ric_diffusion.rewards import Reward

STEP = 0.01  # z
PREFERENCE, TARGETS = MODES = ("preference", "targets")


@dataclass(frozen=True, kw_only=True)
class Slider:
    """One reward's: ``low`` to ``high`` in z, what can be asked for; ``common``: the 5th, 25th,
    50th, 75th and 95th percentile of the training data, in z."""

    reward: Reward
    low: float
    high: float
    common: tuple[float, ...]

    @property
    def name(self) -> str:
        return self.reward.name

    def score(self, z: float) -> float:
        """In the scorer's unit, to about a thousandth of its spread, so that what was 0 is 0 again
        on the way back from z."""
        digits = 3 - math.floor(math.log10(self.reward.std))
        return round(z * self.reward.std + self.reward.mean, digits) + 0.0

    def place(self, z: float) -> float:
        """Where a z lies along the slider, from 0 to 1."""
        return min(max((z - self.low) / (self.high - self.low), 0.0), 1.0)


def sliders_of(adapter: Adapter) -> list[Slider]:
    """Where a calibration measured what can be reached, a slider ends there; else where the
    training data does. Ends are rounded inwards, or outwards where that would leave no step."""
    space = adapter.space
    sliders = []
    for reward in space.rewards:
        curve = adapter.calibration.get(reward.name)
        low, high = curve.reachable if curve else space.range(reward.name)
        first, last = math.ceil(low / STEP), math.floor(high / STEP)
        if first >= last:
            first, last = math.floor(low / STEP), math.ceil(high / STEP)
        sliders.append(
            Slider(
                reward=reward,
                low=first * STEP,
                high=last * STEP,
                common=tuple(space.quantile(reward.name, q) for q in (0.05, 0.25, 0.5, 0.75, 0.95)),
            )
        )
    return sliders


def shares(count: int) -> list[int]:
    """Whole weights, as equal as can be, that sum to 100."""
    return [100 // count + (i < 100 % count) for i in range(count)]


def asked(
    names: Sequence[str], mode: Any, weights: Sequence[Any], values: Sequence[Any], auto: Any
) -> dict[str, dict[str, Any]]:
    """The positions of all sliders → ``Engine.request``'s preference or targets.

    ``weights`` in preference mode; in target mode ``values`` in z, but for the names in ``auto``.
    """
    if mode == PREFERENCE:
        return {"preference": dict(zip(names, weights, strict=True))}
    if mode == TARGETS:
        given = dict(zip(names, values, strict=True))
        return {"targets": {name: z for name, z in given.items() if name not in auto}}
    raise InputError(f"mode {mode!r}: choose {PREFERENCE} or {TARGETS}")
