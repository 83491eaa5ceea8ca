"""``generate``: pictures of one prompt, or responses to it, with what was asked and obtained."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ric_diffusion.api.models import (
    Dtype,
    ModelLike,
    check_mapping,
    loaded,
    require_adapter,
    sampling_arguments,
)
from ric_diffusion.api.paths import check_out_folder
from ric_diffusion.api.refinement import (
    Drawn,
    Refinement,
    draw_refined,
    seeds_told,
    warn_of_unreached,
)
from ric_diffusion.data.medium import Medium
from ric_diffusion.data.scoring import load_scorers, scores_of
from ric_diffusion.evaluation.refine import check_passes
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.paths import expanded
from ric_diffusion.io.progress import ProgressCallback, reporting, tracking
from ric_diffusion.models.diffusion.sampler import pictures_of
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

    @property
    def metadata(self) -> dict[str, Any]:
        """What is written into the picture, or beside the text."""
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
        path: Path | None = None,
        refinement: Refinement | None = None,
    ) -> GeneratedSample:
        """A sample with its scores, which one that is rejected has none of."""
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
            path=path,
            refinement=refinement,
        )


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
    model: ModelLike,
    prompt: str,
    *,
    adapter: str | Path | None = None,
    preference: Mapping[str, float] | None = None,
    targets: Mapping[str, float] | None = None,
    negative_targets: Mapping[str, float] | None = None,
    negative_prompt: str | None = None,
    mapping: str | None = None,
    seed: int = 0,
    count: int = 1,
    refine: int | None = None,
    sampling: Mapping[str, Any] | None = None,
    dtype: Dtype = "float32",
    out: str | Path | None = None,
    progress: ProgressCallback | None = None,
) -> list[GeneratedSample]:
    """Make pictures of a prompt, or respond to it, steered by rewards.

    Args:
        model: what ``load`` takes, or a model that it loaded.
        prompt: what to draw, or to respond to.
        adapter: folder or hub id; a bundled model has its own.
        preference: weights by reward, as the sliders set them.
        targets: values in z by reward, instead of a preference. A reward left out is auto.
        negative_targets: values in z to steer away from; not for language models.
        negative_prompt: what to steer away from, in words; not for language models.
        mapping: how a preference becomes targets; the adapter's own by default.
        seed: of the first sample; the others have the seeds that follow it.
        count: how many samples.
        refine: draw each sample up to so many times more, 1 to 20, from the same seed and with
            model targets moved by what was obtained, and keep the one nearest to the targets, or to
            what the preference is mapped to. A sample within 0.05 z is not drawn again. A line says
            which ones stayed away.
        sampling: arguments of sampling (``steps``, ``guidance_scale``, ``true_cfg_scale``,
            ``contrast``, ``prompt_guidance``, or what models of this family call theirs). What is
            left out comes from the adapter.
        dtype: of the model's weights, if it is loaded here.
        out: a folder for the samples: SEED.png with the metadata in it, or SEED.txt and SEED.json.
        progress: called as samples are done.

    InputError for what does not fit the model, before the first sample is made.
    """
    check_mapping(mapping)
    folder = None if out is None else expanded(out)
    if folder is not None:
        check_out_folder(folder)
    if count < 1:
        raise InputError(f"count {count}: give 1 or more")
    if refine is not None:
        check_passes(refine)
    given = {
        "preference": preference,
        "targets": targets,
        "negative_targets": negative_targets,
    }
    asked = {name: values for name, values in given.items() if values is not None}
    found, name = loaded(model, adapter, dtype)
    if asked or refine is not None:
        require_adapter(found, name)
    options = sampling_arguments(found.family, sampling)
    seeds, medium = range(seed, seed + count), found.family.medium
    scoring = Scoring.of(found.adapter.space if found.adapter else None, medium)
    if medium.name != "image":
        check_unguided(asked.get("negative_targets"), negative_prompt)
    draw: Any = _pictures if medium.name == "image" else _responses
    if refine is not None:
        draw = partial(draw_refined, passes=refine, scorers=scoring.scorers)
    samples = draw(found, prompt, seeds, asked, mapping, negative_prompt, options)
    results = []
    with reporting(progress), tracking("generate", count, unit="sample") as tracker:
        for number, (sample, used, refinement) in zip(seeds, samples, strict=True):
            result = scoring.measured(
                sample,
                prompt=prompt,
                seed=number,
                model=name,
                targets=used,
                path=folder / f"{number}{medium.suffix}" if folder else None,
                refinement=refinement,
            )
            if result.path is not None:
                medium.write(sample, result.path, result.metadata)
            results.append(result)
            tracker.advance()
    if scoring.space is not None:
        warn_of_rejected(medium, [result.sample for result in results], seeds)
    refined = [(how.distance, result.seed) for result in results if (how := result.refinement)]
    warn_of_unreached(medium, refined)
    return results


def warn_of_rejected(medium: Medium, samples: Sequence[Any], seeds: Sequence[int]) -> None:
    """One line about those of N samples that are rejected and so without scores, by seed."""
    found = zip(seeds, map(medium.reject_reason, samples), strict=True)
    rejected = [(seed, reason) for seed, reason in found if reason is not None]
    if rejected:
        _log.warning(
            "%s: %d of %d %s %s, so without scores",
            seeds_told(seed for seed, _ in rejected),
            len(rejected),
            len(samples),
            medium.plural,
            "/".join(dict.fromkeys(reason for _, reason in rejected)),
        )


def _pictures(
    pipe: Any,
    prompt: str,
    seeds: Sequence[int],
    asked: Mapping[str, Mapping[str, float]],
    mapping: str | None,
    negative_prompt: str | None,
    options: Mapping[str, Any],
) -> Iterator[Drawn]:
    # Checked before the first step of a long run, not after it.
    pipe.targets_for(
        1, preference=asked.get("preference"), targets=asked.get("targets"), mapping=mapping
    )
    pipe.targets_for(1, targets=asked.get("negative_targets"), name="negative_targets")

    def draw(seed: int) -> Drawn:
        output = pipe(
            prompt,
            negative_prompt=negative_prompt,
            generator=torch.Generator().manual_seed(seed),
            mapping=mapping,
            **asked,
            **options,
        )
        return pictures_of(output)[0], output.targets[0], None

    return map(draw, seeds)


def _responses(
    lm: Any,
    prompt: str,
    seeds: Sequence[int],
    asked: Mapping[str, Mapping[str, float]],
    mapping: str | None,
    negative_prompt: str | None,
    options: Mapping[str, Any],
) -> Iterator[Drawn]:
    used: dict[str, float] = {}
    own: Mapping[str, Any] = {}
    if lm.adapter is not None:
        own = lm.adapter.sampling
        wanted = lm.adapter.targets_for(**asked, mapping=mapping)
        [adapter] = lm.adapters_for([prompt])
        for line in adapter.unreachable(wanted):
            _log.warning(line)
        used = adapter.used(wanted)
    sampler = lm.family.sampler(lm, {**own, **options})
    # In one batch: each response comes out as if it were alone.
    samples = sampler.sample([prompt] * len(seeds), [used] * len(seeds), list(seeds))
    return ((sample, used, None) for sample in samples)


def check_unguided(
    negative_targets: Mapping[str, float] | None, negative_prompt: str | None
) -> None:
    """InputError for what a language model is asked to be guided away from."""
    for name, value in (
        ("negative_targets", negative_targets),
        ("negative_prompt", negative_prompt),
    ):
        if value:
            raise InputError(f"{name}: language models are not guided away from anything")
