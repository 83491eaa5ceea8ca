"""``refine`` for the verbs: samples that are drawn again until they are near their targets."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ric_diffusion.data.medium import Medium
from ric_diffusion.evaluation.refine import Refined, check_refine, refined_samples
from ric_diffusion.io.counting import counted
from ric_diffusion.models.protocol import Sampler
from ric_diffusion.rewards.refine import TOLERANCE

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Refinement:
    """How a sample came near its targets.

    Attributes:
        passes: how many more times it was drawn, after the first.
        distance: root mean square of what was obtained less the targets, over the rewards asked
            for, in z; None if no pass gave a sample with scores.
        reached: whether that is within 0.05 z.
        model_targets: what the model read for it, in z.
    """

    passes: int
    distance: float | None
    reached: bool
    model_targets: Mapping[str, float]

    @classmethod
    def of(cls, refined: Refined) -> Refinement:
        nearest = refined.nearest
        return cls(
            passes=len(refined.passes) - 1,
            distance=nearest.distance if np.isfinite(nearest.distance) else None,
            reached=refined.reached,
            model_targets=nearest.model_targets,
        )


Drawn = tuple[Any, Mapping[str, float], Refinement | None]  # a sample, its targets, how it came


def draw_refined(
    model: Any,
    sampler: Sampler,
    prompt: str,
    seeds: Sequence[int],
    targets: Mapping[str, float],
    *,
    passes: int,
    scorers: Sequence[Any],
) -> Iterator[Drawn]:
    """Refined samples of a prompt, one for each seed; ``targets`` in z as they are asked for."""
    check_refine(model.adapter.space, targets, scorers)
    pictures, count = sampler.medium.name == "image", len(seeds)
    # A picture must not depend on what is drawn beside it; a response does not.
    for some in [[seed] for seed in seeds] if pictures else [seeds]:
        found = refined_samples(
            model,
            sampler,
            scorers,
            [prompt] * len(some),
            [targets] * len(some),
            some,
            passes=passes,
            batch_size=count,
            show=not pictures,
        )
        for one in found:
            yield one.sample, one.targets, Refinement.of(one)


def distance_of(obtained: Mapping[str, float | None], targets: Mapping[str, float]) -> float | None:
    """Root mean square of what was obtained less the targets, in z; None if one is missing."""
    off = [(z, target) for name, target in targets.items() if (z := obtained[name]) is not None]
    if len(off) < len(targets):
        return None
    return float(np.sqrt(np.mean([(z - target) ** 2 for z, target in off])))


def seeds_told(seeds: Iterable[int]) -> str:
    """Seeds as a warning begins with them, each once."""
    numbers = dict.fromkeys(map(str, seeds))
    return f"seed{'s' * (len(numbers) > 1)} {', '.join(numbers)}"


def warn_of_unreached(medium: Medium, refined: Sequence[tuple[float | None, int]]) -> None:
    """One line about those of N refined samples that stayed away from their targets. Of each, its
    distance in z, None of one without scores, which is told of elsewhere; and its seed."""
    found = [(distance, seed) for distance, seed in refined if (distance or 0) > TOLERANCE]
    if found:
        _log.warning(
            "%s: %d of %s not within %g z of what was asked; the farthest is %.3g z off",
            seeds_told(seed for _, seed in found),
            len(found),
            counted(len(refined), medium.plural),
            TOLERANCE,
            max(distance for distance, _ in found if distance is not None),
        )
