"""Short names for what is in memory: a picture tells by them which model and adapter made it.

Of every tensor a sample of its values is read, so that gigabytes take a moment; training moves all
of them. Two models of equal digests are taken for the same, which is no proof against forgery.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable, Mapping
from operator import is_not
from typing import Any
from weakref import WeakKeyDictionary

import torch

from ric_diffusion.adapters import lora
from ric_diffusion.models.diffusion.adapted import Loaded

VALUES = 1024  # of a tensor, evenly spread

State = tuple[tuple[int, int], ...]
_known: WeakKeyDictionary[torch.nn.Module, tuple[State, str]] = WeakKeyDictionary()
_known_adapters: WeakKeyDictionary[torch.nn.Module, tuple[tuple[Loaded, ...], str]] = (
    WeakKeyDictionary()
)


def model_digest(pipe: Any) -> str | None:
    """SHA-256 in hex over the weights of a pipeline as they are without adapters, and over its
    scheduler's settings where they are not that class's own. None where weights are offloaded, and
    so out of sight."""
    networks = {lora.MAIN: pipe._network, **pipe.text_encoders}
    names = {network: name for name, network in networks.items()}
    sha = hashlib.sha256(_scheduler(pipe.scheduler).encode())
    for part in pipe.family.parts:
        module = getattr(pipe, part)
        module = getattr(module, "_orig_mod", module)
        if module is None:
            continue
        originals = {
            f"{layer}.weight": weight
            for (network, layer), weight in pipe._held.merged.originals.items()
            if network == names.get(module)
        }
        found = _module_digest(module, originals)
        if found is None:
            return None
        sha.update(f"{part} {found}".encode())
    return sha.hexdigest()


def adapter_digest(pipe: Any) -> str | None:
    """SHA-256 in hex over all that the adapters in a pipeline are: their JSON with calibration,
    their tensors, their scales. None without one."""
    if pipe.adapter is None:
        return None
    loaded = tuple(pipe._held.loaded.values())
    if not loaded:  # one in training, which moves
        weights = lora.all_trained(pipe.in_training())
        return _adapters_digest((Loaded(adapter=pipe.adapter, lora=weights),))
    known = _known_adapters.get(pipe._network)
    if known is None or len(known[0]) != len(loaded) or any(map(is_not, known[0], loaded)):
        known = _known_adapters[pipe._network] = loaded, _adapters_digest(loaded)
    return known[1]


def _adapters_digest(loaded: Iterable[Loaded]) -> str:
    sha = hashlib.sha256()
    for one in loaded:
        about = json.dumps(one.adapter.about(), sort_keys=True)
        sha.update(f"{one.scale:g} {about}".encode())
        for part, weights in one.lora.parts.items():
            sha.update(f"{part} {_tensors_digest(weights.tensors.items())}".encode())
        sha.update(_tensors_digest(one.adapter.conditioner.named_parameters()).encode())
    return sha.hexdigest()


def _module_digest(module: torch.nn.Module, originals: Mapping[str, torch.Tensor]) -> str | None:
    """Of a module's tensors, ``originals`` in the place of some. Kept until one of them changes."""
    # A layer that once had a LoRA stays wrapped, and its weights are named after that.
    tensors = {k.replace(".base_layer.", "."): v for k, v in module.state_dict().items()}
    if any(tensor.is_meta for tensor in tensors.values()):
        return None
    state = tuple((t.data_ptr(), -1 if t.is_inference() else t._version) for t in tensors.values())
    if (known := _known.get(module)) and known[0] == state:
        return known[1]
    for name, weight in originals.items():
        tensors[name] = weight.to(tensors[name].dtype)  # as the rest was cast since
    found = _tensors_digest(sorted(tensors.items()))
    _known[module] = state, found
    return found


@torch.no_grad()
def _tensors_digest(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    sha = hashlib.sha256()
    for name, tensor in tensors:
        sha.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        flat = tensor.detach().flatten()
        some = flat[:: max(1, len(flat) // VALUES)].cpu().contiguous()
        sha.update(some.view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def _scheduler(scheduler: Any) -> str:
    """A scheduler's class, and those of its settings that are not the class's own: what a later
    release of diffusers adds makes no difference."""
    own = inspect.signature(type(scheduler).__init__).parameters
    settings = {
        name: value
        for name, value in scheduler.config.items()
        if name in own and value != own[name].default
    }
    return f"{type(scheduler).__name__} {json.dumps(settings, sort_keys=True, default=str)}"
