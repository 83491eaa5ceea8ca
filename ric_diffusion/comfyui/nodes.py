"""Two nodes: load an adapter into a model, and put rewards into a conditioning.

In text mode for every family of pipelines; in embedding mode for those that say which layer of
ComfyUI's network the rewards shift (``comfyui_layer``). ComfyUI's conditioning is a list of
[states (B, T, D), {"pooled_output": …, …}]; reward tokens go to the end of the states, as in the
pipeline, and the pooled text stays as it is. Several adapters follow one another, in both.
"""

from __future__ import annotations

import logging
from typing import Any

import torch

from ric_diffusion.adapters.adapter import AVERAGE, Adapter
from ric_diffusion.adapters.export import comfyui_state
from ric_diffusion.adapters.format import DiffusersFormat
from ric_diffusion.api.values import by_name, name_value
from ric_diffusion.conditioning.encoder import RewardEncoder
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.family import adapter_family

CATEGORY = "reward sliders"
SHIFT = "ric_time_shift"  # our wrappers in a ModelPatcher
REWARDS = "ric_rewards"  # in a conditioning: the rewards whose tokens it ends in, in their order

_log = logging.getLogger(__name__)


class LoadAdapter:
    """A model with an adapter's LoRA, the adapter for ApplyRewards, and the text encoders with the
    LoRA that it may have in them."""

    RETURN_TYPES = ("MODEL", "RIC_ADAPTER", "CLIP")
    FUNCTION = "load"
    CATEGORY = CATEGORY

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        tip = "An adapter's folder, or its id on the hub."
        return {
            "required": {
                "model": ("MODEL",),
                "adapter": ("STRING", {"default": "", "tooltip": tip}),
            },
            "optional": {"clip": ("CLIP",)},
        }

    def load(self, model: Any, adapter: str, clip: Any = None) -> tuple[Any, Adapter, Any]:
        """``model`` is ComfyUI's ModelPatcher, ``clip`` its CLIP. InputError if ``adapter`` is not
        one, if it is for another architecture, of embedding mode where ComfyUI has no place for
        its tokens, or changes text encoders where there is no ``clip``."""
        family, folder = adapter_family(adapter)
        if not isinstance(family.format, DiffusersFormat):
            raise InputError(f"{adapter}: an adapter for {family.title}, which make no pictures")
        loaded, lora = family.read_adapter(folder)
        layer: str | None = getattr(family, "comfyui_layer", None)
        if loaded.encoder is not None and layer is None:
            raise InputError(
                f"{adapter}: its rewards are learned tokens, which ComfyUI has no place for in "
                f"{family.title}; use `ric generate` or Python, or train an adapter with mode: text"
            )
        from comfy.sd import load_lora_for_models

        if lora.beside and clip is None:
            raise InputError(
                f"{adapter}: changes text encoders too: connect clip to this node, and the nodes "
                "that encode prompts to its CLIP"
            )
        state = comfyui_state(lora, family.format) if loaded.lora else {}
        patched, encoders = load_lora_for_models(model, clip, state, 1.0, 1.0)
        found = _patches(patched) - _patches(model)
        if clip is not None:
            found += _patches(encoders.patcher) - _patches(clip.patcher)
        if found != (layers := sum(len(part.modules) for part in lora.parts.values())):
            raise InputError(
                f"{adapter}: for {family.title}, and of the {layers} layers that it changes this "
                f"model has {found}; load it into its base model, {loaded.base_model}, or one "
                "made of it"
            )
        if layer is not None and loaded.encoder is not None and loaded.encoder.time_width:
            patched = modulated(patched, loaded.encoder, layer)
        return patched, loaded, encoders


class ApplyRewards:
    """A conditioning with reward tokens at its end; the negative one needs them as well."""

    RETURN_TYPES = ("CONDITIONING",)
    FUNCTION = "apply"
    CATEGORY = CATEGORY

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        # Which rewards there are is not known before an adapter is loaded: they are written.
        tip = "As on the command line: compressibility=1.5 colorfulness=0.3. Left out is auto."
        return {
            "required": {
                "adapter": ("RIC_ADAPTER",),
                "conditioning": ("CONDITIONING",),
                "rewards": ("STRING", {"default": "", "multiline": True, "tooltip": tip}),
                "meaning": (["targets", "preference"],),
            }
        }

    @torch.no_grad()
    def apply(
        self, adapter: Adapter, conditioning: list[Any], rewards: str, meaning: str
    ) -> tuple[list[Any]]:
        """``meaning``: of the numbers in ``rewards``, targets in z or weights of a preference.
        InputError for rewards that the adapter lacks or that are in the conditioning already, and
        for an adapter of text mode."""
        if adapter.encoder is None:
            raise InputError(
                "this adapter reads rewards as words: write what `ric prompt` prints into CLIP "
                "Text Encode instead of applying them to a conditioning"
            )
        asked: dict[str, Any] = {meaning: parsed(rewards)}
        targets = adapter.targets_for(**asked)
        if adapter.knows_prompts:
            _log.warning(AVERAGE)
        for line in adapter.unreachable(targets):
            _log.warning(line)
        read = adapter.model_targets(adapter.used(targets))
        found, names = [], adapter.space.names
        for states, more in conditioning:
            before = more.get(REWARDS, ())
            if twice := set(before) & set(names):
                raise InputError(f"the conditioning has a token for {min(twice)} already")
            adapter.conditioner.check_width(states.shape[-1])
            context = adapter.conditioner.context(states, [read] * len(states))
            found.append([context, {**more, REWARDS: (*before, *names)}])
        return (found,)


def parsed(rewards: str) -> dict[str, float]:
    """``compressibility=1.5 colorfulness=0.3`` -> values by reward."""
    try:
        given = [name_value(word) for word in rewards.split()]
    except InputError as error:
        raise InputError(f"rewards: {error}") from None
    return by_name(given, "rewards")


def modulated(model: Any, encoder: RewardEncoder, layer: str) -> Any:
    """A copy of a ModelPatcher in whose network the output of ``layer`` is shifted by the encoder's
    tokens among those that each context ends in, as ``models.diffusion.modulation`` does it."""
    from comfy.patcher_extension import WrappersMP

    behind = f"{SHIFT} {' '.join(encoder.names)}"  # in the options of a pass: how many tokens are

    def check(
        executor: Any,
        network: Any,
        conditionings: list[list[dict[str, Any]] | None],
        x: torch.Tensor,
        t: torch.Tensor,
        options: dict[str, Any],
    ) -> Any:
        ends = {one.get(REWARDS, ()) for several in conditionings for one in several or ()}
        if len(ends) > 1 or not all(set(encoder.names) <= set(end) for end in ends):
            raise InputError(
                "a conditioning has no reward tokens of an adapter at its end: put each one, the "
                "negative too, through Apply rewards; without rewards they are on auto"
            )
        places = [len(end) - 1 - end.index(encoder.names[-1]) for end in ends]
        told = {**options.get("transformer_options", {}), behind: sum(places)}
        return executor(network, conditionings, x, t, {**options, "transformer_options": told})

    def shift(
        executor: Any,
        x: torch.Tensor,
        t: torch.Tensor,
        concatenated: Any,
        context: torch.Tensor,
        control: Any,
        options: dict[str, Any],
        **more: Any,
    ) -> Any:
        tokens = context[:, : context.shape[1] - options[behind]]
        moved = encoder.to(context.device).time_shift(tokens)

        def add(_layer: Any, _inputs: Any, embedding: torch.Tensor) -> torch.Tensor:
            return embedding + moved.to(embedding.dtype)

        shifted = executor.class_obj.diffusion_model.get_submodule(layer)
        hook = shifted.register_forward_hook(add)
        try:
            return executor(x, t, concatenated, context, control, options, **more)
        finally:
            hook.remove()

    copy = model.clone()
    copy.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, SHIFT, check)
    copy.add_wrapper_with_key(WrappersMP.APPLY_MODEL, SHIFT, shift)
    return copy


def _patches(model: Any) -> int:
    """How many changes of weights a ModelPatcher has to make."""
    return sum(map(len, model.patches.values()))


NODE_CLASS_MAPPINGS: dict[str, type] = {
    "RiCLoadAdapter": LoadAdapter,
    "RiCApplyRewards": ApplyRewards,
}
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {
    "RiCLoadAdapter": "Load reward adapter",
    "RiCApplyRewards": "Apply rewards",
}
