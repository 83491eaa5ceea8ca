"""Pipelines that take rewards: stock pipelines of diffusers in everything else."""

from __future__ import annotations

import inspect
import json
import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, Self

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.loaders.single_file_utils import SingleFileComponentError

from ric_diffusion.adapters.adapter import Adapter
from ric_diffusion.io.bounds import MOST_SCALE
from ric_diffusion.io.counting import counted
from ric_diffusion.io.errors import InputError, suggest
from ric_diffusion.io.files import write_json
from ric_diffusion.io.lru import Recent
from ric_diffusion.io.paths import expanded, expanded_name
from ric_diffusion.io.tensors import system_errors
from ric_diffusion.models.checkpoint import Checkpoint, check_shards, check_suffix
from ric_diffusion.models.diffusion.adapted import DEFAULT, AdapterMixin
from ric_diffusion.models.diffusion.arguments import (
    bound,
    check_times,
    is_number,
    most_of,
    settle_eta,
    steps_in,
)
from ric_diffusion.models.diffusion.arguments import check as check_arguments
from ric_diffusion.models.diffusion.context import MASK, Context
from ric_diffusion.models.diffusion.finite import watching
from ric_diffusion.models.diffusion.prompt_features import features_of, has_features
from ric_diffusion.models.diffusion.single_file import SingleFile
from ric_diffusion.models.diffusion.weights import check_variant
from ric_diffusion.models.family import (
    ADAPTER_SUBFOLDER,
    INDEX_FILE,
    Source,
    family_of,
    model_path,
    source_of,
)
from ric_diffusion.rewards import MAPPINGS, opposite

# Of sampling, beside those of the stock calls.
OWN_ARGUMENTS = ("contrast", "prompt_guidance", "reward_start")
REWARD_ARGUMENTS = ("preference", "targets", "negative_targets", "mapping", *OWN_ARGUMENTS)
FIRST = "first_"  # begins the names of branches of the steps before rewards speak
HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "token")

_log = logging.getLogger(__name__)

Values = Mapping[str, float] | Sequence[Mapping[str, float]]


class RiCPipeline:
    """Finds the pipeline class of a checkpoint."""

    def __new__(cls) -> NoReturn:
        raise TypeError(
            "RiCPipeline is made by RiCPipeline.from_pretrained or RiCPipeline.from_single_file"
        )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> RiCMixin:
        """A pipeline of the model's family: for inpainting or with a ControlNet where the model
        says so, else from text to image; see RiCMixin.from_pretrained.

        InputError if the model is of no family of pipelines.
        """
        name, hub = expanded_name(str(pretrained_model_name_or_path)), _hub(kwargs)
        _check_folder(name)
        family: Any = family_of(name, **hub)
        if not hasattr(family, "pipelines"):
            raise InputError(f"{name}: a model of {family.title}, which is no pipeline")
        cls = _class_for(family, source_of(name, **hub), kwargs)
        found: RiCMixin = cls.from_pretrained(name, **kwargs)
        return found

    @classmethod
    def from_single_file(
        cls, pretrained_model_link_or_path: Any, *, config: Any = None, **kwargs: Any
    ) -> RiCMixin:
        """A pipeline of the family that the tensors of a .safetensors file are of, for inpainting
        where its ``config`` says so; see RiCMixin.from_single_file.

        InputError if the file is of no family of pipelines.
        """
        file = SingleFile.read(str(pretrained_model_link_or_path), config, **_hub(kwargs))
        found: RiCMixin = _class_for(file.family, file.config, kwargs).from_single_file(
            file.name, config=config, **kwargs
        )
        return found


class RiCMixin(AdapterMixin):
    """Adds rewards to a pipeline of diffusers; list it before the stock class.

    The context (text states and reward tokens) is built here and handed to the stock ``__call__``
    as ``prompt_embeds``, so schedulers, callbacks, offload and LoRA work as they always do.
    """

    # Contexts of texts by what they were made of, for who calls with the same ones again and again;
    # set it to keep some. Nobody writes into them.
    text_cache: Recent | None = None

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Self:
        """As in diffusers, for a hub id, a folder or the bundled ``"emoji-64"``; only safetensors.

        Where a ``ric_adapter`` lies beside the model's parts, it is loaded. InputError if the model
        is of another family than this class.
        """
        path, hub = model_path(pretrained_model_name_or_path), _hub(kwargs)
        _check_folder(path)
        if (family := family_of(path, **hub)).name != cls.family_name:
            raise InputError(
                f"{path}: a model of {family.title}; RiCPipeline.from_pretrained finds its class"
            )
        kwargs.setdefault("use_safetensors", True)
        kwargs.setdefault("trust_remote_code", False)
        try:
            fetching = {key: kwargs[key] for key in kwargs if key != "force_download"}
            check_shards(path if Path(path).is_dir() else cls.download(path, **fetching))
            pipe = super().from_pretrained(path, **kwargs)
        except (OSError, ValueError):
            own: Any = family
            check_variant(path, kwargs.get("variant"), own.parts, **hub)
            raise
        if (folder := family.fetch_adapter(path, ADAPTER_SUBFOLDER, **hub)).is_dir():
            pipe._load(folder, DEFAULT, source=None)
        found: Self = pipe
        return found

    @classmethod
    def from_single_file(
        cls, pretrained_model_link_or_path: Any, *, config: Any = None, **kwargs: Any
    ) -> Self:
        """As in diffusers, for a .safetensors file or its address on the hub.

        ``config``: the pipeline, a folder or hub id, whose configs and tokenizers the file takes,
        and, if it is a folder with weights, the parts that the file lacks. No adapter is loaded.
        InputError for a file of another kind, a torn one or a LoRA, for a model of another family
        than this class or ``config``, and if a part is missing.
        """
        file = SingleFile.read(str(pretrained_model_link_or_path), config, **_hub(kwargs))
        family = file.family
        if family.name != cls.family_name:
            raise InputError(
                f"{file.name}: a model of {family.title}; RiCPipeline.from_single_file finds its "
                "class"
            )
        lacking = [part for part in family.parts[:-1] if part not in kwargs]
        dtype = kwargs.pop("dtype", None) or kwargs.pop("torch_dtype", None) or torch.float32
        kwargs |= {"config": file.config.name, **file.parts_beside(lacking, dtype)}
        if dtype != torch.float32:  # which is the default, and diffusers warns when it casts
            kwargs["dtype"] = dtype
        try:
            pipe = super().from_single_file(str(file.path), **kwargs)
        except NotImplementedError as error:  # of tensors that nothing was read into
            raise file.misfit("some of their weights are missing") from error
        except (KeyError, ValueError, SingleFileComponentError) as error:
            raise file.misfit(error) from error
        modules = {part: getattr(pipe, part) for part in family.parts}
        file.check_complete({part: m for part, m in modules.items() if m is not None})
        pipe.register_to_config(_name_or_path=file.name)
        found: Self = pipe
        return found

    @classmethod
    def from_pipe(cls, pipeline: Any, **kwargs: Any) -> Self:
        """A pipeline of this class over another one's parts, with the adapters that those hold.

        ``kwargs``: parts and settings in place of the other's, and ``dtype`` to cast all of them,
        shared or not; without it they stay as they are, where diffusers casts them to float32.
        InputError for a pipeline of another family, and if a part is missing.
        """
        if {"dtype", "torch_dtype"} & set(kwargs):
            cast: Self = super().from_pipe(pipeline, **kwargs)
            return cast
        parameters = inspect.signature(cls).parameters.values()
        given = {**pipeline.config, **pipeline.components, **kwargs}
        chosen = {p.name: given[p.name] for p in parameters if p.name in given}
        if unknown := set(kwargs) - set(chosen):
            raise InputError(f"{cls.__name__} has no {min(unknown)}; it takes "
                             f"{', '.join(p.name for p in parameters)}")  # fmt: skip
        missing = [p.name for p in parameters if p.default is p.empty and p.name not in chosen]
        if missing:
            raise InputError(
                f"{cls.__name__} needs {missing[0]}, which {type(pipeline).__name__} lacks; give "
                f"from_pipe(pipe, {missing[0]}=…)"
            )
        found = cls(**chosen)
        found.register_to_config(_name_or_path=pipeline.config.get("_name_or_path"))
        return found

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> None:
        """Write a stock pipeline folder, which stock diffusers loads, with ``ric_adapter`` inside.

        The denoiser is written without the adapter; the pipeline is unchanged afterwards.
        """
        folder = expanded(save_directory)
        if self.adapter is not None:
            self.save_adapter(folder / ADAPTER_SUBFOLDER)
        else:  # from_pretrained would load one left by an earlier save
            shutil.rmtree(folder / ADAPTER_SUBFOLDER, ignore_errors=True)
        with self.without_adapter(), system_errors(folder):
            super().save_pretrained(folder, **kwargs)
        index = folder / INDEX_FILE
        for path in folder.rglob("*.safetensors"):  # which nobody else may read
            path.chmod(index.stat().st_mode)
        named = {"_class_name": stock_class(type(self)).__name__}
        write_json(index, json.loads(index.read_text()) | named)

    def arguments_of(self, sampling: Mapping[str, Any]) -> dict[str, Any]:
        """Those arguments of sampling that this class's call has: an adapter's are for text to
        image, and another door may take no size."""
        known = {*inspect.signature(super().__call__).parameters, *OWN_ARGUMENTS}
        return {name: value for name, value in sampling.items() if name in known}

    def targets_for(
        self,
        count: int,
        *,
        preference: Values | None = None,
        targets: Values | None = None,
        mapping: str | None = None,
        name: str = "targets",
        images: int = 1,
    ) -> list[dict[str, float]]:
        """Preference or targets, one for all, one for each of ``count`` prompts or one for each of
        their ``images`` -> ``count * images`` checked targets in z.

        ``name`` is what errors call the targets.
        """
        if preference is not None and targets is not None:
            raise InputError("preference and targets: give one of them, not both")
        if mapping is not None and mapping not in list(MAPPINGS):
            raise InputError(f"mapping: unknown {mapping!r}{suggest(mapping, MAPPINGS)}")
        if self.adapter is None:
            if preference is None and targets is None:
                return [{}] * (count * images)
            name = name if preference is None else "preference"
            raise InputError(f"{name}: no adapter is loaded; call load_adapter first")
        name, given = (name, targets) if preference is None else ("preference", preference)
        if given is not None and not isinstance(given, Mapping | list | tuple):
            raise InputError(
                f"{name} {given!r}: map rewards to values, or list one for each prompt"
            )
        each = list(given) if isinstance(given, list | tuple) else [given or {}] * count
        if len(each) not in (count, count * images):
            several = f" of {images} images each" * (images > 1)
            raise InputError(
                f"{name}: {len(each)} for {counted(count, 'prompts')}{several}; give one, or one "
                "for each"
            )
        if len(each) == count:
            each = [one for one in each for _ in range(images)]
        if preference is not None:
            return [self.adapter.mapped(p, mapping) for p in each]
        return [self.adapter.space.check_targets(t, name) for t in each]

    def encode_context(
        self,
        prompts: Sequence[str] | Sequence[Sequence[str]],
        targets: Sequence[Mapping[str, float]],
        **options: Any,
    ) -> Context:
        """Prompts and targets in z, B each -> the context that the denoiser reads.

        For pipelines that take several prompts, give a list of B for each, or one list for all.
        ``options``: those of the family's ``encode_options``. InputError without an adapter.
        """
        if self.adapter is None:
            raise InputError("no adapter is loaded; call load_adapter first")
        context = self._encoded(prompts, targets, options)
        return context.with_states(self.adapter.conditioner.context(context.states, targets))

    @torch.no_grad()
    def prompt_features(
        self, prompts: Sequence[str] | Sequence[Sequence[str]], **options: Any
    ) -> np.ndarray:
        """(B, D) float32: what calibration knows B prompts by, with their rewards on auto; given as
        ``encode_context`` takes them, and encoded one at a time, so that each has what it has
        alone. InputError without an adapter."""
        if not prompts or _is_text(prompts[0]):
            rows: list[Any] = [[text] for text in prompts]
        else:
            rows = [[[text] for text in texts] for texts in zip(*prompts, strict=True)]
        with self.with_adapter():
            contexts = [self.encode_context(row, [{}], **options) for row in rows]
            return features_of(self, contexts)

    def adapters_for(self, prompts: Sequence[str]) -> list[Adapter]:
        """The adapter as it is calibrated for each of these prompts."""
        assert self.adapter is not None
        if not self.adapter.knows_prompts or not has_features(self):
            return [self.adapter] * len(prompts)
        options = self.family.encode_options_of(self.adapter.sampling)
        return self.adapter.for_prompts(prompts, partial(self.prompt_features, **options))

    def _adapters_of(self, arguments: Mapping[str, Any], count: int) -> list[Adapter]:
        """The same for the ``count`` prompts, or their contexts, in the arguments of a call."""
        adapter = self.adapter
        assert adapter is not None
        if not adapter.knows_prompts or not has_features(self):
            return [adapter] * count
        given = self._given(dict(arguments), "", count)
        if isinstance(given, Context):
            with self.with_adapter():
                contexts = [
                    one.with_states(adapter.conditioner.context_of_states(one.states, [{}]))
                    for one in given.chunk(count)
                ]
                rows = features_of(self, contexts)
            return [adapter.for_prompt(row) for row in rows]
        options = self.family.encode_options_of(arguments)
        each = [json.dumps(texts) for texts in zip(*given, strict=True)]

        def features(distinct: list[str]) -> np.ndarray:
            columns = list(zip(*map(json.loads, distinct), strict=True))
            return self.prompt_features(columns, **options)

        return adapter.for_prompts(each, features)

    def _encoded(
        self,
        prompts: Sequence[str] | Sequence[Sequence[str]],
        targets: Sequence[Mapping[str, float]],
        options: Mapping[str, Any],
    ) -> Context:
        """What the text encoders say, without reward tokens."""
        texts = self.texts(prompts, targets, options.get("max_sequence_length"))

        def encode() -> Context:
            return self.family.encode(self, list(zip(*texts, strict=True)), **options)

        self.check_encoders()
        if self.text_cache is None or (state := self._encoder_state) is None:
            return encode()
        context: Context = self.text_cache.get((*texts, *sorted(options.items()), state), encode)
        return context

    def texts(
        self,
        prompts: Sequence[str] | Sequence[Sequence[str]],
        targets: Sequence[Mapping[str, float]],
        max_length: int | None = None,
    ) -> list[tuple[str, ...]]:
        """What the text encoders read of prompts and targets in z, B each, which the adapter's
        conditioner says: for each of the B a text for each encoder, within its length and
        ``max_length`` tokens. ``prompts`` as ``encode_context`` takes them."""
        assert self.adapter is not None
        family = self.family
        given: list[Any] = list(prompts)
        columns: list[list[str]] = (
            [given] * len(family.prompts) if not given or _is_text(given[0]) else given
        )
        expand = getattr(self, "maybe_convert_prompt", None)
        columns = [
            self.adapter.conditioner.texts(
                column,
                targets,
                [family.prompt_tokenizer(getattr(self, name), max_length, expand=expand)],
            )
            for column, name in zip(columns, family.tokenizers, strict=True)
        ]
        return list(zip(*columns, strict=True))

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        *args: Any,
        preference: Values | None = None,
        targets: Values | None = None,
        negative_targets: Values | None = None,
        mapping: str | None = None,
        contrast: float | None = None,
        prompt_guidance: float | None = None,
        reward_start: float | None = None,
        **kwargs: Any,
    ) -> Any:
        """The stock call, with rewards. Of an adapter's own sampling arguments (steps, guidance,
        contrast …) those hold that are not given here.

        Args:
            preference: weights by reward, as the sliders set them; mapped to targets.
            targets: values in z by reward. A reward left out is auto.
            negative_targets: values in z for the branch that guidance steers away from. They take
                the place of an adapter's own contrast.
            mapping: how a preference becomes targets; the adapter's own by default.
            contrast: the branch that guidance steers away from is asked for so many times the
                opposite of the targets, within common values: rewards speak up, at no extra cost.
                Not together with negative_targets.
            prompt_guidance: how strongly guidance pulls towards the prompt, from 1 (not at all; 0
                where the stock call counts from there) to the scale of guidance, the default;
                towards the rewards it pulls with that scale in any case. The branch it steers away
                from then holds part of the prompt itself.
            reward_start: the share of the steps, from 0 to 0.99, after which rewards speak; they
                do in the last in any case. Before, all are on auto and guidance pulls towards the
                prompt with its whole scale: what is drawn is settled first, how it looks
                afterwards, as in an interval of guidance (Kynkäänniemi et al. 2024,
                arXiv 2404.07724).

        Each may be one for all prompts, or a list with one for each prompt or for each of the
        ``num_images_per_prompt`` images of each, in the order of the output's images.

        Returns the stock output with two more lists beside its images: ``targets``, the values in z
        that were used, a dict for each image, and ``finite``, whether latents and picture are
        numbers throughout, without NaN or Inf; or the stock tuple with ``return_dict=False``.

        InputError for an argument that neither has, and for values that make no sense.
        """
        signature = inspect.signature(super().__call__)
        guidance, off = self.family.guidance, self.family.guidance_off
        arguments = bound(signature, (prompt, *args), kwargs, own=REWARD_ARGUMENTS)
        if contrast is not None and negative_targets is not None:
            raise InputError(
                "contrast and negative_targets: both say what to steer away from; give one of them"
            )
        own = dict(self.adapter.sampling) if self.adapter else {}
        own_contrast, own_guidance = own.pop("contrast", 0.0), own.pop("prompt_guidance", None)
        own_start = own.pop("reward_start", 0.0)
        arguments = self.arguments_of(own) | arguments
        check_arguments(arguments, guidance)
        steps = signature.parameters["num_inference_steps"].default
        check_times(arguments, steps, self.scheduler)
        strength = signature.parameters.get("strength")
        settle_eta(arguments, steps, strength.default if strength else 1.0, self.scheduler)
        scale = arguments.get(guidance, signature.parameters[guidance].default)
        steered = "negative_targets" if negative_targets is not None else None
        if contrast and contrast != own_contrast:
            steered = "contrast"
        if negative_targets is None and contrast is None:
            contrast = own_contrast
        if prompt_guidance is None and own_guidance is not None:
            prompt_guidance = min(own_guidance, scale)  # the call's own scale comes first
        count, images = _prompt_count(arguments), arguments.get("num_images_per_prompt", 1)
        used = self.targets_for(
            count, preference=preference, targets=targets, mapping=mapping, images=images
        )
        negative = self.targets_for(
            count, targets=negative_targets, name="negative_targets", images=images
        )
        contrast = 0.0 if contrast is None else contrast
        if not is_number(contrast) or not 0 <= contrast <= MOST_SCALE:
            raise InputError(f"contrast {contrast!r}: give a number from 0 to {MOST_SCALE:g}")
        reward_start = own_start if reward_start is None else reward_start
        most = most_of("reward_start")
        if not is_number(reward_start) or not 0 <= reward_start <= most:
            raise InputError(f"reward_start {reward_start!r}: give a number from 0 to {most:g}")
        if steps_in(arguments, steps) == 1:
            reward_start = 0.0  # which is theirs
        if prompt_guidance is None:
            prompt_guidance = scale
        elif not is_number(prompt_guidance) or not (
            off <= prompt_guidance <= scale or prompt_guidance == scale
        ):
            raise InputError(
                f"prompt_guidance {prompt_guidance!r}: give a number from {off:g} to {guidance}, "
                f"{scale}"
            )
        elif self.adapter is None:  # there is nothing else to be guided by
            arguments[guidance] = prompt_guidance
        if self.adapter is not None:
            self.check_unfused()
            adapters = self._adapters_of(arguments, count)
            used = self._reachable(used, adapters, warn=targets is not None)
            negative = self._reachable(negative, adapters, warn=True)
            if _alike(used, images) and _alike(negative, images):
                images = 1  # the stock call repeats what one context says
            step = len(used) // (count * images)
            read, against = (
                [_of(adapters, i, images).model_targets(t) for i, t in enumerate(each[::step])]
                for each in (used, negative)
            )
            if contrast:  # the opposite of what the model reads
                against = [opposite(t, self.adapter.space, contrast) for t in read]
            self._set_context(
                arguments,
                read,
                against,
                steered=steered,
                scale=scale,
                prompt_guidance=prompt_guidance,
                start=reward_start,
                images=images,
            )
        with self.with_adapter(), watching(getattr(self, "vae", None)) as watch:
            output = super().__call__(**arguments)
        if hasattr(output, "images"):
            output["targets"] = [dict(t) for t in used]
            output["finite"] = watch.finite(output.images)
        return output

    def _reachable(
        self, targets: list[dict[str, float]], adapters: list[Adapter], *, warn: bool
    ) -> list[dict[str, float]]:
        """Targets of the images of each prompt, whose ``adapters`` these are, moved into the
        reachable range where that was measured, and said so; else what the conditioning can say
        (text rounds)."""
        images = len(targets) // len(adapters)
        pairs = [(_of(adapters, i, images), each) for i, each in enumerate(targets)]
        # Once for each, however many prompts ask for it.
        lines = dict.fromkeys(line for own, each in pairs for line in own.unreachable(each))
        for line in lines if warn else ():
            _log.warning(line)
        return [own.used(each) for own, each in pairs]

    def _set_context(
        self,
        arguments: dict[str, Any],
        targets: list[dict[str, float]],
        negative: list[dict[str, float]],
        *,
        steered: str | None,
        scale: float,
        prompt_guidance: float,
        start: float,
        images: int,
    ) -> None:
        """Replace prompts, or add to prompt_embeds, in the arguments of the stock call; targets
        are those of each prompt, or of each of its ``images``, which then are prompts themselves.

        With e(p, z) what the denoiser predicts from prompt p and targets z, guidance at the scale g
        is e(q, y) + g·(e(p, z) - e(q, y)). Where q = p it is along the targets alone; the share s
        of p in the context of q leaves about 1 + (g - 1)·(1 - s) of it to the prompt. Families
        whose scale is 0 where g is 1 call g - 1 by that name, which leaves s what it is.

        ``steered``: what the caller gave that steers away from something; InputError if guidance
        has no such branch. Before the share ``start`` of the steps, both branches say auto.
        """
        assert self.adapter is not None
        guided = self.family.is_guided(self, scale)
        if steered and not guided:
            raise InputError(f"{steered}: {self.family.unguided(scale)}")
        count, share = len(targets) // images, 0.0
        given = _repeated(self._given(arguments, "", count), images)
        branches = {"": (given, targets)}
        if guided:
            share = (scale - prompt_guidance) / (scale - self.family.guidance_off)
            other = self._given(arguments, "negative_", count)
            branches["negative_"] = _repeated(other, images), negative
        else:  # nobody reads them, but the stock call compares their shapes
            for name in self.family.embeds:
                arguments.pop(f"negative_{name}", None)
        auto: list[dict[str, float]] = [{}] * len(targets)
        before = {f"{FIRST}{branch}": (of, auto) for branch, (of, _) in branches.items() if start}
        if share:
            branches["shared"] = given, negative
        contexts = self._contexts(branches | before, arguments)
        if share:
            contexts["negative_"] = contexts["negative_"].lerp(contexts.pop("shared"), share)
        if images > 1 or not self.family.repeats_embeds:
            times = arguments.pop("num_images_per_prompt", 1) // images
            contexts = {branch: context.repeated(times) for branch, context in contexts.items()}
        if start:
            first = {branch.removeprefix(FIRST): contexts.pop(branch) for branch in before}
            self._change_later(arguments, contexts, start)
            contexts = self.family.read_first(self, first, contexts)
        for branch, context in contexts.items():
            arguments |= self.family.to_arguments(context, branch)

    def _change_later(
        self, arguments: dict[str, Any], contexts: Mapping[str, Context], start: float
    ) -> None:
        """Have the stock call read these contexts from the share ``start`` of its steps on, by its
        callback at the end of a step; the caller's own is called as well."""
        theirs = arguments.get("callback_on_step_end")
        again = arguments.get("num_images_per_prompt", 1)  # the stock call repeats its own as well

        def at_end(pipe: Any, i: int, t: Any, given: dict[str, Any]) -> dict[str, Any]:
            found = theirs(pipe, i, t, given) if theirs else {}
            count = pipe.num_timesteps
            if count == 1:  # of several, of which image to image skips some
                raise InputError(f"reward_start {start:g}: strength leaves one step; give 0")
            if i / count < min(start, (count - 1) / count) <= (i + 1) / count:
                later = {branch: context.repeated(again) for branch, context in contexts.items()}
                found = {**self.family.read_next(later, arguments), **found}
            return found

        arguments["callback_on_step_end"] = at_end
        # diffusers' own callbacks say themselves which tensors they are to get.
        if (names := getattr(theirs, "tensor_inputs", None)) is not None:
            arguments["callback_on_step_end_tensor_inputs"] = names

    def _given(
        self, arguments: dict[str, Any], branch: str, count: int
    ) -> list[list[str]] | Context:
        """The ``count`` prompts of a branch for each text encoder, taken out of the arguments, or
        the context that was given in their place."""
        names = [f"{branch}{name}" for name in self.family.prompts]
        prompts = [arguments.pop(name, None) for name in names]
        context = self.family.from_arguments(arguments, branch)
        if context is None:
            first = prompts[0] if prompts[0] is not None else ""
            filled = [first if p is None else p for p in prompts]
            return [_as_list(p, count, n) for p, n in zip(filled, names, strict=True)]
        embeds = f"{branch}{self.family.embeds[0]}"
        if prompts[0] is not None:
            raise InputError(f"{names[0]} and {embeds}: give one of them, not both")
        shape, width = context.states.shape, self.family.context_width(self.denoiser)
        if len(shape) != 3 or shape[0] != count or shape[2] != width:
            raise InputError(
                f"{embeds}: of shape {tuple(shape)}; give (prompts, tokens, {width}), here with "
                f"prompts = {count}"
            )
        return context.map(lambda tensor: tensor.to(self._execution_device))

    def _contexts(
        self,
        branches: Mapping[str, tuple[list[list[str]] | Context, list[dict[str, float]]]],
        arguments: Mapping[str, Any],
    ) -> dict[str, Context]:
        """Prompts or their contexts, and targets, N each -> contexts of one length and precision;
        all prompts go through the text encoders in one pass."""
        assert self.adapter is not None
        conditioner, options = self.adapter.conditioner, self.family.encode_options_of(arguments)
        given = {b: (of, z) for b, (of, z) in branches.items() if isinstance(of, Context)}
        texts = {b: (of, z) for b, (of, z) in branches.items() if isinstance(of, list)}
        length = max((context.states.shape[1] for context, _ in given.values()), default=0)
        dtypes = [context.states.dtype for context, _ in given.values()]
        contexts: dict[str, Context] = {}
        if texts:
            columns = range(len(self.family.prompts))
            prompts = [[text for of, _ in texts.values() for text in of[c]] for c in columns]
            values = [z for _, several in texts.values() for z in several]
            encoded = self._extended(self._encoded(prompts, values, options), length, options)
            length, dtypes = encoded.states.shape[1], [encoded.states.dtype]
            encoded = encoded.with_states(conditioner.context(encoded.states, values))
            contexts |= zip(texts, encoded.chunk(len(texts)), strict=True)
        for branch, (context, values) in given.items():
            longer = self._extended(context.map(partial(_cast, dtypes[0])), length, options)
            states = conditioner.context_of_states(longer.states, values)
            contexts[branch] = longer.with_states(states)
        return contexts

    def _extended(self, context: Context, length: int, options: Mapping[str, Any]) -> Context:
        """A context with at least ``length`` states: behind a shorter one follow those of empty
        texts, as compel and A1111 do it for prompts of several times the text encoder's length."""
        missing = length - context.states.shape[1]
        if missing <= 0 or MASK in context.extra:  # masked ones may differ in length
            return context
        empty = self.family.empty_states(self, context, **options)
        chunks = math.ceil(missing / empty.shape[1])
        more = empty.to(context.states).repeat(1, chunks, 1)[:, :missing]
        more = more.expand(len(context), -1, -1)
        return context.with_states(torch.cat([context.states, more], dim=1))


def _of(adapters: Sequence[Adapter], image: int, images: int) -> Adapter:
    """Whose prompt an image is of, so many images to a prompt."""
    return adapters[image // images]


def stock_class(cls: type) -> Any:
    """The class of diffusers that one of our pipelines is."""
    ours = (RiCMixin, AdapterMixin)
    stock = (c for c in cls.__mro__ if not any(issubclass(c, o) for o in ours))
    return next(c for c in stock if issubclass(c, DiffusionPipeline))


def _check_folder(name: str) -> None:
    """InputError for a single file."""
    if Checkpoint.of(name).is_file:
        check_suffix(name)
        raise InputError(f"{name}: a single file; from_single_file(…, config=…) loads it")


def _class_for(family: Any, source: Source, given: Mapping[str, Any]) -> Any:
    """The class for a pipeline of which ``source`` is known: for inpainting or with a ControlNet
    where that says so or one is given, else from text to image."""
    door = "controlnet" if "controlnet" in given else family.door_of(source)
    return family.pipelines[door if door in ("inpainting", "controlnet") else "text-to-image"]


def _hub(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {key: kwargs[key] for key in HUB_OPTIONS if key in kwargs}


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _prompt_count(arguments: Mapping[str, Any]) -> int:
    prompt, embeds = arguments.get("prompt"), arguments.get("prompt_embeds")
    if isinstance(prompt, list | tuple) and prompt:
        return len(prompt)
    if prompt is None and embeds is not None:
        return len(embeds)
    if not isinstance(prompt, str):
        raise InputError(f"prompt {prompt!r}: give a text or a list of texts")
    return 1


def _as_list(prompt: Any, count: int, name: str) -> list[str]:
    prompts = [prompt] * count if isinstance(prompt, str) else prompt
    if (
        not isinstance(prompts, list | tuple)
        or len(prompts) != count
        or not all(isinstance(p, str) for p in prompts)
    ):
        raise InputError(f"{name}: give one text, or one for each of the {count} prompts")
    return list(prompts)


def _cast(dtype: torch.dtype, tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def _alike(targets: Sequence[Mapping[str, float]], images: int) -> bool:
    """Whether the images of each prompt, so many in a row, have the same targets."""
    return all(target == targets[i - i % images] for i, target in enumerate(targets))


def _repeated(given: list[list[str]] | Context, times: int) -> list[list[str]] | Context:
    """Every prompt, or its context, so many times in a row."""
    if isinstance(given, Context):
        return given.repeated(times)
    return [[text for text in column for _ in range(times)] for column in given]
