"""Baselines as subjects of an evaluation.

Samples depend on files; their digests are in ``about``, so that those drawn with other weights are
never taken for these.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ric_diffusion import config
from ric_diffusion.cost import Meter
from ric_diffusion.evaluation.baselines.kinds import kind_of
from ric_diffusion.evaluation.methods import Method, by_preference
from ric_diffusion.evaluation.subject import Point, Subject
from ric_diffusion.evaluation.sweep import preference_line
from ric_diffusion.files import digests
from ric_diffusion.rewards import RewardSpace


def method_subject(
    name: str,
    method: Method,
    sampler: Any,
    points: Sequence[Point],
    files: Sequence[Path] = (),
    *,
    meter: Meter | None = None,
    **about: Any,
) -> Subject:
    """A method that is asked for the preferences of ``points`` and draws with ``sampler``, of
    either kind.

    ``files`` and ``about``: all that its samples depend on besides the model and its sampling;
    ``meter`` the one that its scorers count with.
    """
    kind = kind_of(sampler)
    own = kind.digests(kind.model_of(sampler))
    return Subject(
        name=name,
        points=points,
        draw=by_preference(method),
        sampler=sampler,
        meter=meter or Meter(),
        about={
            **about,
            "sampling": dict(sampler.sampling),
            "weights": config.digest([own, digests(files)])[:16],
        },
    )


def preference_points(space: RewardSpace, count: int) -> list[Point]:
    """The preferences of ``slider_points`` for methods without targets."""
    return [Point(preference=preference) for preference in preference_line(space.names, count)]
