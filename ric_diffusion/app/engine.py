"""The model behind the app, without the app: sample requests in, samples with metadata out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps

from ric_diffusion.adapters.adapter import Adapter
from ric_diffusion.api.drawing import NO_NEGATIVE, Asked, InitPicture, Pictures
from ric_diffusion.api.models import check_mapping, require_adapter, sampling_arguments
from ric_diffusion.api.picture_settings import PictureSettings
from ric_diffusion.api.refinement import Refinement
from ric_diffusion.api.samples import GeneratedSample, Scoring, generate
from ric_diffusion.app.choice import ModelChoice
from ric_diffusion.app.jobs import Job
from ric_diffusion.data.images import UnreadableImage, open_image
from ric_diffusion.evaluation.grid import Point, sweep_points
from ric_diffusion.evaluation.refine import check_refine, refined_samples
from ric_diffusion.evaluation.runner import Sweep, run_sweep
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.lru import Recent
from ric_diffusion.models.diffusion.sampler import pictures_of
from ric_diffusion.rewards import RewardSpace, checks

MAX_PROMPT = 2000  # characters; tokenizers take as many tokens as they like of it
MAX_SEED = 2**53 - 1  # what a browser can count to
MAX_COUNT = 64  # samples at a time
MAX_PIXELS = 2**24  # of a dropped picture, which is scaled down to the model's own size
MAX_POINTS, MAX_CELLS = 15, 64  # of a sweep along one slider, and across two
KEPT_SAMPLES, KEPT_TEXTS = 32, 64
REFINE = 3  # passes after the first, where a picture is to come near its targets
SIDES = ("width", "height")
# What can be set of sampling, and between which ends; where the model has it at all.
LIMITS = {
    "steps": (1, 200),
    "guidance_scale": (0, 30),
    "true_cfg_scale": (0, 30),
    "contrast": (0, 10),
    "reward_start": (0, 0.9),
    "width": (64, 2048),
    "height": (64, 2048),
}
OFF_BY_DEFAULT = ("contrast", "reward_start")  # which stock calls do not have


@dataclass(frozen=True, kw_only=True)
class SampleRequest:
    """What is asked for: ``targets`` in z, a reward left out is auto; as they will be used, unless
    calibration is another one for every prompt. One to ``refine`` aims at the targets whatever
    calibration says can be had. ``options``: arguments of sampling in place of the adapter's own.
    ``asked``: the same before mapping and calibration, as files tell it.
    """

    prompt: str
    seed: int
    targets: Mapping[str, float]
    refine: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    asked: Asked = field(default_factory=Asked, compare=False)


class Engine:
    """A loaded model with an adapter, for one thread; a ``WorkQueue`` runs it for others."""

    def __init__(self, model: Any, choice: ModelChoice) -> None:
        """``choice``: how the user called the model. InputError if it has no sliders."""
        require_adapter(model, choice.name)
        self.choice, self.family, self.adapter = choice, model.family, model.adapter
        self.model = model
        self.space: RewardSpace = model.adapter.space
        self.scoring = Scoring.of(self.space, self.family.medium)
        self.sampler = self.family.sampler(model)
        self.drawn = Recent(KEPT_SAMPLES)
        self.pictures = self.family.medium.name == "image"
        if self.pictures:
            model.set_progress_bar_config(disable=True)
            model.text_cache = Recent(KEPT_TEXTS)
            self.painter = self.family.sibling(model, "image-to-image")
            self.painter.text_cache = model.text_cache

    @property
    def name(self) -> str:
        return self.choice.name

    def exchanged(self, choice: ModelChoice) -> Engine:
        """One with another model, or with another adapter on this one, which is then of no more
        use. InputError, and nothing changed, for what cannot be loaded."""
        own = self.choice
        if choice.adapter and (choice.checkpoint, choice.dtype) == (own.checkpoint, own.dtype):
            try:
                folder = self.family.fetch_adapter(choice.adapter)
                # Before its weights take the place of those that this page draws with.
                Scoring.of(self.family.check_adapter(folder).space, self.family.medium)
                self.model.load_adapter(choice.adapter)
            except InputError as error:
                raise InputError(f"adapter {error}") from error
            return Engine(self.model, choice)
        return Engine(choice.load(), choice)

    @property
    def sampling(self) -> dict[str, float]:
        """What can be set of sampling, as it is unless a request says otherwise; by the names that
        are the same for all families, and the sides of a picture."""
        if not self.pictures:
            return {}
        own, found = self.sampler.sampling, {}
        for name, argument in self.family.options.items():
            if name in OFF_BY_DEFAULT:
                found[name] = own.get(argument, 0.0)
            elif name in LIMITS:
                found[name] = own.get(argument, self.family.stock_default(argument))
        return found | dict(zip(SIDES, self.family.sample_size(self.model, own), strict=True))

    def limits(self, name: str) -> tuple[float, float, float]:
        """Least, most and step of what can be set of sampling."""
        whole = self.family.multiple if name in SIDES else 1 if name == "steps" else 0.1
        return *LIMITS[name], whole

    def steps(self, options: Mapping[str, Any]) -> int:
        """Denoising steps of a picture, with these arguments of sampling."""
        default = self.family.stock_default("num_inference_steps")
        return int(options.get("num_inference_steps", default))

    def passes(self, options: Mapping[str, Any]) -> int:
        """Forward passes of one sample; of a response, at most."""
        if self.pictures:
            each = self.family.passes_per_step(self.painter, options)
            return self.steps(options) * int(each)
        return int(self.sampler.settings.response_tokens)

    def request(
        self,
        prompt: Any,
        seed: Any,
        *,
        preference: Mapping[str, float] | None = None,
        targets: Mapping[str, float] | None = None,
        refine: bool = False,
        mapping: str | None = None,
        negative_prompt: str | None = None,
        sampling: Mapping[str, Any] | None = None,
    ) -> SampleRequest:
        """What a user asks for, checked; ``sampling`` by the names that ``self.sampling`` has.
        InputError says what to change."""
        _check_text(prompt, "prompt")
        if not prompt.strip():
            raise InputError("prompt: empty; write what you want")
        check_mapping(mapping)
        number = whole(seed, "seed", 0, MAX_SEED)
        if preference is not None:
            wanted = self.adapter.mapped(preference, mapping)
        else:
            wanted = self.space.check_targets(targets or {})
        options = self._options(negative_prompt, sampling or {})
        if refine:
            check_refine(self.space, wanted, self.scoring.scorers)
        elif not self.adapter.knows_prompts:  # else the model has to be asked, when it is free
            wanted = self.adapter.used(wanted)
        asked = Asked(
            preference=preference,
            targets=None if preference is not None else targets or {},
            negative_prompt=negative_prompt,
            mapping=mapping,
            refine=REFINE if refine else None,
            sampling={name: v for name, v in options.items() if name != "negative_prompt"},
        )
        return SampleRequest(
            prompt=prompt, seed=number, targets=wanted, refine=refine, options=options, asked=asked
        )

    def _options(self, negative_prompt: Any, sampling: Mapping[str, Any]) -> dict[str, Any]:
        """Those arguments of sampling that are not the adapter's own already."""
        own, asked = self.sampling, {}
        for name, value in sampling.items():
            if name not in own:
                raise InputError(f"{name}: {self.family.title} have no such setting")
            low, high, step = self.limits(name)
            if step < 1:
                number: float = checks.number(value, name)
                if not low <= number <= high:
                    raise InputError(f"{name} {number:g}: give {low:g} to {high:g}")
            else:
                number = whole(value, name, int(low), int(high))
            if number != own[name]:
                asked[name] = number
        if set(SIDES) & set(asked):  # stock calls leave out one side without the other
            asked = {side: own[side] for side in SIDES} | asked
        options = sampling_arguments(self.family, asked)
        if negative_prompt:
            _check_text(negative_prompt, "negative_prompt")
            if not self.pictures:
                raise InputError(f"negative_prompt: {NO_NEGATIVE}")
            options["negative_prompt"] = negative_prompt
        return options

    def expected(self, prompt: str) -> dict[str, tuple[float, float]]:
        """What can be had of each reward with this prompt, in z, where that was measured and is
        another range than that of all prompts together."""
        if not self.adapter.knows_prompts:
            return {}
        calibration = self._known(prompt).calibration
        return {name: curve.reachable for name, curve in calibration.items()}

    def _known(self, prompt: str) -> Adapter:
        """The adapter as it is calibrated for a prompt."""
        [adapter] = self.model.adapters_for([prompt])
        found: Adapter = adapter
        return found

    def _usable(self, request: SampleRequest) -> SampleRequest:
        """The request as calibration for its prompt has it."""
        return replace(request, targets=self._known(request.prompt).used(request.targets))

    def _sampler(self, options: Mapping[str, Any], job: Job) -> Any:
        """A sampler with these arguments, whose pictures can be looked at while they are drawn."""
        if not self.pictures:
            return self.sampler
        own = self.sampler.sampling
        size = self.family.sample_size(self.model, {**own, **options})
        latents_of = self.family.latents(self.model)

        def step(pipe: Any, index: int, t: Any, found: Mapping[str, Any]) -> Mapping[str, Any]:
            latents = found["latents"][:1]
            job.look(lambda: latents_of.decode(self.family.unpacked(pipe, latents, size)))
            return {}

        return self.family.sampler(self.model, {**own, **options, "callback_on_step_end": step})

    @torch.inference_mode()
    def draw(self, request: SampleRequest, job: Job) -> GeneratedSample:
        """A picture, or a response: what ``generate`` makes of the same request, to the bit. One
        that was drawn lately is not drawn again: a slider's number counts as set whenever it is
        left."""

        def make() -> GeneratedSample:
            sampler = self._sampler(request.options, job)
            if request.refine:
                return self._refined(request, sampler, job)
            with job.watching(sampler.network(), self.passes(sampler.sampling)):
                used = self._usable(request)
                (sample,) = sampler.sample([used.prompt], [used.targets], [used.seed])
            return self._measured(used, sample)

        asked = (*request.targets.items(), None, *request.options.items())
        key = (request.prompt, request.seed, request.refine, *asked)
        drawn: GeneratedSample = self.drawn.get(key, make)
        return drawn

    def _refined(self, request: SampleRequest, sampler: Any, job: Job) -> GeneratedSample:
        asked = [request.prompt], [request.targets], [request.seed]
        with job.watching(sampler.network(), self.passes(sampler.sampling) * (1 + REFINE)):
            (refined,) = refined_samples(
                self.model, sampler, self.scoring.scorers, *asked, passes=REFINE, show=False
            )
        return self._measured(request, refined.sample, Refinement.of(refined))

    @torch.inference_mode()
    def transform(
        self, request: SampleRequest, path: str | Path, strength: float, job: Job
    ) -> GeneratedSample:
        """The picture in a file, moved along the rewards: noise is added, ``strength`` of it all,
        and taken out again as the request says."""
        strength = checks.number(strength, "strength")
        sampling = {**self.sampler.sampling, **request.options}
        least = 1 / self.steps(sampling)
        if not least <= strength <= 1:
            raise InputError(f"strength {strength:g}: give {least:g} to 1")
        dropped = self._opened(path)
        size = self.family.sample_size(self.model, sampling)
        picture = ImageOps.fit(dropped.image, size, Image.Resampling.LANCZOS)
        with job.watching(self.painter.denoiser, int(self.passes(sampling) * strength)):
            request = self._usable(request)
            output = self.painter(
                [request.prompt],
                image=[picture],
                strength=strength,
                targets=[request.targets],
                generator=[torch.Generator().manual_seed(request.seed)],
                **self.painter.arguments_of(sampling),
            )
        return self._measured(request, pictures_of(output)[0], init=dropped, strength=strength)

    @torch.inference_mode()
    def sweep(
        self, request: SampleRequest, points: Sequence[Point], job: Job
    ) -> tuple[Sweep, PictureSettings]:
        """The request's prompt and seed at every one of the points, and what all of them were made
        from, but for what the points say."""
        sampler = self.family.sampler(self.model, {**self.sampler.sampling, **request.options})
        passes = len(points) * self.passes(sampler.sampling)
        with job.watching(sampler.network(), passes):
            adapter = self._known(request.prompt)
            sweep = run_sweep(
                sampler,
                self.space,
                [replace(point, targets=adapter.used(point.targets)) for point in points],
                [request.prompt],
                [request.seed],
                self.scoring.scorers,
                batch_size=1,  # a picture must not depend on what is drawn beside it
            )
        return sweep, self._settings(request, request.asked)

    def line(
        self, along: str, across: str | None, count: Any, held: Mapping[str, float]
    ) -> list[Point]:
        """Points of a sweep: ``count`` along one reward, the others on their targets in ``held`` or
        else on auto; ``count`` by ``count``, the rewards ``across`` first, where there are two."""
        number = whole(count, "points", 2, most_points(across))
        if along == across:
            raise InputError(f"across {across}: the sweep is along it already; choose another")
        line = sweep_points(self.adapter, number, along=along)
        if across is None:
            return [replace(point, targets={**held, **point.targets}) for point in line]
        rows = sweep_points(self.adapter, number, along=across)
        return [
            Point(targets={**held, **row.targets, **point.targets})
            for row in reversed(rows)
            for point in line
        ]

    def preferences(self, count: Any, mapping: str | None = None) -> list[Point]:
        """``count`` preferences from the first reward to the last."""
        check_mapping(mapping)
        number = whole(count, "points", 2, MAX_POINTS)
        return sweep_points(self.adapter, number, mapping=mapping)

    def _opened(self, path: str | Path) -> InitPicture:
        """A picture nobody vouches for."""
        try:
            return InitPicture(image=open_image(path, MAX_PIXELS), name=Path(path).name)
        except UnreadableImage as error:
            raise InputError(f"picture: {error.reason}; drop another one") from error

    @torch.inference_mode()
    def again(self, made: PictureSettings, job: Job) -> GeneratedSample:
        """The picture that was made from these settings, by ``generate``. InputError for settings
        of another model, or that need a picture."""
        steps = self.passes({**self.sampler.sampling, **made.sampling})
        with job.watching(self.sampler.network(), steps * (1 + (made.refine or 0))):
            [drawn] = generate(self.model, like=made)
        return drawn

    def _measured(
        self,
        request: SampleRequest,
        sample: Any,
        refinement: Refinement | None = None,
        init: InitPicture | None = None,
        strength: float | None = None,
    ) -> GeneratedSample:
        asked = replace(request.asked, init=init, strength=strength)
        settings = self._settings(request, asked) if self.pictures else None
        return self.scoring.measured(
            sample,
            prompt=request.prompt,
            seed=request.seed,
            model=self.name,
            targets=request.targets,
            refinement=refinement,
            settings=settings,
        )

    def _settings(self, request: SampleRequest, asked: Asked) -> PictureSettings:
        """What the picture of a request is made from."""
        pictures = Pictures(self.model, self.choice.checkpoint, asked)
        return pictures.settings(request.prompt, request.seed)


def most_points(across: str | None) -> int:
    """How many points a sweep may have along one reward, or along each of two."""
    return MAX_POINTS if across is None else math.isqrt(MAX_CELLS)


def whole(value: Any, name: str, low: int, high: int) -> int:
    """A whole number between two ends. InputError for any other value."""
    number = checks.number(value, name)
    if not (number.is_integer() and low <= number <= high):
        raise InputError(f"{name} {number:g}: give a whole number from {low} to {high}")
    return int(number)


def _check_text(text: Any, name: str) -> None:
    if not isinstance(text, str):
        raise InputError(f"{name}: empty; write what you want")
    if len(text) > MAX_PROMPT:
        raise InputError(f"{name}: {len(text)} characters; shorten it to {MAX_PROMPT} or fewer")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise InputError(f"{name}: holds half a character; take it out")
