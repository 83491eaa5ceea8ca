"""The figures of training: what each step adds to the next line of the log."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

QUARTERS = ("0_25", "25_50", "50_75", "75_100")  # of the noise levels, in per cent


@dataclass(frozen=True, kw_only=True)
class StepFigures:
    """Of one step: its mean loss; how many samples it had; the norm of its gradient before
    clipping; both None if they are not finite, as the gradient may be in float16; by quarter of the
    noise levels the sums of its samples' losses, and how many there were."""

    loss: float | None
    samples: int
    gradient_norm: float | None
    sums: Sequence[float]
    counts: Sequence[float]


class LevelTally:
    """Sums up the losses of micro-batches by quarter of the noise levels."""

    def __init__(self) -> None:
        self._total: torch.Tensor | None = None  # (2, 4): sums and counts

    def __call__(self, levels: torch.Tensor, losses: torch.Tensor) -> None:
        """Noise levels (B,) from 0 (none) to 1 (all), and losses (B,)."""
        quarters = (levels * len(QUARTERS)).long().clamp(0, len(QUARTERS) - 1)
        within = torch.nn.functional.one_hot(quarters, len(QUARTERS)).float()
        weighted = within * losses.detach().float()[:, None]
        found = torch.stack([weighted.sum(0), within.sum(0)])
        self._total = found if self._total is None else self._total + found

    def read(self) -> list[float]:
        """The four sums and the four counts."""
        if self._total is None:
            return [0.0] * 2 * len(QUARTERS)
        values: list[float] = self._total.flatten().tolist()
        return values


def summary(steps: Sequence[StepFigures]) -> dict[str, float]:
    """The means over these steps, by the names of the log. Noise levels that no sample had, and
    figures that no step has, are left out."""
    found = {}
    for name in ("loss", "gradient_norm"):
        values = [value for step in steps if (value := getattr(step, name)) is not None]
        if values:
            found[name] = sum(values) / len(values)
    for i, name in enumerate(QUARTERS):
        if count := sum(step.counts[i] for step in steps):
            found[f"loss_noise_{name}"] = sum(step.sums[i] for step in steps) / count
    return found


def finite(value: float) -> float | None:
    """A number that JSON can hold, or None."""
    return value if math.isfinite(value) else None
