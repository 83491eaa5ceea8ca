"""The model behind the app, without the app: sample requests in, samples with metadata out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps

from ric_diffusion.api.models import require_adapter
from ric_diffusion.api.refinement import Refinement
from ric_diffusion.api.samples import GeneratedSample, Scoring
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
MAX_PIXELS = 2**24  # of a dropped picture, which is scaled down to the model's own size
MAX_POINTS, MAX_CELLS = 15, 64  # of a sweep along one slider, and across two
AT_ONCE = 8  # samples of a sweep: so many passes long it takes to stop one
KEPT_SAMPLES, KEPT_TEXTS = 32, 64
REFINE = 3  # passes after the first, where a picture is to come near its targets


@dataclass(frozen=True, kw_only=True)
class SampleRequest:
    """What is asked for: ``targets`` in z, a reward left out is auto; as they will be used, unless
    calibration is another one for every prompt. One to ``refine`` aims at the targets whatever
    calibration says can be had."""

    prompt: str
    seed: int
    targets: Mapping[str, float]
    refine: bool = False


class Engine:
    """A loaded model with an adapter, for one thread; ``ModelThread`` runs it for others."""

    def __init__(self, model: Any, name: str) -> None:
        """``name``: how the user called the model. InputError if it has no sliders."""
        require_adapter(model, name)
        self.name, self.family, self.adapter = name, model.family, model.adapter
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
            self.size = self.family.sample_size(model, self.sampler.sampling)

    @property
    def steps(self) -> int:
        """Denoising steps of a picture."""
        default = self.family.stock_default("num_inference_steps")
        return int(self.sampler.sampling.get("num_inference_steps", default))

    @property
    def passes(self) -> int:
        """Forward passes of one sample; of a response, at most."""
        if self.pictures:
            sampling = self.sampler.sampling
            return self.steps * int(self.family.passes_per_step(self.painter, sampling))
        return int(self.sampler.settings.response_tokens)

    def request(
        self,
        prompt: Any,
        seed: Any,
        *,
        preference: Mapping[str, float] | None = None,
        targets: Mapping[str, float] | None = None,
        refine: bool = False,
    ) -> SampleRequest:
        """What a user asks for, checked. InputError says what to change."""
        if not isinstance(prompt, str) or not prompt.strip():
            raise InputError("prompt: empty; write what you want")
        if len(prompt) > MAX_PROMPT:
            raise InputError(
                f"prompt: {len(prompt)} characters; shorten it to {MAX_PROMPT} or fewer"
            )
        if any("\ud800" <= letter <= "\udfff" for letter in prompt):
            raise InputError("prompt: holds half a character; take it out")
        number = checks.number(seed, "seed")
        if not (number.is_integer() and 0 <= number <= MAX_SEED):
            raise InputError(f"seed {number:g}: give a whole number from 0 to {MAX_SEED}")
        if preference is not None:
            wanted = self.adapter.mapped(preference)
        else:
            wanted = self.space.check_targets(targets or {})
        if refine:
            check_refine(self.space, wanted, self.scoring.scorers)
        elif not self.adapter.knows_prompts:  # else the model has to be asked, when it is free
            wanted = self.adapter.used(wanted)
        return SampleRequest(prompt=prompt, seed=int(number), targets=wanted, refine=refine)

    def _usable(self, request: SampleRequest) -> SampleRequest:
        """The request as calibration for its prompt has it."""
        [adapter] = self.model.adapters_for([request.prompt])
        return replace(request, targets=adapter.used(request.targets))

    @torch.inference_mode()
    def draw(self, request: SampleRequest, job: Job) -> GeneratedSample:
        """A picture, or a response: what ``generate`` makes of the same request, to the bit. One
        that was drawn lately is not drawn again: a slider's number counts as set whenever it is
        left."""

        def make() -> GeneratedSample:
            asked = [request.prompt], [request.targets], [request.seed]
            if request.refine:
                return self._refined(request, asked, job)
            with job.watching(self.sampler.network(), self.passes):
                used = self._usable(request)
                (sample,) = self.sampler.sample([used.prompt], [used.targets], [used.seed])
            return self._measured(used, sample)

        key = (request.prompt, request.seed, request.refine, *request.targets.items())
        drawn: GeneratedSample = self.drawn.get(key, make)
        return drawn

    def _refined(self, request: SampleRequest, asked: tuple[Any, ...], job: Job) -> GeneratedSample:
        with job.watching(self.sampler.network(), self.passes * (1 + REFINE)):
            (refined,) = refined_samples(
                self.model, self.sampler, self.scoring.scorers, *asked, passes=REFINE, show=False
            )
        return self._measured(request, refined.sample, Refinement.of(refined))

    @torch.inference_mode()
    def transform(
        self, request: SampleRequest, path: str | Path, strength: float, job: Job
    ) -> GeneratedSample:
        """The picture in a file, moved along the rewards: noise is added, ``strength`` of it all,
        and taken out again as the request says."""
        strength = checks.number(strength, "strength")
        if not 1 / self.steps <= strength <= 1:
            raise InputError(f"strength {strength:g}: give {1 / self.steps:g} to 1")
        picture = self._opened(path)
        with job.watching(self.painter.denoiser, int(self.passes * strength)):
            request = self._usable(request)
            output = self.painter(
                [request.prompt],
                image=[picture],
                strength=strength,
                targets=[request.targets],
                generator=[torch.Generator().manual_seed(request.seed)],
                **self.painter.arguments_of(self.sampler.sampling),
            )
        return self._measured(request, pictures_of(output)[0])

    @torch.inference_mode()
    def sweep(self, request: SampleRequest, points: Sequence[Point], job: Job) -> Sweep:
        """The request's prompt and seed at every one of the points."""
        passes = math.ceil(len(points) / AT_ONCE) * self.passes
        with job.watching(self.sampler.network(), passes):
            [adapter] = self.model.adapters_for([request.prompt])
            return run_sweep(
                self.sampler,
                self.space,
                [replace(point, targets=adapter.used(point.targets)) for point in points],
                [request.prompt],
                [request.seed],
                self.scoring.scorers,
                batch_size=AT_ONCE,
            )

    def line(self, along: str, across: str | None, count: Any) -> list[Point]:
        """Points of a sweep: ``count`` along one reward, the others on auto; ``count`` by
        ``count``, the rewards ``across`` first, where there are two."""
        number = checks.number(count, "points")
        most = MAX_POINTS if across is None else math.isqrt(MAX_CELLS)
        if not (number.is_integer() and 2 <= number <= most):
            raise InputError(f"points {number:g}: give a whole number from 2 to {most}")
        if along == across:
            raise InputError(f"across {across}: the sweep is along it already; choose another")
        line = sweep_points(self.adapter, int(number), along=along)
        if across is None:
            return line
        rows = sweep_points(self.adapter, int(number), along=across)
        return [
            Point(targets={**row.targets, **point.targets})
            for row in reversed(rows)
            for point in line
        ]

    def preferences(self, count: Any) -> list[Point]:
        """``count`` preferences from the first reward to the last."""
        number = checks.number(count, "points")
        if not (number.is_integer() and 2 <= number <= MAX_POINTS):
            raise InputError(f"points {number:g}: give a whole number from 2 to {MAX_POINTS}")
        return sweep_points(self.adapter, int(number))

    def _opened(self, path: str | Path) -> Image.Image:
        """A picture nobody vouches for, at the model's own size."""
        try:
            image = open_image(path, MAX_PIXELS)
        except UnreadableImage as error:
            raise InputError(f"picture: {error.reason}; drop another one") from error
        return ImageOps.fit(image, self.size, Image.Resampling.LANCZOS)

    def _measured(
        self, request: SampleRequest, sample: Any, refinement: Refinement | None = None
    ) -> GeneratedSample:
        return self.scoring.measured(
            sample,
            prompt=request.prompt,
            seed=request.seed,
            model=self.name,
            targets=request.targets,
            refinement=refinement,
        )
