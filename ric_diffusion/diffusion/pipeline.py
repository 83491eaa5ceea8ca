"""Stable Diffusion pipelines that take rewards: stock pipelines in everything else."""

from __future__ import annotations

import inspect
import json
import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion import StableDiffusionPipelineOutput

from ric_diffusion.diffusion.adapter import resolve
from ric_diffusion.diffusion.loaded import AdapterMixin
from ric_diffusion.errors import InputError
from ric_diffusion.files import write_json
from ric_diffusion.rewards import opposite, to_targets

ASSETS = Path(__file__).parent.parent / "assets"
BUNDLED = {"emoji-64": ASSETS / "emoji-64"}
ADAPTER_SUBFOLDER = "ric_adapter"
HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "token")

_log = logging.getLogger(__name__)

Values = Mapping[str, float] | Sequence[Mapping[str, float]]


@dataclass
class RiCPipelineOutput(StableDiffusionPipelineOutput):
    """A stock output, and ``targets``: the values in z that were used, one dict per image."""

    targets: list[dict[str, float]] | None = None


def model_path(name_or_path: str | Path) -> str:
    """A bundled model's name -> its folder; any other name or path as it is."""
    return str(BUNDLED.get(str(name_or_path), name_or_path))


class RiCMixin(AdapterMixin):
    """Adds rewards to a Stable Diffusion pipeline; list it before the stock class.

    The context (text states and reward tokens) is built here and handed to the stock ``__call__``
    as ``prompt_embeds``, so schedulers, callbacks, offload and LoRA work as they always do.
    """

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Self:
        """As in diffusers, for a hub id, a folder or the bundled ``"emoji-64"``; only safetensors.

        Where a ``ric_adapter`` lies beside the model's parts, it is loaded.
        """
        path = model_path(pretrained_model_name_or_path)
        kwargs.setdefault("use_safetensors", True)
        pipe = super().from_pretrained(path, **kwargs)
        hub = {key: kwargs[key] for key in HUB_OPTIONS if key in kwargs}
        if (folder := resolve(path, ADAPTER_SUBFOLDER, **hub)).is_dir():
            pipe.load_adapter(folder)
        return pipe

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """Write a stock pipeline folder, which stock diffusers loads, with ``ric_adapter`` inside.

        The U-Net is written without the adapter; the pipeline is unchanged afterwards.
        """
        folder = Path(save_directory)
        if self.adapter is not None:
            self.save_adapter(folder / ADAPTER_SUBFOLDER)
        else:  # from_pretrained would load one left by an earlier save
            shutil.rmtree(folder / ADAPTER_SUBFOLDER, ignore_errors=True)
        with self.without_adapter():
            super().save_pretrained(save_directory, **kwargs)
        index = folder / "model_index.json"
        stock = next(c for c in type(self).__mro__ if c.__module__.startswith("diffusers."))
        write_json(index, json.loads(index.read_text()) | {"_class_name": stock.__name__})

    def targets_for(
        self,
        count: int,
        *,
        preference: Values | None = None,
        targets: Values | None = None,
        mapping: str | None = None,
        name: str = "targets",
    ) -> list[dict[str, float]]:
        """Preference or targets, one for all or one each -> ``count`` checked targets in z.

        ``name`` is what errors call the targets.
        """
        if preference is not None and targets is not None:
            raise InputError("preference and targets: give one of them, not both")
        if self.adapter is None:
            if preference is None and targets is None:
                return [{}] * count
            name = name if preference is None else "preference"
            raise InputError(f"{name}: no adapter is loaded; call load_adapter first")
        name, given = (name, targets) if preference is None else ("preference", preference)
        if given is not None and not isinstance(given, Mapping | list | tuple):
            raise InputError(
                f"{name} {given!r}: map rewards to values, or list one for each prompt"
            )
        each = list(given) if isinstance(given, list | tuple) else [given or {}] * count
        if len(each) != count:
            raise InputError(f"{name}: {len(each)} for {count} prompts; give one, or one for each")
        space = self.adapter.space
        if preference is not None:
            return [to_targets(p, space, mapping or self.adapter.mapping) for p in each]
        return [space.check_targets(t, name) for t in each]

    def encode_context(
        self,
        prompts: list[str],
        targets: Sequence[Mapping[str, float]],
        *,
        lora_scale: float | None = None,
        clip_skip: int | None = None,
    ) -> torch.Tensor:
        """Prompts and targets in z -> context (B, T, D), as the U-Net takes it."""
        if self.adapter is None:
            raise InputError("no adapter is loaded; call load_adapter first")
        conditioner = self.adapter.conditioner
        states, _ = self.encode_prompt(
            conditioner.texts(prompts, targets, self.tokenizer),
            self._execution_device,
            1,
            False,
            lora_scale=lora_scale,
            clip_skip=clip_skip,
        )
        return conditioner.context(states, targets)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        *args: Any,
        preference: Values | None = None,
        targets: Values | None = None,
        negative_targets: Values | None = None,
        mapping: str | None = None,
        contrast: float = 0.0,
        prompt_guidance: float | None = None,
        **kwargs: Any,
    ) -> Any:
        """The stock call, with rewards.

        Args:
            preference: weights by reward, as the sliders set them; mapped to targets.
            targets: values in z by reward. A reward left out is auto.
            negative_targets: values in z for the branch that guidance steers away from.
            mapping: how a preference becomes targets; the adapter's own by default.
            contrast: without negative_targets, the branch that guidance steers away from is asked
                for so many times the opposite of the targets, within common values: rewards speak
                up, at no extra cost.
            prompt_guidance: how strongly guidance pulls towards the prompt, from 1 (not at all) to
                guidance_scale, the default; towards the rewards it pulls with guidance_scale in any
                case. The branch it steers away from then holds part of the prompt itself.
            Each may be one for all prompts or a list with one for each prompt.

        Returns RiCPipelineOutput, or the stock tuple with ``return_dict=False``.
        """
        given = inspect.signature(super().__call__).bind_partial(prompt, *args, **kwargs).arguments
        more = given.pop("kwargs", {})
        arguments = {**given, **more}
        count = _prompt_count(arguments)
        used = self.targets_for(count, preference=preference, targets=targets, mapping=mapping)
        negative = self.targets_for(count, targets=negative_targets, name="negative_targets")
        if not (isinstance(contrast, int | float) and 0 <= contrast < math.inf):
            raise InputError(f"contrast {contrast!r}: give a number from 0 up")
        scale = arguments.get("guidance_scale", 7.5)
        if prompt_guidance is None:
            prompt_guidance = scale
        elif not isinstance(prompt_guidance, int | float) or not 1 <= prompt_guidance <= scale:
            raise InputError(
                f"prompt_guidance {prompt_guidance!r}: give a number from 1 to guidance_scale, "
                f"{scale}"
            )
        elif self.adapter is None:  # there is nothing else to be guided by
            arguments["guidance_scale"] = prompt_guidance
        if self.adapter is not None:
            used = self._reachable(used, warn=targets is not None)
            negative = self._reachable(negative, warn=True)
            requests = [self.adapter.requests(t) for t in used]
            against = [self.adapter.requests(t) for t in negative]
            if negative_targets is None and contrast:  # the opposite of what the model reads
                against = [opposite(t, self.adapter.space, contrast) for t in requests]
            self._put_context(
                arguments,
                requests,
                against,
                steered=negative_targets is not None,
                scale=scale,
                prompt_guidance=prompt_guidance,
            )
        output = super().__call__(**arguments)
        if not isinstance(output, StableDiffusionPipelineOutput):
            return output
        per_prompt = arguments.get("num_images_per_prompt") or 1
        return RiCPipelineOutput(
            images=output.images,
            nsfw_content_detected=output.nsfw_content_detected,
            targets=[dict(t) for t in used for _ in range(per_prompt)],
        )

    def _reachable(self, targets: list[dict[str, float]], *, warn: bool) -> list[dict[str, float]]:
        """Targets moved into the reachable range where that was measured, and said so; else what
        the conditioning can say (text rounds)."""
        assert self.adapter is not None
        # Once for each, however many prompts ask for it.
        lines = dict.fromkeys(line for each in targets for line in self.adapter.beyond_reach(each))
        for line in lines if warn else ():
            _log.warning(line)
        return [self.adapter.used(each) for each in targets]

    def _put_context(
        self,
        arguments: dict[str, Any],
        targets: list[dict[str, float]],
        negative: list[dict[str, float]],
        *,
        steered: bool,
        scale: float,
        prompt_guidance: float,
    ) -> None:
        """Replace prompts, or add to prompt_embeds, in the arguments of the stock call.

        With e(p, z) what the U-Net predicts from prompt p and targets z, guidance at the scale g is
        e(q, y) + g·(e(p, z) - e(q, y)). Where q = p it is along the targets alone; the share s of p
        in the context of q leaves about 1 + (g - 1)·(1 - s) of it to the prompt.
        """
        assert self.adapter is not None
        guided = scale > 1 and self.unet.config.time_cond_proj_dim is None
        if steered and not guided:
            raise InputError(f"negative_targets need guidance_scale above 1, not {scale}")
        count, share = len(targets), 0.0
        given = {"": _given(arguments, "", count)}
        branches = {"": (given[""], targets)}
        if guided:
            share = (scale - prompt_guidance) / (scale - 1)
            branches["negative_"] = _given(arguments, "negative_", count), negative
        if share:
            branches["shared"] = given[""], negative
        contexts = self._contexts(branches, arguments)
        if share:
            contexts["negative_"] = contexts["negative_"].lerp(contexts.pop("shared"), share)
        arguments |= {f"{key}prompt_embeds": context for key, context in contexts.items()}

    def _contexts(
        self,
        branches: Mapping[str, tuple[list[str] | torch.Tensor, list[dict[str, float]]]],
        arguments: Mapping[str, Any],
    ) -> dict[str, torch.Tensor]:
        """Prompts or their states, and targets, N each -> contexts (N, T, D); all prompts go
        through the text encoder in one pass."""
        assert self.adapter is not None
        contexts = {
            key: self.adapter.conditioner.context_of_states(given, values)
            for key, (given, values) in branches.items()
            if isinstance(given, torch.Tensor)
        }
        if texts := {
            k: (given, z) for k, (given, z) in branches.items() if isinstance(given, list)
        }:
            scales = arguments.get("cross_attention_kwargs") or {}
            encoded = self.encode_context(
                [text for given, _ in texts.values() for text in given],
                [values for _, several in texts.values() for values in several],
                lora_scale=scales.get("scale"),
                clip_skip=arguments.get("clip_skip"),
            )
            contexts |= zip(texts, encoded.chunk(len(texts)), strict=True)
        return contexts


def _given(arguments: dict[str, Any], key: str, count: int) -> list[str] | torch.Tensor:
    """The ``count`` prompts of a branch, taken out of the arguments, or their states."""
    prompt, embeds = arguments.pop(f"{key}prompt", None), arguments.get(f"{key}prompt_embeds")
    if embeds is None:
        return _as_list(prompt if prompt is not None else "", count, key)
    if prompt is not None:
        raise InputError(f"{key}prompt and {key}prompt_embeds: give one of them, not both")
    return embeds


def _prompt_count(arguments: Mapping[str, Any]) -> int:
    prompt, embeds = arguments.get("prompt"), arguments.get("prompt_embeds")
    if isinstance(prompt, list | tuple):
        return len(prompt)
    if prompt is None and embeds is not None:
        return len(embeds)
    if not isinstance(prompt, str):
        raise InputError(f"prompt {prompt!r}: give a text or a list of texts")
    return 1


def _as_list(prompt: str | Sequence[str], count: int, key: str) -> list[str]:
    prompts = [prompt] * count if isinstance(prompt, str) else list(prompt)
    if len(prompts) != count or not all(isinstance(p, str) for p in prompts):
        raise InputError(f"{key}prompt: give one text, or one for each of the {count} prompts")
    return prompts


class RiCStableDiffusionPipeline(RiCMixin, StableDiffusionPipeline):
    """Text to image, Stable Diffusion 1.x and 2.x."""


class RiCStableDiffusionImg2ImgPipeline(RiCMixin, StableDiffusionImg2ImgPipeline):
    """Image to image: move a given picture along the rewards."""
