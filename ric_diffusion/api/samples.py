"""``generate``: pictures of one prompt, or responses to it, with what was asked and obtained."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from PIL import Image

from ric_diffusion.api.drawing import Asked, InitPicture, Pictures, Responses, check_request
from ric_diffusion.api.like import Like
from ric_diffusion.api.models import (
    Dtype,
    ModelLike,
    Prompts,
    loaded,
    prompts_of,
    require_adapter,
    require_pictures,
    sampling_arguments,
)
from ric_diffusion.api.paths import check_out_folder
from ric_diffusion.api.picture_settings import PictureMetadata, PictureSettings
from ric_diffusion.api.refinement import Refinement, seeds_told, warn_of_unreached
from ric_diffusion.data.images import NOT_FINITE
from ric_diffusion.data.medium import Medium
from ric_diffusion.data.numbered import write_numbered
from ric_diffusion.data.scoring import load_scorers, scores_of
from ric_diffusion.io.counting import counted
from ric_diffusion.io.errors import InputError, not_finite_error
from ric_diffusion.io.paths import expanded
from ric_diffusion.io.progress import ProgressCallback, reporting, tracking
from ric_diffusion.models.checkpoint import Checkpoint, ModelName
from ric_diffusion.rewards import RewardSpace

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class GeneratedSample:
    """A picture or a response, with what was asked for and what was obtained.

    Attributes:
        sample: a Pillow image, or a text.
        prompt: what it was made from, with ``seed`` and ``model``.
        seed: its own.
        model: bundled name, folder or hub id.
        targets: the values in z that were used; a reward left out was auto.
        scores: in each scorer's unit, and ``obtained`` in z, by reward; None where a scorer has no
            number for it, and for a sample that is rejected (blank, or black by a safety checker).
            What is obtained is also None of a reward that is compared within its prompt: ``sweep``
            has samples to compare. Both are empty without an adapter.
        path: the file it was written to, None if it was not.
        refinement: how it came near its targets; None where it was not refined.
        settings: all that a picture depends on, as its PNG says it; None for a response.
    """

    sample: Any
    prompt: str
    seed: int
    model: str
    targets: Mapping[str, float]
    scores: Mapping[str, float | None]
    obtained: Mapping[str, float | None]
    path: Path | None = None
    refinement: Refinement | None = None
    settings: PictureSettings | None = None

    @property
    def metadata(self) -> dict[str, Any]:
        """What is written into the picture, or beside the text: of a picture all that
        ``picture_settings`` writes, too."""
        found: dict[str, Any] = {
            "prompt": self.prompt,
            "seed": self.seed,
            "model": self.model,
            "targets": dict(self.targets),
        }
        if self.scores:
            found |= {"scores": dict(self.scores), "obtained": dict(self.obtained)}
        if self.refinement is not None:
            found["refinement"] = asdict(self.refinement)
        if self.settings is not None:
            about = PictureMetadata(
                settings=self.settings,
                targets=self.targets,
                scores=self.scores,
                obtained=self.obtained,
                refinement=self.refinement,
            )
            found |= about.texts(self.sample.size)
        return found


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """A reward space with its scorers, to measure finished samples with."""

    space: RewardSpace | None
    scorers: Sequence[Any]
    medium: Medium

    @classmethod
    def of(cls, space: RewardSpace | None, medium: Medium) -> Scoring:
        """Without a space there is nothing to measure."""
        found = load_scorers(space, required=False) if space else ()
        return cls(space=space, scorers=found, medium=medium)

    def measured(
        self,
        sample: Any,
        *,
        prompt: str,
        seed: int,
        model: str,
        targets: Mapping[str, float],
        refinement: Refinement | None = None,
        settings: PictureSettings | None = None,
    ) -> GeneratedSample:
        """A sample with its scores, which one that is rejected has none of. FloatingPointError for
        one that is not finite."""
        check_finite(self.medium, sample, seed)
        scores: dict[str, float | None] = {}
        obtained: dict[str, float | None] = {}
        if self.space is not None and self.medium.reject_reason(sample) is not None:
            scores = obtained = dict.fromkeys(self.space.names)
        elif self.space is not None:
            row = scores_of([sample], [prompt], self.scorers)
            scores = by_reward(self.space, row[0])
            obtained = by_reward(self.space, self.space.normalize(row, [prompt])[0])
            obtained |= dict.fromkeys(self.space.centred)  # one sample has none to compare with
        return GeneratedSample(
            sample=sample,
            prompt=prompt,
            seed=seed,
            model=model,
            targets=dict(targets),
            scores=scores,
            obtained=obtained,
            refinement=refinement,
            settings=settings,
        )


def check_finite(medium: Medium, sample: Any, seed: int) -> None:
    """FloatingPointError for a sample that is not finite: nobody is to see or to keep it."""
    if medium.reject_reason(sample) == NOT_FINITE:
        raise not_finite_error(f"the {medium.name} of seed {seed}")


def by_reward(space: RewardSpace, row: np.ndarray) -> dict[str, float | None]:
    """(n,) values -> by reward, None where one is not finite."""
    named = zip(space.names, row.tolist(), strict=True)
    return {name: value if np.isfinite(value) else None for name, value in named}


def measure(space: RewardSpace, samples: Sequence[Any], prompts: Sequence[str]) -> np.ndarray:
    """(N, n) z of N finished samples, each made from its prompt, by the scorers that the space was
    fitted with; NaN where one has no number. Rewards that are compared within a prompt are so among
    these samples."""
    z: np.ndarray = space.normalize(scores_of(samples, prompts, load_scorers(space)), prompts)
    return z


def generate(
    model: ModelLike | None = None,
    prompt: str | None = None,
    *,
    prompts: Prompts | None = None,
    like: str | Path | PictureSettings | None = None,
    adapter: str | Path | None = None,
    preference: Mapping[str, float] | None = None,
    targets: Mapping[str, float] | None = None,
    negative_targets: Mapping[str, float] | None = None,
    negative_prompt: str | None = None,
    mapping: str | None = None,
    seed: int | None = None,
    count: int = 1,
    refine: int | None = None,
    init_image: str | Path | Image.Image | None = None,
    strength: float | None = None,
    sampling: Mapping[str, Any] | None = None,
    dtype: Dtype | None = None,
    device: str | None = None,
    out: str | Path | None = None,
    progress: ProgressCallback | None = None,
) -> list[GeneratedSample]:
    """Make pictures of a prompt, or respond to it, steered by rewards.

    Args:
        model: what ``load`` takes, or a model that it loaded; with ``like`` by default the
            picture's.
        prompt: what to draw, or to respond to.
        prompts: several of them in its place, or a file that has one to a line.
        like: a PNG that this made before, or its settings: whatever is not given here is as it was
            there. The same model, adapter, device and versions give the same picture, to the bit;
            of others InputError or a warning tells. The picture names no model on the hub: give it.
        adapter: folder or hub id; a bundled model has its own.
        preference: weights by reward, as the sliders set them.
        targets: values in z by reward, instead of a preference. A reward left out is auto.
        negative_targets: values in z to steer away from; not for language models.
        negative_prompt: what to steer away from, in words; not for language models.
        mapping: how a preference becomes targets; the adapter's own by default.
        seed: of the first sample of a prompt, 0 by default; the others have those that follow it.
        count: how many samples of each prompt.
        refine: draw each sample up to so many times more, 1 to 20, from the same seed and with
            model targets moved by what was obtained, and keep the one nearest to the targets, or to
            what the preference is mapped to. A sample within 0.05 z is not drawn again. A line says
            which ones stayed away.
        init_image: a picture to begin with, its middle cut to the size that is drawn; not for
            language models.
        strength: how much of that is drawn anew, above 0, at most 1, by default 0.5.
        sampling: arguments of sampling (``steps``, ``guidance_scale``, ``true_cfg_scale``,
            ``contrast``, ``prompt_guidance``, ``reward_start``, ``width``, ``height``, or what
            models of this family call theirs). What is left out comes from the adapter.
        dtype: of the model's weights, if it is loaded here; float32 by default.
        device: where to compute, if it is loaded here; by default the GPU if there is one.
        out: a folder for the samples: 0001-red-apple-seed0.png and so on with all that made them
            in it, or texts with their metadata in JSON beside them. Numbers go on from those that
            are there, and nothing is replaced.
        progress: called as samples are done.

    InputError for what does not fit the model, before the first sample is made; FloatingPointError
    for a sample of NaN or Inf, which is not written.
    """
    made = None if like is None else Like.of(like)
    asked = Asked(
        preference=preference,
        targets=targets,
        negative_targets=negative_targets,
        negative_prompt=negative_prompt,
        mapping=mapping,
        refine=refine,
        init=None if init_image is None else InitPicture.of(init_image),
        strength=strength,
        sampling=sampling or {},
    )
    texts = _prompts(prompt, prompts, made)
    if made is not None:
        asked = made.asked(asked)
    first = seed if seed is not None else made.settings.seed if made else 0
    check_request(texts, first, count)
    folder = None if out is None else expanded(out)
    if folder is not None:
        check_out_folder(folder)
    found, checkpoint = _loaded(model, adapter, dtype, device, made)
    family, medium = found.family, found.family.medium
    if asked.rewards or asked.refine is not None:
        require_adapter(found, checkpoint.model)
    options = sampling_arguments(family, asked.sampling)
    if made is not None:
        require_pictures(family, checkpoint.model)
        options = made.sampling(options, family.guidance, asked)
    asked = replace(asked, sampling=options)
    source: Pictures | Responses
    if medium.name == "image":
        source = Pictures(found, checkpoint, asked)
        if made is not None:
            made.check(
                source.model, model_chosen=model is not None, adapter_chosen=adapter is not None
            )
    else:
        source = Responses(found, asked)
    scoring = Scoring.of(found.adapter.space if found.adapter else None, medium)
    seeds, results = range(first, first + count), []
    with reporting(progress), tracking("generate", len(texts) * count, unit="sample") as tracker:
        for text in texts:
            samples = source.draw(text, seeds, scoring.scorers)
            for number, (sample, used, refinement) in zip(seeds, samples, strict=True):
                result = scoring.measured(
                    sample,
                    prompt=text,
                    seed=number,
                    model=checkpoint.model,
                    targets=used,
                    refinement=refinement,
                    settings=source.settings(text, number),
                )
                if folder is not None:
                    files = medium.files(sample, result.metadata)
                    result = replace(result, path=write_numbered(folder, text, number, files))
                results.append(result)
                tracker.advance()
    told = [result.seed for result in results]
    if scoring.space is not None:
        warn_of_rejected(medium, [result.sample for result in results], told)
    refined = [(how.distance, result.seed) for result in results if (how := result.refinement)]
    warn_of_unreached(medium, refined)
    return results


def _prompts(prompt: str | None, prompts: Prompts | None, made: Like | None) -> Sequence[str]:
    """Those to draw, the picture's own where none is given. InputError for none, and for both."""
    if prompt is not None and prompts is not None:
        raise InputError("prompt and prompts: give one of them, not both")
    if prompts is not None:
        return prompts_of(prompts)
    if prompt is not None:
        return [prompt]
    if made is not None:
        return [made.settings.prompt]
    raise InputError("prompt: give one, or prompts, or a picture to make one like it")


def _loaded(
    model: ModelLike | None,
    adapter: str | Path | None,
    dtype: Dtype | None,
    device: str | None,
    made: Like | None,
) -> tuple[Any, Checkpoint]:
    """The model that is given, else the one of the picture that was made; what is not said of it is
    as it was there."""
    if made is not None and (model is None or isinstance(model, ModelName)):
        recorded = made.settings.model.dtype
        known = recorded if recorded in get_args(Dtype) else None
        return loaded(
            made.model if model is None else model,
            made.adapter if adapter is None else adapter,
            dtype or known,  # type: ignore[arg-type]
            device or made.device,
        )
    if model is None:
        raise InputError("model: give one, or a picture to make one like it")
    return loaded(model, adapter, dtype, device)


def warn_of_rejected(medium: Medium, samples: Sequence[Any], seeds: Sequence[int]) -> None:
    """One line about those of N samples that are rejected and so without scores, by seed."""
    found = zip(seeds, map(medium.reject_reason, samples), strict=True)
    rejected = [(seed, reason) for seed, reason in found if reason is not None]
    if rejected:
        _log.warning(
            "%s: %d of %s %s, so without scores",
            seeds_told(seed for seed, _ in rejected),
            len(rejected),
            counted(len(samples), medium.plural),
            "/".join(dict.fromkeys(reason for _, reason in rejected)),
        )
