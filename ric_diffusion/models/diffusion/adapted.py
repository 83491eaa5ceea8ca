"""An adapter in a pipeline: loaded, merged into the denoiser, taken out bit for bit, saved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from diffusers import DiffusionPipeline

from ric_diffusion.adapters import lora
from ric_diffusion.adapters.adapter import Adapter
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.diffusion.modulation import Modulation
from ric_diffusion.models.family import family_named
from ric_diffusion.rewards import RewardSpace

if TYPE_CHECKING:
    from ric_diffusion.models.diffusion.family import DiffusionFamily

_Stock: Any = DiffusionPipeline if TYPE_CHECKING else object


@dataclass(frozen=True, kw_only=True)
class Merged:
    """A LoRA inside a denoiser, and the weights it has changed as they were before."""

    lora: lora.Lora
    originals: Mapping[str, torch.Tensor]


class AdapterMixin(_Stock):
    """What a pipeline does with its one adapter.

    Adapter and merged LoRA live on the denoiser, so that pipelines that share one agree.
    """

    family_name: ClassVar[str]

    @property
    def family(self) -> DiffusionFamily:
        """What is said of models like this one."""
        family: Any = family_named(self.family_name)
        return family

    @property
    def denoiser(self) -> torch.nn.Module:
        """The network that is called once for every step."""
        network: torch.nn.Module = getattr(self, self.family.denoiser)
        return network

    @property
    def adapter(self) -> Adapter | None:
        return getattr(self.denoiser, "_ric_adapter", None)

    @adapter.setter
    def adapter(self, adapter: Adapter | None) -> None:
        denoiser: Any = self.denoiser
        if (attached := getattr(denoiser, "_ric_modulation", None)) is not None:
            attached.detach()
        denoiser._ric_adapter = adapter
        attached, encoder = None, adapter.encoder if adapter else None
        if encoder is not None and encoder.time_width:
            layer = self.family.modulated_layer(denoiser)
            attached = Modulation(denoiser, layer, encoder, self.family.context_argument)
        denoiser._ric_modulation = attached

    @property
    def _merged(self) -> Merged | None:
        return getattr(self.denoiser, "_ric_merged", None)

    @_merged.setter
    def _merged(self, merged: Merged | None) -> None:
        denoiser: Any = self.denoiser
        denoiser._ric_merged = merged

    @property
    def reward_space(self) -> RewardSpace | None:
        """Names, units, statistics and reachable ranges; None without an adapter."""
        return self.adapter.space if self.adapter else None

    def check_fit(self, adapter: Adapter) -> None:
        """InputError if the adapter's reward encoder does not fit this denoiser."""
        family, denoiser = self.family, self.denoiser
        adapter.conditioner.check_width(family.context_width(denoiser))
        if adapter.encoder is not None:
            adapter.encoder.check_fit(time_width=family.modulated_width(denoiser))

    def load_adapter(self, path_or_id: str | Path) -> None:
        """Load an adapter folder or hub id, in place of the one loaded before.

        Its LoRA is merged into the denoiser, so it costs no time in a call. Raises InputError, and
        leaves the pipeline as it was, if it was made for another architecture. With sequential
        offload, load the adapter first. Stock pipelines that share the denoiser do not know about
        reward tokens: unload the adapter before using those.
        """
        adapter, weights = self.family.read_adapter(self.family.fetch_adapter(path_or_id))
        self.check_fit(adapter)
        lora.check_merge(self.denoiser)
        lora.check_fit(self.denoiser, weights)
        self.unload_adapter()
        self._merged = Merged(lora=weights, originals=lora.merge(self.denoiser, weights))
        self.adapter = adapter

    def unload_adapter(self) -> None:
        """Take the adapter out again, bit for bit; other LoRA stay."""
        if self._merged is not None:
            lora.restore(self.denoiser, self._merged.lora, self._merged.originals)
        self.adapter = self._merged = None

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        """The denoiser as the base model has it inside the block, also with an adapter in
        training."""
        denoiser: Any = self.denoiser
        merged, adapter = self._merged, self.adapter
        training = merged is None and lora.LORA_NAME in getattr(denoiser, "peft_config", {})
        if merged is not None:
            lora.restore(denoiser, merged.lora, merged.originals)
        elif training:
            denoiser.disable_adapters()
        self.adapter = None  # and with it what reward tokens do to the time embedding
        try:
            yield
        finally:
            self.adapter = adapter
            if merged is not None:
                lora.merge(denoiser, merged.lora)
            elif training:
                denoiser.enable_adapters()

    def save_adapter(self, folder: str | Path) -> None:
        """Write the loaded adapter, or the one in training, as a folder of its own."""
        if self.adapter is None:
            raise InputError("no adapter is loaded; there is nothing to save")
        weights = self._merged.lora if self._merged else lora.trained(self.denoiser)
        self.family.save_adapter(self.adapter, weights, Path(folder))
