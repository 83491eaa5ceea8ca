"""An adapter in a pipeline: loaded, merged into the U-Net, taken out again bit for bit, saved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers import StableDiffusionPipeline

from ric_diffusion.conditioning import lora
from ric_diffusion.diffusion import lora_file
from ric_diffusion.diffusion.adapter import Adapter, resolve
from ric_diffusion.diffusion.modulation import Modulation
from ric_diffusion.errors import InputError
from ric_diffusion.rewards import RewardSpace

_Stock: Any = StableDiffusionPipeline if TYPE_CHECKING else object


@dataclass(frozen=True, kw_only=True)
class Merged:
    """A LoRA inside a U-Net, and the weights it has changed as they were before."""

    lora: lora.Lora
    originals: Mapping[str, torch.Tensor]


class AdapterMixin(_Stock):
    """What a pipeline does with its one adapter.

    Adapter and merged LoRA live on the U-Net, so that pipelines that share one (from_pipe) agree.
    """

    @property
    def adapter(self) -> Adapter | None:
        return getattr(self.unet, "_ric_adapter", None)

    @adapter.setter
    def adapter(self, adapter: Adapter | None) -> None:
        if (attached := getattr(self.unet, "_ric_modulation", None)) is not None:
            attached.detach()
        self.unet._ric_adapter = adapter
        attached, encoder = None, adapter.encoder if adapter else None
        if encoder is not None and encoder.time_width:
            attached = Modulation(self.unet, encoder)
        self.unet._ric_modulation = attached

    @property
    def _merged(self) -> Merged | None:
        return getattr(self.unet, "_ric_merged", None)

    @_merged.setter
    def _merged(self, merged: Merged | None) -> None:
        self.unet._ric_merged = merged

    @property
    def reward_space(self) -> RewardSpace | None:
        """Names, units, statistics and reachable ranges; None without an adapter."""
        return self.adapter.space if self.adapter else None

    def load_adapter(self, path_or_id: str | Path) -> None:
        """Load an adapter folder or hub id, in place of the one loaded before.

        Its LoRA is merged into the U-Net, so it costs no time in a call. Raises InputError, and
        leaves the pipeline as it was, if it was made for another architecture. With sequential
        offload, load the adapter first. Stock pipelines that share the U-Net do not know about
        reward tokens: unload the adapter before using those.
        """
        folder = resolve(path_or_id)
        adapter, weights = Adapter.load(folder), lora_file.read(folder / lora_file.LORA_FILE)
        adapter.check_fit(self.unet)
        lora.check_fit(self.unet, weights)
        self.unload_adapter()
        self._merged = Merged(lora=weights, originals=lora.merge(self.unet, weights))
        self.adapter = adapter

    def unload_adapter(self) -> None:
        """Take the adapter out again, bit for bit; other LoRA stay."""
        if self._merged is not None:
            lora.restore(self.unet, self._merged.lora, self._merged.originals)
        self.adapter = self._merged = None

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        """The U-Net as the base model has it inside the block, also with an adapter in training."""
        merged, adapter = self._merged, self.adapter
        training = merged is None and lora.LORA_NAME in getattr(self.unet, "peft_config", {})
        if merged is not None:
            lora.restore(self.unet, merged.lora, merged.originals)
        elif training:
            self.unet.disable_adapters()
        self.adapter = None  # and with it what reward tokens do to the time embedding
        try:
            yield
        finally:
            self.adapter = adapter
            if merged is not None:
                lora.merge(self.unet, merged.lora)
            elif training:
                self.unet.enable_adapters()

    def save_adapter(self, folder: str | Path) -> None:
        """Write the loaded adapter, or the one in training, as a folder of its own."""
        if self.adapter is None:
            raise InputError("no adapter is loaded; there is nothing to save")
        weights = self._merged.lora if self._merged else lora.trained(self.unet)
        self.adapter.save(Path(folder), weights)
