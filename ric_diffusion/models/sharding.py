"""Networks in shards: of every weight each process holds a part, and gathers the others for the
moment in which a block of the network needs them (FSDP; Zhao et al. 2023, arXiv 2304.11277).

All processes have to pass through such a network equally often, since each has what the others
need. What is asked for is read from where ``accelerate launch`` puts its config, in the
environment: on CPUs, where shards work as well, accelerate itself knows of several processes only.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import FullyShardedDataParallelPlugin, parse_flag_from_env

from ric_diffusion.io.errors import InputError
from ric_diffusion.models.hardware import DTYPES, Precision, this_process


@dataclass(frozen=True, kw_only=True)
class Sharding:
    """How networks are sharded over all processes.

    Attributes:
        device: where this process computes.
        blocks: names of the classes of modules that are gathered at once, each with all that is in
            it and not in smaller ones; None for what the network's own class names.
        gathered: what weights are cast to before they are gathered, None for as they are.
    """

    device: torch.device
    blocks: tuple[str, ...] | None = None
    gathered: torch.dtype | None = None

    def shard(self, network: Any) -> None:
        """Put a network's weights into shards, on the device. Those that are trained are only if
        all are: a LoRA stays whole in every process."""
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        weights = list(network.parameters())
        trained = {weight for weight in weights if weight.requires_grad}
        ignored = trained if len(trained) < len(weights) else set()
        for weight in ignored:
            weight.data = weight.data.to(self.device)
        options: dict[str, Any] = {
            "mesh": init_device_mesh(self.device.type, (this_process().num_processes,)),
            # Also at the end of the network, where the next pass comes after a step or after other
            # weights were put in place.
            "reshard_after_forward": True,
            # Never the inputs: bfloat16 cannot tell the times of a noise schedule apart.
            "mp_policy": MixedPrecisionPolicy(
                param_dtype=self.gathered, reduce_dtype=torch.float32, cast_forward_inputs=False
            ),
            "ignored_params": ignored,
        }
        names = self.blocks or network._no_split_modules or ()
        for module in reversed(list(network.modules())):  # what is inside first
            if type(module).__name__ in names and module is not network:
                fully_shard(module, **options)
        fully_shard(network, **options)

    def passes(self) -> AbstractContextManager[Any]:
        """Passes through networks whose weights are cast belong into this block."""
        return torch.autocast(self.device.type, self.gathered, enabled=self.gathered is not None)


def sharding_asked(precision: Precision) -> Sharding | None:
    """What the config of accelerate asks for, None if it asks for no shards; ``precision``: of the
    passes. InputError for what is not supported."""
    process = this_process()
    if not (parse_flag_from_env("ACCELERATE_USE_FSDP") and torch.distributed.is_initialized()):
        return None
    from torch.distributed.fsdp import CPUOffloadPolicy, fully_shard

    if "ignored_params" not in inspect.signature(fully_shard).parameters:
        raise InputError("accelerate's config: FSDP of version 2 needs torch 2.7 or newer")
    plugin = FullyShardedDataParallelPlugin()
    if plugin.fsdp_version != 2:
        _refuse("fsdp_version", plugin.fsdp_version, "give 2")
    if plugin.cpu_ram_efficient_loading:
        _refuse(
            "fsdp_cpu_ram_efficient_loading", "true", "give false: text encoders would be empty"
        )
    if plugin.activation_checkpointing:
        _refuse(
            "fsdp_activation_checkpointing",
            "true",
            "leave it out, and give diffusion.gradient_checkpointing in the run's config",
        )
    if isinstance(plugin.cpu_offload, CPUOffloadPolicy):
        _refuse("fsdp_offload_params", "true", "give false: no pass reads weights from there")
    if not plugin.reshard_after_forward:
        _refuse("fsdp_reshard_after_forward", "false", "give true")
    mixed = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if mixed not in ("no", "bf16") or mixed not in ("no", precision):
        _refuse(
            "mixed_precision",
            mixed,
            f"the run computes in {precision}; give no, or bf16 where loop.precision is bf16, to "
            "gather half as much",
        )
    blocks = plugin.transformer_cls_names_to_wrap
    return Sharding(
        device=process.device,
        blocks=tuple(blocks) if blocks else None,
        gathered=None if mixed == "no" else DTYPES[mixed],
    )


def _refuse(name: str, value: object, advice: str) -> None:
    raise InputError(f"accelerate's config: {name} is {value}; {advice}")


def is_sharded(tensor: torch.Tensor) -> bool:
    """Whether this process holds a part of it alone."""
    # What shards are made with takes half a second to import, and whoever made some has done so.
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def apart(tensors: Iterable[torch.Tensor]) -> tuple[list[Any], list[Any]]:
    """Those that are whole and those in shards, which no operation takes together."""
    given = list(tensors)
    return (
        [tensor for tensor in given if not is_sharded(tensor)],
        [tensor for tensor in given if is_sharded(tensor)],
    )


@torch.no_grad()
def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor, gathered by all processes together if it is in shards."""
    given: Any = tensor
    found: torch.Tensor = given.full_tensor() if is_sharded(tensor) else tensor
    return found


@torch.no_grad()
def local(tensor: torch.Tensor) -> torch.Tensor:
    """What this process holds of a tensor; it shares the tensor's memory."""
    given: Any = tensor
    found: torch.Tensor = given.to_local() if is_sharded(tensor) else tensor
    return found


@torch.no_grad()
def fill(target: torch.Tensor, source: torch.Tensor) -> None:
    """Copy a whole tensor into one that may be in shards."""
    target.copy_(sharded_as(source, target))


def sharded_as(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A tensor that every process has whole, where ``like`` is: in shards if that is, and if they
    are of one shape."""
    tensor = tensor.to(like.device)
    if not is_sharded(like) or tensor.shape != like.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    shards: Any = like
    return distribute_tensor(tensor, shards.device_mesh, shards.placements, src_data_rank=None)
