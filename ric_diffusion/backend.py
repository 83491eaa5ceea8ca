"""What training sees of a model: five methods, whatever kind of model it is."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
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

    suffix: str  # of the files that ``write`` writes, ".png"

    def sample(
        self,
        prompts: Sequence[str],
        targets: Sequence[Mapping[str, float]],
        seeds: Sequence[int],
    ) -> list[Any]:
        """One sample per prompt; ``targets`` in z, a reward left out is auto."""

    def write(self, sample: Any, path: Path) -> None:
        """Write one sample to a file of its own, in one move and without loss."""

    def read(self, path: Path) -> Any:
        """The sample that ``write`` wrote."""

    def fault(self, sample: Any) -> str | None:
        """Why a sample must never be labelled or selected, in a word ("blank"), or None."""

    def digest(self, sample: Any) -> str:
        """Equal for equal samples."""

    def features(self, samples: Sequence[Any]) -> np.ndarray:
        """(N, D) float32, L2-normalised: what diversity is measured on."""

    def prompt_kept(self, prompts: Sequence[str], samples: Sequence[Any]) -> np.ndarray:
        """(N,) in [0, 1]: how often the model under the adapter explains a sample better by its
        own prompt than by another of the prompts."""

    def watched(self) -> torch.nn.Module:
        """The network whose forward passes are counted as cost."""


def diversity(features: np.ndarray) -> float:
    """Mean cosine distance between samples of one prompt, features (S, D) of unit length; NaN for a
    single sample. The mean over pairs comes from the length of the sum."""
    count = len(features)
    if count < 2:
        return math.nan
    pairs = (np.square(features.sum(axis=0)).sum() - count) / (count * (count - 1))
    return float(1 - pairs)


class Backend(Trainable, Sampler, Protocol):
    """A model that can be trained and asked for samples."""

    def prepare(self, records: Sequence[Any], folder: Path, cache: Path) -> None:
        """Take the records (data.records.Record) to train on; what is computed once per record goes
        to ``cache``. A record's file may be absolute, else it lies in ``folder``."""


def weights_digest(module: torch.nn.Module) -> str:
    """SHA-256 over a module's tensors: two models with equal digests do the same."""
    sha = hashlib.sha256()
    # A layer that once had a LoRA stays wrapped, and its weights are named after that.
    tensors = {k.replace(".base_layer.", "."): v for k, v in module.state_dict().items()}
    for name, tensor in sorted(tensors.items()):
        sha.update(name.encode())
        sha.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()
