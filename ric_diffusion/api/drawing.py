"""What one request asks of a model, and the samples that come of it."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from ric_diffusion import __version__
from ric_diffusion.api.models import check_mapping
from ric_diffusion.api.picture_settings import (
    InitImage,
    ModelUsed,
    PictureSettings,
    as_stored,
)
from ric_diffusion.api.refinement import Drawn, draw_refined
from ric_diffusion.data.images import UnreadableImage, open_image, pixel_digest
from ric_diffusion.data.prompts import check_text
from ric_diffusion.evaluation.refine import check_passes
from ric_diffusion.io.bounds import MOST_PER_PROMPT, MOST_SEED, check_count
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.paths import expanded
from ric_diffusion.models.checkpoint import Checkpoint
from ric_diffusion.models.diffusion.arguments import check_times
from ric_diffusion.models.diffusion.digests import adapter_digest, model_digest
from ric_diffusion.models.diffusion.family import IMAGE_TO_IMAGE
from ric_diffusion.models.diffusion.pipeline import stock_class
from ric_diffusion.models.diffusion.sampler import DiffusionSampler, pictures_of
from ric_diffusion.rewards import checks
from scorers import to_rgb

STRENGTH = 0.5  # how much of a picture is drawn anew, unless a call says so

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class InitPicture:
    """A picture to begin with, and what its file is called."""

    image: Image.Image
    name: str

    @classmethod
    def of(cls, given: str | Path | Image.Image) -> InitPicture:
        """A file that nobody vouches for, or a picture of Pillow. InputError if there is none."""
        if isinstance(given, Image.Image):
            return cls(image=to_rgb(given), name="picture")
        path = expanded(given)
        try:
            return cls(image=open_image(path), name=path.name)
        except UnreadableImage as error:
            raise InputError(f"init_image {given}: {error.reason}; give a picture") from error


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked of a model, beside prompts and seeds; see ``generate``. ``sampling``: by the
    names that the model's family has for its arguments."""

    preference: Mapping[str, float] | None = None
    targets: Mapping[str, float] | None = None
    negative_targets: Mapping[str, float] | None = None
    negative_prompt: str | None = None
    mapping: str | None = None
    refine: int | None = None
    init: InitPicture | None = None
    strength: float | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """InputError for what no model can be asked."""
        check_mapping(self.mapping)
        check_text("negative_prompt", self.negative_prompt or "")
        if self.refine is not None:
            object.__setattr__(self, "refine", check_passes(self.refine))
        if self.strength is not None and not 0 < checks.number(self.strength, "strength") <= 1:
            raise InputError(f"strength {self.strength:g}: give a number above 0, at most 1")

    @property
    def rewards(self) -> dict[str, Mapping[str, float]]:
        """The arguments about rewards that were given."""
        given = {name: getattr(self, name) for name in REWARDS}
        return {name: values for name, values in given.items() if values is not None}


REWARDS = ("preference", "targets", "negative_targets")
NO_NEGATIVE = "language models are not guided away from what is named"


def check_request(prompts: Sequence[str], seed: int, count: int) -> None:
    """InputError unless there are prompts to draw with so many seeds each."""
    if not prompts:
        raise InputError("prompts: none there; give one or more")
    for prompt in prompts:
        check_text("prompt", prompt)
    check_count("count", count, MOST_PER_PROMPT)
    check_count("seed", seed, MOST_SEED - count + 1, least=0)


class Pictures:
    """Pictures of a pipeline, drawn one at a time, so that none depends on those beside it."""

    def __init__(self, pipe: Any, checkpoint: Checkpoint, asked: Asked) -> None:
        """``checkpoint``: what the pipeline was loaded from. InputError for what it cannot do."""
        self.pipe, self.asked, family = pipe, asked, pipe.family
        if asked.init is None and (asked.strength is not None or "strength" in asked.sampling):
            raise InputError("strength: says how much of init_image is drawn anew; give that")
        if asked.init is not None and IMAGE_TO_IMAGE not in family.pipelines:
            raise InputError(f"init_image: {family.title} have no image-to-image pipeline")
        self.painter = pipe if asked.init is None else family.sibling(pipe, IMAGE_TO_IMAGE)
        self.painter.text_cache = pipe.text_cache
        self.sampling = resolved_sampling(self.painter, asked)
        self.arguments = self.painter.arguments_of(self.sampling)
        check_times(self.sampling, None, pipe.scheduler)
        self.arguments["negative_prompt"] = asked.negative_prompt
        scale = self.sampling.get(family.guidance)
        if asked.negative_prompt and scale is not None and not family.is_guided(pipe, scale):
            raise InputError(f"negative_prompt: {family.unguided(scale)}")
        self.model = model_used(pipe, checkpoint)
        self.init: InitImage | None = None
        if asked.init is not None:
            self._begin_with(asked.init)
        # Checked before the first step of a long run, not after it.
        self.targets = pipe.targets_for(
            1, preference=asked.preference, targets=asked.targets, mapping=asked.mapping
        )[0]
        self.negative_targets = pipe.targets_for(
            1, targets=asked.negative_targets, name="negative_targets"
        )[0]

    def _begin_with(self, init: InitPicture) -> None:
        strength = self.asked.strength
        if strength is None:
            strength = self.sampling.get("strength", STRENGTH)
        steps = self.sampling["num_inference_steps"]
        if int(steps * strength) < 1:
            raise InputError(f"strength {strength:g}: give {1 / steps:g} to 1 with {steps} steps")
        size = self.sampling["width"], self.sampling["height"]
        name = "".join(letter if checks.is_one_line(letter) else "?" for letter in init.name)
        self.init = InitImage(name=name, digest=pixel_digest(init.image), strength=strength)
        self.arguments["image"] = ImageOps.fit(init.image, size, Image.Resampling.LANCZOS)
        self.arguments["strength"] = strength

    def draw(self, prompt: str, seeds: Sequence[int], scorers: Sequence[Any]) -> Iterator[Drawn]:
        """One picture for each seed; ``scorers``: those of the rewards, where it is refined."""
        if self.asked.refine is not None:
            yield from self._refined(prompt, seeds, scorers, self.asked.refine)
            return
        for seed in seeds:
            with np.errstate(invalid="ignore"):  # what is not finite is told by us
                output = self.painter(
                    prompt,
                    generator=torch.Generator().manual_seed(seed),
                    mapping=self.asked.mapping,
                    **self.asked.rewards,
                    **self.arguments,
                )
            yield pictures_of(output)[0], output.targets[0], None

    def _refined(
        self, prompt: str, seeds: Sequence[int], scorers: Sequence[Any], passes: int
    ) -> Iterator[Drawn]:
        pipe, more = self.pipe, {}
        if self.asked.negative_targets is not None:
            # What is steered away from is not moved: it goes through calibration here, once.
            [known] = pipe.adapters_for([prompt])
            more["negative_targets"] = known.model_targets(known.used(self.negative_targets))
        sampler = self.sampler(**more)
        yield from draw_refined(
            pipe, sampler, prompt, seeds, self.targets, passes=passes, scorers=scorers
        )

    def sampler(self, **more: Any) -> DiffusionSampler:
        """What draws with the same arguments, and ``more``, behind the sampler protocol."""
        found: DiffusionSampler = self.pipe.family.sampler(self.painter, self.arguments | more)
        return found

    def settings(self, prompt: str, seed: int) -> PictureSettings:
        """All that the picture of this prompt and seed depends on."""
        asked, values, preference = self.asked, self.sampling, self.asked.preference
        weighed = preference is not None
        return PictureSettings(
            prompt=prompt,
            negative_prompt=asked.negative_prompt,
            seed=seed,
            preference=None if preference is None else {k: float(v) for k, v in preference.items()},
            mapping=(asked.mapping or self.pipe.adapter.mapping) if weighed else None,
            targets=None if asked.targets is None else self.targets,
            negative_targets=None if asked.negative_targets is None else self.negative_targets,
            refine=asked.refine,
            sampling={name: as_stored(value) for name, value in values.items()},
            init_image=self.init,
            model=self.model,
        )


class Responses:
    """Responses of a language model."""

    def __init__(self, lm: Any, asked: Asked) -> None:
        """InputError for what language models cannot do."""
        for name in ("negative_targets", "negative_prompt"):
            if getattr(asked, name):
                raise InputError(f"{name}: {NO_NEGATIVE}")
        for name, value in (("init_image", asked.init), ("strength", asked.strength)):
            if value is not None:
                raise InputError(f"{name}: language models begin with no picture")
        self.lm, self.asked = lm, asked
        self.targets: dict[str, float] = {}
        own: Mapping[str, Any] = {}
        if lm.adapter is not None:
            own = lm.adapter.sampling
            self.targets = lm.adapter.targets_for(**asked.rewards, mapping=asked.mapping)
        self.sampler = lm.family.sampler(lm, lm.family.merged(own, asked.sampling))

    def draw(self, prompt: str, seeds: Sequence[int], scorers: Sequence[Any]) -> Iterator[Drawn]:
        """One response for each seed, in one batch: each comes out as if it were alone."""
        lm, used = self.lm, self.targets
        if self.asked.refine is not None:
            yield from draw_refined(
                lm, self.sampler, prompt, seeds, used, passes=self.asked.refine, scorers=scorers
            )
            return
        if lm.adapter is not None:
            [adapter] = lm.adapters_for([prompt])
            for line in adapter.unreachable(used):
                _log.warning(line)
            used = adapter.used(used)
        samples = self.sampler.sample([prompt] * len(seeds), [used] * len(seeds), list(seeds))
        yield from ((sample, used, None) for sample in samples)

    def settings(self, prompt: str, seed: int) -> None:
        """Only pictures say how they were made."""


def resolved_sampling(pipe: Any, asked: Asked) -> dict[str, Any]:
    """Every argument of sampling that a picture depends on, by diffusers' names: what was asked
    for, else the adapter's own, else those of the pipeline's class."""
    family, given = pipe.family, asked.sampling
    call = inspect.signature(stock_class(type(pipe)).__call__).parameters
    own = dict(pipe.adapter.sampling) if pipe.adapter else {}
    names = ("num_inference_steps", "guidance_scale", family.guidance)
    defaults = {name: call[name].default for name in names if name in call}
    found: dict[str, Any] = family.merged({**defaults, **own}, given)
    width, height = family.sample_size(pipe, found)
    found |= {"width": width, "height": height}
    if asked.negative_targets is not None and "contrast" not in given:
        found.pop("contrast", None)  # they take its place
    return found


def model_used(pipe: Any, checkpoint: Checkpoint) -> ModelUsed:
    """The model and adapter that a pipeline has, by digests, and what computes it here."""
    sources = list(pipe.adapter_sources.values())
    try:
        return ModelUsed(
            checkpoint=checkpoint,
            digest=model_digest(pipe),
            adapter=sources[0] if len(sources) == 1 else None,
            adapter_digest=adapter_digest(pipe),
            scheduler=type(pipe.scheduler).__name__,
            dtype=str(pipe.denoiser.dtype).removeprefix("torch."),
            device=pipe.device.type,
            versions=_versions(pipe.family.software),
        )
    except ValueError as error:  # names of folders, which pictures tell
        raise InputError(f"{error}; rename it") from None


@cache
def _versions(packages: tuple[str, ...]) -> Mapping[str, str]:
    return {"ric-diffusion": __version__, **{name: version(name) for name in packages}}
