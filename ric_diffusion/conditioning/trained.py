"""What the backends of all kinds of model do with the adapter that they train."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ric_diffusion.conditioning import lora
from ric_diffusion.conditioning.adapter import BaseAdapter, check_continues
from ric_diffusion.errors import InputError


class Trained:
    """A sampler that inherits from this has its adapter in training. ``holder`` is what it samples
    from: a pipeline or a language model, with ``adapter`` and ``save_adapter``."""

    watched: Callable[[], Any]  # the network that the LoRA is in
    stored: Callable[[Path], tuple[BaseAdapter, lora.Lora]]  # those of a folder

    def hold(self, holder: Any) -> None:
        """Begin with what has an adapter in place; InputError if it has none."""
        if holder.adapter is None:
            raise InputError("the model has no adapter; call load_adapter first")
        self.holder, self.adapter = holder, holder.adapter
        self.records: Sequence[Any] = ()
        self.z: list[dict[str, float]] = []

    def take(self, records: Sequence[Any], folder: Path) -> None:
        """Train on these records, which lie in ``folder``; InputError if there are none."""
        if not records:
            raise InputError(f"{folder}: no records are left to train on; check `where`")
        self.records = records
        self._normalize()

    def _normalize(self) -> None:
        """The records' scores in z."""
        self.z = self.adapter.space.normalize_each([record.scores for record in self.records])

    def parameters(self) -> Iterable[torch.nn.Parameter]:
        weights = [p for p in self.watched().parameters() if p.requires_grad]
        return [*weights, *self.adapter.conditioner.parameters()]

    def save(self, folder: Path) -> None:
        self.holder.adapter = self.adapter
        self.holder.save_adapter(folder)

    def load(self, folder: Path) -> None:
        """Go on training an adapter that ``save`` wrote, of the same shape and rewards.

        Its statistics come along: they say what its reward values mean. Its calibration does not:
        it says what the weights gave that are about to change.
        """
        network, (found, weights) = self.watched(), self.stored(folder)
        check_continues(folder, (found, weights), (self.adapter, lora.trained(network)))
        found.check_fit(network)
        lora.check_fit(network, weights)
        lora.put(network, weights)
        found.conditioner.to(network.device)
        self.adapter = self.holder.adapter = replace(found, calibration={})
        self._normalize()
