"""Two nodes: load an adapter into a model, and put rewards into a conditioning.

For every family whose adapters are LoRAs of a pipeline (Stable Diffusion 1, 2 and XL). ComfyUI's
conditioning is a list of [states (B, T, D), {"pooled_output": …, …}], where T is a multiple of
CHUNK; reward tokens go to the end of it, as in the pipeline, and the pooled text stays as it is.
"""

from __future__ import annotations

import logging
from typing import Any

import torch

from ric_diffusion.adapters.adapter import Adapter
from ric_diffusion.adapters.export import kohya_state
from ric_diffusion.adapters.format import DiffusersFormat
from ric_diffusion.api.values import by_name, name_value
from ric_diffusion.conditioning.encoder import RewardEncoder
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.family import adapter_family

CHUNK = 77  # tokens that ComfyUI has CLIP read at a time; longer prompts are several of them
CATEGORY = "reward sliders"
SHIFT = "ric_time_shift"

_log = logging.getLogger(__name__)


class LoadAdapter:
    """A model with an adapter's LoRA, and the adapter for ApplyRewards."""

    RETURN_TYPES = ("MODEL", "RIC_ADAPTER")
    FUNCTION = "load"
    CATEGORY = CATEGORY

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        tip = "An adapter's folder, or its id on the hub."
        return {
            "required": {
                "model": ("MODEL",),
                "adapter": ("STRING", {"default": "", "tooltip": tip}),
            }
        }

    def load(self, model: Any, adapter: str) -> tuple[Any, Adapter]:
        """``model`` is ComfyUI's ModelPatcher. InputError if ``adapter`` is not one."""
        from comfy.sd import load_lora_for_models

        family, folder = adapter_family(adapter)
        if not isinstance(family.format, DiffusersFormat):
            raise InputError(f"{adapter}: an adapter for {family.title}, which draw nothing")
        loaded, lora = family.read_adapter(folder)
        state = kohya_state(lora, family.format.component)
        model, _ = load_lora_for_models(model, None, state, 1.0, 0.0)
        if loaded.encoder is not None and loaded.encoder.time_width:
            model = modulated(model, loaded.encoder)
        return model, loaded


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
        InputError for rewards that the adapter lacks, and for an adapter of text mode."""
        if adapter.encoder is None:
            raise InputError(
                "this adapter reads rewards as words: write what `ric prompt` prints into CLIP "
                "Text Encode instead of applying them to a conditioning"
            )
        asked: dict[str, Any] = {meaning: parsed(rewards)}
        targets = adapter.targets_for(**asked)
        for line in adapter.unreachable(targets):
            _log.warning(line)
        read = adapter.model_targets(adapter.used(targets))
        found = []
        for states, more in conditioning:
            adapter.conditioner.check_width(states.shape[-1])
            found.append([adapter.conditioner.context(states, [read] * len(states)), {**more}])
        return (found,)


def parsed(rewards: str) -> dict[str, float]:
    """``compressibility=1.5 colorfulness=0.3`` -> values by reward."""
    try:
        given = [name_value(word) for word in rewards.split()]
    except InputError as error:
        raise InputError(f"rewards: {error}") from None
    return by_name(given, "rewards")


def modulated(model: Any, encoder: RewardEncoder) -> Any:
    """A copy of a ModelPatcher whose embedding of the time is shifted by the reward tokens that its
    context ends in, as ``models.diffusion.modulation`` does it."""

    def read(
        executor: Any,
        x: torch.Tensor,
        timesteps: torch.Tensor,
        context: torch.Tensor,
        y: Any,
        control: Any,
        transformer_options: dict[str, Any],
        **more: Any,
    ) -> torch.Tensor:
        if context.shape[1] % CHUNK != len(encoder.names) % CHUNK:
            raise InputError(
                "a conditioning has no reward tokens at its end: put each one, the negative too, "
                "through Apply rewards; without rewards they are on auto"
            )
        shift = encoder.to(context.device).time_shift(context)
        options = {**transformer_options, SHIFT: shift}
        found: torch.Tensor = executor(x, timesteps, context, y, control, options, **more)
        return found

    def add(
        embedding: torch.Tensor, _channels: int, transformer_options: dict[str, Any]
    ) -> torch.Tensor:
        shift: torch.Tensor = transformer_options[SHIFT]
        return embedding + shift.to(embedding.dtype)

    copy = model.clone()
    copy.add_wrapper_with_key("diffusion_model", SHIFT, read)
    copy.set_model_emb_patch(add)
    return copy


NODE_CLASS_MAPPINGS: dict[str, type] = {
    "RiCLoadAdapter": LoadAdapter,
    "RiCApplyRewards": ApplyRewards,
}
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {
    "RiCLoadAdapter": "Load reward adapter",
    "RiCApplyRewards": "Apply rewards",
}
