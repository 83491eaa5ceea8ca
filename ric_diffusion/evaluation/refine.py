"""``refine``: draw, score, move the model targets, draw again from the same seed, and keep the
nearest. Each sample is searched for on its own; those that go on are drawn together."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

import numpy as np

from ric_diffusion.adapters.adapter import Adapter
from ric_diffusion.data.scoring import scores_of
from ric_diffusion.evaluation.grid import Point
from ric_diffusion.evaluation.method import Draw
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.progress import tracking
from ric_diffusion.models.family import Model
from ric_diffusion.models.protocol import Sampler
from ric_diffusion.rewards import RewardSpace
from ric_diffusion.rewards.refine import TOLERANCE, Axis, Search
from scorers import Scorer, is_stand_in

MOST_PASSES = 20
BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One drawing: the model targets that it was drawn with; what was obtained, in z, of the
    rewards that were asked for, NaN where the sample is rejected or has no score; and the root mean
    square of that less the targets, infinite without it."""

    model_targets: Mapping[str, float]
    obtained: Mapping[str, float]
    distance: float


@dataclass(frozen=True, kw_only=True)
class Refined:
    """The sample that came nearest to its ``targets``, and the passes that it took to find it: the
    first is what is drawn without ``refine``."""

    sample: Any
    targets: Mapping[str, float]
    passes: Sequence[Pass]

    def after(self, count: int) -> Pass:
        """The nearest pass, had there been at most ``count`` after the first."""
        return min(self.passes[: count + 1], key=lambda one: one.distance)

    @property
    def nearest(self) -> Pass:
        return self.after(len(self.passes))

    @property
    def reached(self) -> bool:
        """Whether it is within the tolerance."""
        return self.nearest.distance <= TOLERANCE


@dataclass(kw_only=True)
class _Row:
    """One sample on its way."""

    prompt: str
    seed: int
    targets: Mapping[str, float]
    names: Sequence[str]  # the rewards that are moved
    search: Search
    sample: Any = None
    passes: list[Pass] = field(default_factory=list)

    def ask(self) -> dict[str, float] | None:
        found = self.search.ask()
        return None if found is None else dict(zip(self.names, found.tolist(), strict=True))

    def tell(self, sample: Any, model_targets: Mapping[str, float], z: Mapping[str, float]) -> None:
        self.search.tell(list(model_targets.values()), [z[name] for name in self.names])
        last = len(self.passes)
        if self.search.nearest == last:
            self.sample = sample
        obtained = {name: z[name] for name in self.names}
        distance = float(self.search.distances[last])
        self.passes.append(Pass(model_targets=model_targets, obtained=obtained, distance=distance))


def check_passes(passes: Any) -> int:
    """The number, if samples can be refined in so many passes; InputError."""
    whole = isinstance(passes, Integral) and not isinstance(passes, bool)
    if not whole or not 1 <= passes <= MOST_PASSES:
        raise InputError(f"refine {passes!r}: give 1 to {MOST_PASSES}")
    return int(passes)


def check_refine(space: RewardSpace, names: Collection[str], scorers: Sequence[Scorer]) -> None:
    """InputError unless samples can be refined to targets of these rewards; ``scorers``: those of
    all rewards of the space."""
    if not names:
        raise InputError("refine: nothing is asked for; give targets or a preference")
    if compared := [name for name in names if name in space.centred]:
        raise InputError(
            f"refine: {compared[0]} is compared within its prompt, where one sample has no z; "
            "leave it on auto"
        )
    for name, scorer in zip(space.names, scorers, strict=True):
        if name in names and is_stand_in(scorer):
            raise InputError(
                f"refine: the scorer of {name} cannot be loaded here; leave {name} on auto, or "
                "see to its package, weights or server"
            )


def refined_samples(
    model: Model,
    sampler: Sampler,
    scorers: Sequence[Scorer],
    prompts: Sequence[str],
    targets: Sequence[Mapping[str, float]],
    seeds: Sequence[int],
    *,
    passes: int,
    batch_size: int = BATCH,
    show: bool = True,
) -> list[Refined]:
    """N samples, one for each prompt, targets in z and seed, each drawn up to ``passes`` times more
    until it is within the tolerance; ``batch_size`` at a time.

    ``model`` is the sampler's, with an adapter; ``scorers`` are those of all rewards of its space,
    of which those asked for are called. The first drawing is that of a model asked for the targets;
    the others move what the model reads of them, and rewards on auto stay on auto. InputError for
    what cannot be refined. ``show``: whether progress is told.
    """
    adapter = model.adapter
    assert adapter is not None
    space = adapter.space
    asked = [name for name in space.names if any(name in each for each in targets)]
    check_passes(passes)
    check_refine(space, asked, scorers)
    using = [scorers[space.names.index(name)] for name in asked]
    rows = [
        _row(known, prompt, seed, wanted)
        for known, prompt, seed, wanted in zip(
            model.adapters_for(prompts), prompts, seeds, targets, strict=True
        )
    ]
    total = len(rows) * (passes + 1)
    with model.uncalibrated(), tracking("refine", total, unit="sample", show=show) as tracker:
        for _ in range(passes + 1):
            todo = [(row, asks) for row in rows if (asks := row.ask()) is not None]
            for i in range(0, len(todo), batch_size):
                some = todo[i : i + batch_size]
                given = [row.prompt for row, _ in some]
                made = sampler.sample(given, [asks for _, asks in some], [r.seed for r, _ in some])
                z = _measured(sampler, space, asked, using, given, made)
                for (row, asks), sample, obtained in zip(some, made, z, strict=True):
                    row.tell(sample, asks, obtained)
                tracker.advance(len(some))
            tracker.advance(len(rows) - len(todo))
    return [Refined(sample=row.sample, targets=row.targets, passes=row.passes) for row in rows]


def _row(adapter: Adapter, prompt: str, seed: int, targets: Mapping[str, float]) -> _Row:
    """``adapter``: as it is calibrated for the prompt."""
    start = adapter.model_targets(adapter.used(targets))
    names, conditioner = list(start), adapter.conditioner  # not those that nobody reads

    def read(model_targets: np.ndarray) -> np.ndarray:
        pairs = zip(names, model_targets.tolist(), strict=True)
        return np.array(list(conditioner.used(dict(pairs)).values()))

    axes = [Axis.of(adapter.calibration.get(name), *adapter.space.range(name)) for name in names]
    wanted = [targets[name] for name in names]
    return _Row(
        prompt=prompt,
        seed=seed,
        targets=targets,
        names=names,
        search=Search(wanted, list(start.values()), axes, read),
    )


def _measured(
    sampler: Sampler,
    space: RewardSpace,
    names: Sequence[str],
    scorers: Sequence[Scorer],
    prompts: Sequence[str],
    samples: Sequence[Any],
) -> list[dict[str, float]]:
    """What N samples obtained, in z, of these rewards."""
    z = space.subset(names).normalize(scores_of(samples, prompts, scorers))
    rejected = [sampler.medium.reject_reason(sample) is not None for sample in samples]
    z[rejected] = math.nan
    return [dict(zip(names, row, strict=True)) for row in z.tolist()]


def by_refinement(model: Model, sampler: Sampler, scorers: Sequence[Scorer], passes: int) -> Draw:
    """Draw from a model that is asked for a point's targets, refined in so many ``passes``."""

    def draw(points: Sequence[Point], prompts: Sequence[str], seeds: Sequence[int]) -> list[Any]:
        asked = [point.targets for point in points]
        found = refined_samples(
            model, sampler, scorers, prompts, asked, seeds, passes=passes,
            batch_size=len(points), show=False,
        )  # fmt: skip
        return [one.sample for one in found]

    return draw
