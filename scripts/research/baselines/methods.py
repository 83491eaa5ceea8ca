"""Baselines as methods of an evaluation.

Samples depend on files; their digests are in ``about``, so that those drawn with other weights are
never taken for these.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from baselines.families import model_of
from ric_diffusion.evaluation.grid import Point
from ric_diffusion.evaluation.method import Method, PreferenceSampler, by_preference
from ric_diffusion.io import config
from ric_diffusion.io.files import digests
from ric_diffusion.models.cost import Meter


def baseline_method(
    name: str,
    source: PreferenceSampler,
    sampler: Any,
    points: Sequence[Point],
    files: Sequence[Path] = (),
    *,
    meter: Meter | None = None,
    **about: Any,
) -> Method:
    """A baseline that is asked for the preferences of ``points`` and draws with ``sampler``, of
    either medium, from the model without an adapter.

    ``files`` and ``about``: all that its samples depend on besides the model and its sampling;
    ``meter`` the one that its scorers count with.
    """
    model = model_of(sampler)
    own = model.family.digests(model)
    return Method(
        name=name,
        points=points,
        draw=by_preference(source),
        sampler=sampler,
        meter=meter or Meter(),
        about={
            **about,
            "sampling": dict(sampler.sampling),
            "weights": config.digest([own, digests(files)])[:16],
        },
        prepare=model.unload_adapter,
    )
