"""What baselines need to know about each family of models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch

from ric_diffusion.adapters import lora
from ric_diffusion.adapters.format import PeftFormat
from ric_diffusion.models.family import Family

ADAPTER = "adapter"  # below a run's folder


@contextmanager
def merged(network: torch.nn.Module, weights: lora.Lora) -> Iterator[None]:
    """The LoRA is part of the network's weights inside the block; outside they are as before."""
    inside = lora.Merged(network)
    inside.set([(weights, 1.0)])
    try:
        yield
    finally:
        inside.set([])


@contextmanager
def installed(network: torch.nn.Module, weights: lora.Lora) -> Iterator[None]:
    """The LoRA stands beside the network's weights inside the block, as our own adapters of
    language models do: added to weights of low precision, part of it would be lost."""
    lora.install(network, weights)
    try:
        yield
    finally:
        lora.eject(network)


def under(
    family: Family, network: torch.nn.Module, weights: lora.Lora
) -> AbstractContextManager[None]:
    """The network is under the LoRA inside the block."""
    if isinstance(family.format, PeftFormat):
        return installed(network, weights)
    return merged(network, weights)


def model_of(sampler: Any) -> Any:
    """The loaded model of a sampler or backend of either medium."""
    return sampler.pipe if hasattr(sampler, "pipe") else sampler.lm


def lora_file(family: Family) -> Path:
    """A run's LoRA, below the run's folder: the folder it lies in is an adapter in form, but its
    rewards move nothing."""
    return Path(ADAPTER, family.format.files[0])


def save_run(backend: Any, out: Path) -> None:
    """Write a backend's LoRA to where ``lora_file`` says."""
    backend.save(out / ADAPTER)


def read_run(family: Family, file: Path) -> lora.Lora:
    """The LoRA that ``save_run`` wrote."""
    return family.format.read(file.parent)
