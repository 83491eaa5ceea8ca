"""What the backends of all families do with the adapter that they train."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ric_diffusion.adapters import lora
from ric_diffusion.adapters.adapter import Adapter, check_continues
from ric_diffusion.data.standard import records_groups, records_z
from ric_diffusion.io.errors import InputError
from ric_diffusion.rewards import PromptGroups


class AdaptedBackend:
    """A sampler that inherits from this has its adapter in training, in a loaded model."""

    network: Callable[[], Any]  # the one that the adapter is for
    sharded = False  # whether a pass of it takes all processes

    def adopt(self, model: Any) -> None:
        """Begin with a model that has an adapter in place; InputError if it has none."""
        if model.adapter is None:
            raise InputError("the model has no adapter; call load_adapter first")
        self.model = model
        self.adapter: Adapter = model.adapter
        self.records: Sequence[Any] = ()
        self.groups: PromptGroups | None = None
        self.z = np.empty((0, len(self.adapter.space.names)))
        self.buckets: np.ndarray | None = None

    def set_records(
        self, records: Sequence[Any], folder: Path, groups: PromptGroups | None = None
    ) -> None:
        """Train on these records, which lie in ``folder``; InputError if there are none. Those of
        one prompt are compared with its ``groups``, by default with each other."""
        if not records:
            raise InputError(f"{folder}: no records are left to train on; check `where`")
        self.records = records
        self.groups = records_groups(records, self.adapter.space) if groups is None else groups
        self._normalize()

    def _normalize(self) -> None:
        """The records' scores in z, (N, n)."""
        self.z = records_z(self.records, self.adapter.space, self.groups)

    def targets(self, rows: Sequence[int]) -> list[dict[str, float]]:
        """What records' scores are in z."""
        names = self.adapter.space.names
        return [dict(zip(names, row, strict=True)) for row in self.z[list(rows)].tolist()]

    def named_parameters(self) -> Mapping[str, torch.nn.Parameter]:
        trained = {
            f"{part or 'network'}.{name}": parameter
            for part, network in self.networks().items()
            for name, parameter in network.named_parameters()
            if parameter.requires_grad
        }
        learned = self.adapter.conditioner.named_parameters()
        return trained | {f"conditioner.{name}": parameter for name, parameter in learned}

    def networks(self) -> Mapping[str, Any]:
        """Those that are trained, by what the parts of a LoRA call them."""
        return {lora.MAIN: self.network()}

    def gathered(self) -> AbstractContextManager[None]:
        """The first process saves inside the block, which all come to together."""
        return nullcontext()

    def save(self, folder: Path) -> None:
        self.model.adapter = self.adapter
        self.model.save_adapter(folder)

    def load(self, folder: Path) -> None:
        """Go on training an adapter that ``save`` wrote, of the same shape and rewards.

        Its statistics come along: they say what its reward values mean. Its calibration does not:
        it says what the weights gave that are about to change.
        """
        found, weights = self.model.family.read_adapter(folder)
        networks = self.networks()
        check_continues(folder, (found, weights), (self.adapter, lora.all_trained(networks)))
        self.model.check_fit(found)
        for part, one in weights.parts.items():
            lora.check_fit(networks[part], one)
        for part, one in weights.parts.items():
            lora.set_trained(networks[part], one)
        self.go_on_with(found)

    def go_on_with(self, adapter: Adapter) -> None:
        """This one is in training from now on, without its calibration."""
        adapter.conditioner.to(self.network().device)
        self.adapter = self.model.adapter = replace(
            adapter, calibration={}, modelspec=self.adapter.modelspec
        )
        self._normalize()
