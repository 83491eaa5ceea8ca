"""What baselines need to know about each kind of model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline

from ric_diffusion.backend import weights_digest
from ric_diffusion.conditioning import lora
from ric_diffusion.diffusion import lora_file
from ric_diffusion.diffusion.backend import DiffusionBackend
from ric_diffusion.diffusion.latents import base_digests
from ric_diffusion.files import replacing
from ric_diffusion.llm import adapter
from ric_diffusion.llm.backend import LlmBackend, LlmConfig
from ric_diffusion.llm.sampler import LlmSampler


@dataclass(frozen=True, kw_only=True)
class Kind:
    """``backend`` trains it; ``model_of``: the model of a sampler or backend; ``digests``: of the
    parts of a model that have weights; ``file``: a run's LoRA, below the run's folder, where
    ``save`` puts a backend's and ``read`` finds it; ``put``: a network is under it in the block."""

    backend: Any
    model_of: Callable[[Any], Any]
    digests: Callable[[Any], list[str]]
    file: Path
    save: Callable[[Any, Path], None]
    read: Callable[[Path], lora.Lora]
    put: Callable[[torch.nn.Module, lora.Lora], AbstractContextManager[None]]


def kind_of(one: Any) -> Kind:
    """Of a sampler, a backend or the config of a backend."""
    return LLM if isinstance(one, LlmSampler | LlmConfig) else DIFFUSION


@contextmanager
def merged(network: torch.nn.Module, weights: lora.Lora) -> Iterator[None]:
    """The LoRA is part of the network's weights inside the block; outside they are as before."""
    originals = lora.merge(network, weights)
    try:
        yield
    finally:
        lora.restore(network, weights, originals)


@contextmanager
def installed(network: torch.nn.Module, weights: lora.Lora) -> Iterator[None]:
    """The LoRA stands beside the network's weights inside the block, as our own adapters of
    language models do: added to weights of low precision, part of it would be lost."""
    lora.install(network, weights)
    try:
        yield
    finally:
        lora.eject(network)


def save_lora(unet: torch.nn.Module, file: Path) -> None:
    """Write the LoRA in training as a plain diffusers file, in one move."""
    weights = lora.trained(unet)
    with replacing(file) as temporary:
        StableDiffusionPipeline.save_lora_weights(
            temporary.parent,
            unet_lora_layers={key: value.contiguous() for key, value in weights.tensors.items()},
            unet_lora_adapter_metadata=dict(weights.config),
            weight_name=temporary.name,
        )


DIFFUSION = Kind(
    backend=DiffusionBackend,
    model_of=lambda sampler: sampler.pipe,
    digests=base_digests,
    file=Path(lora_file.LORA_FILE),
    save=lambda backend, out: save_lora(backend.pipe.unet, out / lora_file.LORA_FILE),
    read=lora_file.read,
    put=merged,
)
LLM = Kind(
    backend=LlmBackend,
    model_of=lambda sampler: sampler.lm,
    digests=lambda lm: [weights_digest(lm.model)],
    file=Path("adapter", adapter.WEIGHTS_FILE),
    # An adapter folder in form; it is no slider for anything.
    save=lambda backend, out: backend.save(out / "adapter"),
    read=lambda file: adapter.read(file.parent),
    put=installed,
)
