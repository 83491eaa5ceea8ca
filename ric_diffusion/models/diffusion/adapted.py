"""Adapters in a pipeline: loaded into its networks, scaled, taken out bit for bit, saved."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from diffusers import DiffusionPipeline
from diffusers.models.attention_processor import Attention

from ric_diffusion.adapters import lora
from ric_diffusion.adapters.adapter import Adapter
from ric_diffusion.adapters.joined import JoinedAdapter
from ric_diffusion.io.errors import InputError, suggest
from ric_diffusion.models.diffusion.modulation import Modulation
from ric_diffusion.models.diffusion.prompt_features import feature_count
from ric_diffusion.models.family import family_named
from ric_diffusion.rewards import RewardSpace

if TYPE_CHECKING:
    from ric_diffusion.models.diffusion.family import DiffusionFamily

_Stock: Any = DiffusionPipeline if TYPE_CHECKING else object

DEFAULT = "default"  # the name of an adapter that was loaded without one

_OTHER_ENCODER = (
    "{part}: adapters on this pipeline's denoiser changed that of the pipeline that loaded them, "
    "and this is another one; share both (from_pipe), or call unload_adapter there first"
)

_log = logging.getLogger(__name__)
_with_adapter: ContextVar[bool] = ContextVar("with_adapter", default=False)


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """An adapter whose LoRA is inside a pipeline at some scale; at 0 it says nothing. ``source``:
    what it was loaded from, None where that is the model itself."""

    adapter: Adapter
    lora: lora.Lora
    scale: float = 1.0
    source: str | None = None


@dataclass(kw_only=True)
class Held:
    """What a denoiser holds: the adapters loaded by name, in load order, and their LoRAs; the
    adapter in effect, by default all of the loaded ones together; and the hooks it needs."""

    merged: lora.Merged
    loaded: Mapping[str, Loaded] = field(default_factory=dict)
    together: Adapter | None = None
    adapter: Adapter | None = None
    hooks: tuple[Any, ...] = ()


class AdapterMixin(_Stock):
    """What a pipeline does with its adapters.

    They live on the denoiser, so that pipelines that share one agree. Where they change text
    encoders too, those pipelines have to share these as well.
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
    def _network(self) -> Any:
        """The denoiser itself where it is inside what torch.compile made of it."""
        return getattr(self.denoiser, "_orig_mod", self.denoiser)

    @property
    def text_encoders(self) -> dict[str, Any]:
        """Those that a LoRA may be in, by the names of the pipeline's parts that it has."""
        found = {name: getattr(self, name, None) for name in self.family.text_encoders}
        return {name: network for name, network in found.items() if network is not None}

    def in_training(self) -> dict[str, Any]:
        """The networks that have a LoRA in training: the denoiser, by the name of ``lora.MAIN``,
        and text encoders by theirs."""
        networks = {lora.MAIN: self._network, **self.text_encoders}
        return {name: network for name, network in networks.items() if lora.is_trained(network)}

    @property
    def _held(self) -> Held:
        network = self._network
        if not hasattr(network, "_ric_held"):
            network._ric_held = Held(merged=lora.Merged(network))
        held: Held = network._ric_held
        return held

    @property
    def adapter(self) -> Adapter | None:
        """The adapter in training, or the loaded one; several loaded ones are one with the rewards
        of all."""
        return self._held.adapter

    @adapter.setter
    def adapter(self, adapter: Adapter | None) -> None:
        """In place of the one in effect; LoRAs that are merged stay as they are."""
        held = self._held
        if adapter is not None and adapter is not held.together and held.loaded:
            name, *others = held.loaded
            if others:
                raise InputError(
                    f"adapters {', '.join(held.loaded)} are loaded, which one adapter cannot "
                    "replace; unload_adapter first"
                )
            held.loaded = {name: replace(held.loaded[name], adapter=adapter)}
            held.together = _together(held.loaded)
            adapter = held.together
        self._set_effective(adapter)

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
        if adapter.knows_prompts:
            adapter.check_features(feature_count(self))

    def load_adapter(self, path_or_id: str | Path, name: str = DEFAULT) -> None:
        """Load an adapter folder or hub id beside those of other names, in place of the one that
        has this name.

        Its LoRA is merged into the weights, so it costs no time in a call, however many there are;
        each has its tokens in the context. The rewards of all of them can be asked for, and what a
        call leaves out comes from the first one that says it. Raises InputError, and leaves the
        pipeline as it was, if it was made for another architecture, or has a reward of another
        adapter's. With sequential offload, load adapters first. Stock pipelines that share the
        denoiser know nothing of rewards and are refused: unload adapters before using those, or
        make them by ``from_pipe`` of our class.
        """
        if not isinstance(name, str) or not name:
            raise InputError(f"name {name!r}: give the adapter a text for a name")
        self._load(path_or_id, name, source=str(path_or_id))

    def _load(self, path_or_id: str | Path, name: str, source: str | None) -> None:
        adapter, weights = self.family.read_adapter(self.family.fetch_adapter(path_or_id))
        self.check_fit(adapter)
        for part, one in weights.parts.items():
            network = self._changed_by(part)
            lora.check_merge(network, one)
            lora.check_fit(network, one)
        found = Loaded(adapter=adapter, lora=weights, source=source)
        self._set_loaded({**self._held.loaded, name: found})

    @property
    def adapter_sources(self) -> dict[str, str | None]:
        """What each loaded adapter was loaded from, by its name: a folder or hub id, None of the
        one that belongs to the model."""
        return {name: one.source for name, one in self._held.loaded.items()}

    def _changed_by(self, part: str) -> Any:
        """The network that a part of a LoRA changes. InputError if there is none, or if it is
        another one than that which adapters on this denoiser are in."""
        if part == lora.MAIN:
            return self._network
        if part not in self.text_encoders:
            raise InputError(f"the adapter changes {part}, which this model lacks")
        network = self.text_encoders[part]
        if self._held.merged.networks.get(part, network) is not network:
            raise InputError(_OTHER_ENCODER.format(part=part))
        return network

    def check_encoders(self) -> None:
        """InputError if adapters on this denoiser changed text encoders of another pipeline, which
        this one has not."""
        for part in self._held.merged.networks:
            self._changed_by(part)

    def check_unfused(self) -> None:
        """InputError if there is a LoRA in the denoiser, and its attention goes through layers that
        ``fuse_qkv_projections`` made of others, in which it may not be."""
        changed = lora.is_trained(self._network) or any(
            one.tensors for one, _ in self._held.merged.loras
        )
        if changed:
            self._check_unfused()

    def _check_unfused(self) -> None:
        if any(map(_is_fused, self._network.modules())):
            raise InputError(
                "the denoiser's projections are fused, and an adapter would be left out of them "
                "or stay in them unseen; call unfuse_qkv_projections first"
            )

    def unload_adapter(self, name: str | None = None) -> None:
        """Take an adapter out again, or all of them; the weights are then, bit for bit, as if it
        had never been loaded. LoRA of others stay."""
        loaded = {} if name is None else dict(self._held.loaded)
        if name is not None:
            del loaded[self._known(name)]
        self._set_loaded(loaded)

    def set_adapter_scale(self, name: str, scale: float) -> None:
        """How much of an adapter there is: 1 all that it learned, 0 nothing at all, in between and
        beyond its LoRA and its shift of the modulation times the scale.

        A target says which value of a reward is asked for, and the scale how far the adapter takes
        the model from the base model whatever it is asked: the look of its training pictures comes
        and goes with it. Calibration was measured at 1. Takes as long as loading; then a call
        costs what it did.
        """
        loaded = dict(self._held.loaded)
        one = loaded[self._known(name)]
        number = isinstance(scale, int | float) and not isinstance(scale, bool)
        if not number or not 0 <= scale < math.inf:
            raise InputError(f"scale {scale!r}: give a number from 0 up")
        self._set_loaded({**loaded, name: replace(one, scale=float(scale))})

    @contextmanager
    def without_adapter(self) -> Iterator[None]:
        """The pipeline as the base model has it inside the block, also with an adapter in
        training. A model that was fine-tuned whole is its own base model."""
        held = self._held
        adapter, loras = held.adapter, held.merged.loras
        held.merged.set([(one, 0.0) for one, _ in loras])
        with ExitStack() as disabled:
            for network in {} if held.loaded else self.in_training().values():
                disabled.enter_context(lora.disabled(network))
            self._set_effective(None)  # and with it what reward tokens do to the time embedding
            try:
                yield
            finally:
                self._set_effective(adapter)
                held.merged.set(loras)

    @contextmanager
    def uncalibrated(self) -> Iterator[None]:
        """Targets are model targets inside the block: the adapter in effect has no calibration
        there."""
        held = self._held
        adapter = held.adapter
        held.adapter = adapter and replace(adapter, calibration={})  # what is hooked stays the same
        try:
            yield
        finally:
            held.adapter = adapter

    @contextmanager
    def with_adapter(self) -> Iterator[None]:
        """Whoever calls the denoiser inside the block, by hand or with a stock pipeline, gives it
        contexts of ``encode_context``. Other calls are refused while it has an adapter."""
        token = _with_adapter.set(True)
        try:
            yield
        finally:
            _with_adapter.reset(token)

    def save_adapter(self, folder: str | Path, name: str | None = None) -> None:
        """Write the loaded adapter, the one of this name where there are several, or the one in
        training, as a folder of its own. A scale is the pipeline's and not written."""
        held = self._held
        if self.adapter is None:
            raise InputError("no adapter is loaded; there is nothing to save")
        if name is None and len(held.loaded) > 1:
            raise InputError(
                f"adapters {', '.join(held.loaded)} are loaded, and a folder holds one: "
                "save_adapter(folder, name) writes it, unload_adapter(name) takes one out"
            )
        if name is None and not held.loaded:
            weights = lora.all_trained(self.in_training())
            self.family.save_adapter(self.adapter, weights, Path(folder))
            return
        name = self._known(next(iter(held.loaded)) if name is None else name)
        one = held.loaded[name]
        if one.scale != 1:
            _log.warning(
                "adapter %s is written as it was trained, not at scale %g", name, one.scale
            )
        self.family.save_adapter(one.adapter, one.lora, Path(folder))

    def _known(self, name: str) -> str:
        """InputError for a name under which no adapter is loaded."""
        loaded = self._held.loaded
        if not loaded:
            raise InputError(f"adapter {name!r}: none is loaded; call load_adapter first")
        if name not in loaded:
            raise InputError(f"adapter {name!r}: not loaded{suggest(name, loaded)}")
        return name

    def _set_loaded(self, loaded: Mapping[str, Loaded]) -> None:
        """These adapters, in place of those loaded before."""
        held, together = self._held, _together(loaded)
        if any(one.lora.tensors for one in (*held.loaded.values(), *loaded.values())):
            self._check_unfused()
        parts = {part for one in loaded.values() for part in one.lora.beside}
        networks, before = held.merged.networks, dict(held.merged.networks)
        networks |= {part: self._changed_by(part) for part in parts}
        try:
            held.merged.set([(one.lora, one.scale) for one in loaded.values()])
        except InputError:
            held.merged.networks = before
            raise
        held.merged.networks = {p: n for p, n in networks.items() if p in {lora.MAIN, *parts}}
        held.loaded, held.together = loaded, together
        self._set_effective(together)

    @property
    def _encoder_state(self) -> tuple[Any, ...] | None:
        """What tells the states of a text under today's adapters from those under others; None
        while a text encoder is in training, whose states nobody may keep."""
        if self.in_training().keys() - {lora.MAIN}:
            return None
        return tuple((one, scale) for one, scale in self._held.merged.loras if one.beside)

    def _set_effective(self, adapter: Adapter | None) -> None:
        """The adapter that contexts are made by, with the hooks it needs."""
        held, network = self._held, self._network
        if adapter is held.together:
            speaking = [(one.adapter, one.scale) for one in held.loaded.values() if one.scale]
        else:
            speaking = [(adapter, 1.0)] if adapter else []
        for hook in held.hooks:
            hook.remove()
        held.adapter, held.hooks = adapter, ()
        if speaking:
            encoders = [(one.encoder, scale) for one, scale in speaking if one.encoder]
            held.hooks = (network.register_forward_pre_hook(_refuse_strangers),)
            if any(encoder.time_width for encoder, _ in encoders):
                layer = self.family.modulated_layer(network)
                argument = self.family.context_argument
                held.hooks += Modulation(
                    network, layer, encoders, argument, reads=_with_adapter.get
                ).hooks
        if network is not self.denoiser or network._compiled_call_impl is not None:
            torch.compiler.reset()  # compiled code goes on without hooks that came after it


def _is_fused(module: torch.nn.Module) -> bool:
    """Whether an attention layer uses what was fused. A U-Net that was unfused keeps the mark of
    its layers, and only gets their processors back."""
    if not vars(module).get("fused_projections"):
        return False
    return not isinstance(module, Attention) or type(module.processor).__name__.startswith("Fused")


def _together(loaded: Mapping[str, Loaded]) -> Adapter | None:
    """What adapters are as one, None for none."""
    if not loaded:
        return None
    first, *others = loaded.values()
    if not others and first.scale:
        return first.adapter
    return JoinedAdapter.of(
        {name: one.adapter for name, one in loaded.items()},
        silent=[name for name, one in loaded.items() if not one.scale],
    )


def _refuse_strangers(_denoiser: Any, _inputs: Any) -> None:
    """A hook that comes before every pass of a denoiser with an adapter. A pass that records
    gradients is of no pipeline, but of somebody who trains or measures the denoiser itself."""
    if not (_with_adapter.get() or torch.is_grad_enabled()):
        raise InputError(
            "a stock pipeline calls a denoiser that holds an adapter, of whose rewards it knows "
            "nothing: unload_adapter first, or make the pipeline by from_pipe of its RiC class"
        )
