"""What training sees of a model: a few methods, whatever kind of model it is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from ric_diffusion.data.medium import Medium
from ric_diffusion.models.sharding import whole
from ric_diffusion.rewards import PromptGroups

Note = Callable[[torch.Tensor, torch.Tensor], None]


def unnoted(levels: torch.Tensor, losses: torch.Tensor) -> None:
    """For whoever wants no figures of the samples."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One micro-batch: which records, and the only source of randomness its loss may use.

    ``indices`` point into the records that the backend was prepared with. The generator lives on
    the CPU and is seeded from (seed, step, process), so a step is repeatable on its own. A model
    that is trained on noise calls ``note`` with the noise levels of its samples, from 0 (none) to 1
    (all), and with their losses, (B,) each.
    """

    indices: tuple[int, ...]
    generator: torch.Generator
    note: Note = unnoted


class Trainable(Protocol):
    """The half of a backend that the training loop uses."""

    buckets: np.ndarray | None  # (N,), which bucket each record is in; None where there is but one

    def loss(self, batch: Batch) -> torch.Tensor:
        """Mean loss over the batch: a scalar tensor with a graph."""

    def named_parameters(self) -> Mapping[str, torch.nn.Parameter]:
        """The trained parameters by name, always in the same order."""

    def save(self, folder: Path) -> None:
        """Write the trained weights to ``folder``, whole or not at all."""

    def load(self, folder: Path) -> None:
        """Read back what ``save`` wrote."""


class Sampler(Protocol):
    """The half of a backend that evaluation uses."""

    medium: Medium  # what its samples are: how they are read, written and rejected

    def sample(
        self,
        prompts: Sequence[str],
        targets: Sequence[Mapping[str, float]],
        seeds: Sequence[int],
    ) -> list[Any]:
        """One sample per prompt; ``targets`` in z, a reward left out is auto."""

    def features(self, samples: Sequence[Any]) -> np.ndarray:
        """(N, D) float32, L2-normalised: what diversity is measured on."""

    def prompt_r_precision(self, prompts: Sequence[str], samples: Sequence[Any]) -> np.ndarray:
        """Prompt R-precision, (N,) in [0, 1]: how often the model under the adapter explains a
        sample better by its own prompt than by a distractor, another of the prompts."""

    def network(self) -> torch.nn.Module:
        """The network whose forward passes are counted as cost."""


class Backend(Trainable, Sampler, Protocol):
    """A model that can be trained and asked for samples: ``model`` has ``adapter`` in training
    (adapters.adapter.Adapter)."""

    model: Any
    adapter: Any
    sharded: bool  # then a pass of its network takes all processes, equally often

    def gathered(self) -> AbstractContextManager[None]:
        """The first process saves inside the block, which all come to together."""

    def prepare(
        self,
        records: Sequence[Any],
        folder: Path,
        cache: Path,
        groups: PromptGroups | None = None,
    ) -> int:
        """Take the records (data.records.Record) to train on, and return how many of them that is:
        some may not fit the model. What is computed once per record goes to ``cache``. A record's
        file may be absolute, else it lies in ``folder``. ``groups``: what rewards that are compared
        within a prompt are compared with, by default these records. All processes do this
        together."""


def weights_digest(module: torch.nn.Module) -> str:
    """SHA-256 over a module's tensors: two models with equal digests do the same. Of a module in
    shards all processes ask together."""
    sha = hashlib.sha256()
    # A layer that once had a LoRA stays wrapped, and its weights are named after that.
    tensors = {k.replace(".base_layer.", "."): v for k, v in module.state_dict().items()}
    for name, tensor in sorted(tensors.items()):
        sha.update(name.encode())
        plain = whole(tensor.detach()).cpu()
        sha.update(plain.flatten().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()
