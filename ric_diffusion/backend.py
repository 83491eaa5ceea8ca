"""What training sees of a model: five methods, whatever kind of model it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One micro-batch: which records, and the only source of randomness its loss may use.

    ``indices`` point into the records that the backend was prepared with. The generator lives on
    the CPU and is seeded from (seed, step, process), so a step is repeatable on its own.
    """

    indices: tuple[int, ...]
    generator: torch.Generator


class Trainable(Protocol):
    """The half of a backend that the training loop uses."""

    def loss(self, batch: Batch) -> torch.Tensor:
        """Mean loss over the batch: a scalar tensor with a graph."""

    def parameters(self) -> Iterable[torch.nn.Parameter]:
        """The trained parameters, always in the same order."""

    def save(self, folder: Path) -> None:
        """Write the trained weights to ``folder``, whole or not at all."""

    def load(self, folder: Path) -> None:
        """Read back what ``save`` wrote."""


class Sampler(Protocol):
    """The half of a backend that evaluation uses."""

    def sample(
        self,
        prompts: Sequence[str],
        targets: Sequence[Mapping[str, float]],
        seeds: Sequence[int],
    ) -> list[Any]:
        """One sample per prompt; ``targets`` in z, a reward left out is auto."""


class Backend(Trainable, Sampler, Protocol):
    """A model that can be trained and asked for samples."""
