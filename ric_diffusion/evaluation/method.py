"""Methods: whatever turns a preference into samples, an adapter as well as a baseline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Protocol

import numpy as np

from ric_diffusion.adapters.adapter import Adapter
from ric_diffusion.evaluation.grid import Point
from ric_diffusion.models.cost import Meter
from ric_diffusion.models.protocol import Sampler
from ric_diffusion.rewards import RewardSpace

Draw = Callable[[Sequence[Point], Sequence[str], Sequence[int]], list[Any]]


def _nothing() -> None:
    """Of a method whose sampler is ready as it is."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to answer a preference, under evaluation.

    Attributes:
        name: as the report has it.
        points: what is asked, those of the preference sweep first.
        draw: N points, prompts and seeds -> N samples.
        sampler: reads, writes and judges the samples.
        about: plain data naming all that the samples depend on, weights included: a method with
            other data is another method.
        space: in whose z the targets are; None without targets.
        meter: counts what drawing costs, to the networks of the sampler and to whatever else was
            metered with it.
        elsewhere: plain data by which another process makes the same sampler; None if only this one
            has it.
        prepare: called before anything is drawn or judged. Methods that share a model load their
            adapter in it.
    """

    name: str
    points: Sequence[Point]
    draw: Draw
    sampler: Sampler
    about: Mapping[str, Any]
    space: RewardSpace | None = None
    meter: Meter = field(default_factory=Meter)
    elsewhere: Mapping[str, Any] | None = None
    prepare: Callable[[], None] = _nothing

    @property
    def preferences(self) -> int:
        """How many points the preference sweep has."""
        return sum(point.along is None for point in self.points)


def by_targets(
    sampler: Sampler, adapters_for: Callable[[Sequence[str]], Sequence[Adapter]] | None = None
) -> Draw:
    """Draw from a model that is asked for a point's targets.

    ``adapters_for``: the model's. A sweep asks on purpose for more than calibration says can be
    had of a prompt; the model is given what it would use instead, so that it need not warn of each.
    """

    def draw(points: Sequence[Point], prompts: Sequence[str], seeds: Sequence[int]) -> list[Any]:
        asked = [point.targets for point in points]
        if adapters_for is not None:
            pairs = zip(adapters_for(prompts), asked, strict=True)
            asked = [adapter.reachable(targets) for adapter, targets in pairs]
        return sampler.sample(prompts, asked, seeds)

    return draw


class PreferenceSampler(Protocol):
    """Draws for a preference itself, without targets."""

    def draw(
        self, preference: Mapping[str, float], prompts: Sequence[str], seeds: Sequence[int]
    ) -> list[Any]:
        """One sample per prompt, each from its own seed, all for the same preference."""


def by_preference(source: PreferenceSampler) -> Draw:
    """Draw from what is asked for a point's preference, {} where it has none. Neighbours with one
    preference are drawn together."""

    def draw(points: Sequence[Point], prompts: Sequence[str], seeds: Sequence[int]) -> list[Any]:
        samples: list[Any] = []
        for preference, group in groupby(point.preference for point in points):
            some = slice(len(samples), len(samples) + len(list(group)))
            samples += source.draw(preference or {}, prompts[some], seeds[some])
        return samples

    return draw


def weights_of(preference: Mapping[str, float], space: RewardSpace) -> np.ndarray:
    """The weights (n,) in the order of the space, sum 1; InputError if the preference is none."""
    given = space.check_preference(preference)
    weights = np.array([given.get(name, 0.0) for name in space.names])
    weights /= weights.max()  # first, since the sum of huge weights overflows
    return weights / weights.sum()
