"""The model behind the app, without the app: wishes in, samples with their story out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps

from ric_diffusion.app.jobs import Job
from ric_diffusion.app.memory import Recent, remember
from ric_diffusion.commands.kinds import DIFFUSION, kind_of
from ric_diffusion.commands.model import require_adapter
from ric_diffusion.commands.respond import story_of
from ric_diffusion.data.images import UnreadableImage, open_image
from ric_diffusion.diffusion.pipeline import RiCStableDiffusionImg2ImgPipeline
from ric_diffusion.errors import InputError
from ric_diffusion.evaluation.scoring import load_scorers
from ric_diffusion.evaluation.sweep import Sweep, preference_line, run_sweep, target_line
from ric_diffusion.rewards import RewardSpace, checks, to_targets

MAX_PROMPT = 2000  # characters; tokenizers take as many tokens as they like of it
MAX_SEED = 2**53 - 1  # what a browser can count to
MAX_PIXELS = 2**24  # of a dropped picture, which is scaled down to the model's own size
MAX_POINTS, MAX_CELLS = 15, 64  # of a sweep along one slider, and across two
AT_ONCE = 8  # samples of a sweep: so many passes long it takes to stop one
KEPT_SAMPLES = 32
STEPS = 50  # what pipelines take where the adapter does not say


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What is asked for: ``targets`` in z as they will be used, a reward left out is auto."""

    prompt: str
    seed: int
    targets: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A picture or response, and what is told about it: prompt, seed, model, targets, scores,
    obtained."""

    sample: Any
    story: Mapping[str, Any]


class Engine:
    """A loaded model with an adapter, for one thread; ``Desk`` has it work for others."""

    def __init__(self, model: Any, name: str) -> None:
        """``name``: how the user called the model. InputError if it has no sliders."""
        require_adapter(model, name)
        self.name, self.kind, self.adapter = name, kind_of(model), model.adapter
        self.space: RewardSpace = model.adapter.space
        self.scorers = load_scorers(self.space)
        self.sampler = self.kind.sampler(model)
        self.drawn = Recent(KEPT_SAMPLES)
        self.pictures = self.kind is DIFFUSION
        if self.pictures:
            model.set_progress_bar_config(disable=True)
            remember(model.text_encoder, "forward")
            remember(model.vae, "encode")
            # Not from_pipe, which would cast the model that both share.
            self.painter = RiCStableDiffusionImg2ImgPipeline(
                **model.components, requires_safety_checker=False
            )
            self.painter.set_progress_bar_config(disable=True)
            self.size = model.unet.config.sample_size * model.vae_scale_factor

    @property
    def passes(self) -> int:
        """Forward passes of one sample; of a response, at most."""
        if self.pictures:
            return int(self.sampler.sampling.get("num_inference_steps", STEPS))
        return int(self.sampler.settings.response_tokens)

    def wish(
        self,
        prompt: Any,
        seed: Any,
        *,
        preference: Mapping[str, float] | None = None,
        targets: Mapping[str, float] | None = None,
    ) -> Wish:
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
            wanted = to_targets(preference, self.space, self.adapter.mapping)
        else:
            wanted = self.space.check_targets(targets or {})
        return Wish(prompt=prompt, seed=int(number), targets=self.adapter.used(wanted))

    @torch.inference_mode()
    def draw(self, wish: Wish, job: Job) -> Drawn:
        """A picture, or a response: what ``ric generate`` makes of the same wish, to the bit. One
        that was drawn lately is not drawn again: a slider's number counts as set whenever it is
        left."""

        def make() -> Drawn:
            with job.watching(self.sampler.watched(), self.passes):
                (sample,) = self.sampler.sample([wish.prompt], [wish.targets], [wish.seed])
            return self._told(wish, sample)

        drawn: Drawn = self.drawn.get((wish.prompt, wish.seed, *wish.targets.items()), make)
        return drawn

    @torch.inference_mode()
    def transform(self, wish: Wish, path: str | Path, strength: float, job: Job) -> Drawn:
        """The picture in a file, moved along the rewards: noise is added, ``strength`` of it all,
        and taken out again as the wish says."""
        strength = checks.number(strength, "strength")
        if not 1 / self.passes <= strength <= 1:
            raise InputError(f"strength {strength:g}: give {1 / self.passes:g} to 1")
        picture = self._opened(path)
        with job.watching(self.painter.unet, int(self.passes * strength)):
            output = self.painter(
                [wish.prompt],
                image=[picture],
                strength=strength,
                targets=[wish.targets],
                generator=[torch.Generator().manual_seed(wish.seed)],
                **self.sampler.sampling,
            )
        return self._told(wish, output.images[0])

    @torch.inference_mode()
    def sweep(self, wish: Wish, points: Sequence[Mapping[str, float]], job: Job) -> Sweep:
        """The wish's prompt and seed at every one of the points, targets in z."""
        passes = math.ceil(len(points) / AT_ONCE) * self.passes
        with job.watching(self.sampler.watched(), passes):
            return run_sweep(
                self.sampler,
                self.space,
                points,
                [wish.prompt],
                [wish.seed],
                self.scorers,
                batch_size=AT_ONCE,
            )

    def line(self, along: str, across: str | None, count: Any) -> list[dict[str, float]]:
        """Targets of a sweep: ``count`` along one reward, the others on auto; ``count`` by
        ``count``, the rewards ``across`` first, where there are two."""
        number = checks.number(count, "points")
        most = MAX_POINTS if across is None else math.isqrt(MAX_CELLS)
        if not (number.is_integer() and 2 <= number <= most):
            raise InputError(f"points {number:g}: give a whole number from 2 to {most}")
        if along == across:
            raise InputError(f"across {across}: the sweep is along it already; choose another")
        curves = self.adapter.calibration
        line = target_line(self.space, along, int(number), curves.get(along))
        if across is None:
            return line
        rows = target_line(self.space, across, int(number), curves.get(across))
        return [{**row, **target} for row in reversed(rows) for target in line]

    def preferences(self, count: Any) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
        """``count`` preferences from the first reward to the last, and their targets."""
        number = checks.number(count, "points")
        if not (number.is_integer() and 2 <= number <= MAX_POINTS):
            raise InputError(f"points {number:g}: give a whole number from 2 to {MAX_POINTS}")
        weights = preference_line(self.space.names, int(number))
        wanted = (to_targets(w, self.space, self.adapter.mapping) for w in weights)
        return weights, [self.adapter.reachable(targets) for targets in wanted]

    def _opened(self, path: str | Path) -> Image.Image:
        """A picture nobody vouches for, at the model's own size."""
        try:
            image = open_image(path, MAX_PIXELS)
        except UnreadableImage as error:
            raise InputError(f"picture: {error.reason}; drop another one") from error
        return ImageOps.fit(image, (self.size, self.size), Image.Resampling.LANCZOS)

    def _told(self, wish: Wish, sample: Any) -> Drawn:
        story = story_of(
            self.name, wish.prompt, wish.seed, wish.targets, self.space, self.scorers, sample
        )
        return Drawn(sample=sample, story=story)
