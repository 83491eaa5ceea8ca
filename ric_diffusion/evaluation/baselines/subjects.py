"""Adapters and baselines as subjects of one evaluation.

Samples depend on files; their digests are in ``about``, so that those drawn with other weights are
never taken for these.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ric_diffusion import config
from ric_diffusion.cost import Meter
from ric_diffusion.diffusion.adapter import ABOUT_FILE, Adapter
from ric_diffusion.diffusion.pipeline import RiCStableDiffusionPipeline
from ric_diffusion.diffusion.sampler import DiffusionSampler
from ric_diffusion.evaluation.baselines.base import base_digests
from ric_diffusion.evaluation.methods import Method, by_preference
from ric_diffusion.evaluation.subject import Point, Subject, by_targets, slider_points
from ric_diffusion.evaluation.sweep import preference_line
from ric_diffusion.rewards import RewardSpace


def adapter_subject(
    name: str,
    pipe: RiCStableDiffusionPipeline,
    folder: Path,
    sampling: Mapping[str, Any],
    count: int,
    *,
    mapping: str | None = None,
) -> Subject:
    """The adapter in ``folder``, which the caller loads into ``pipe`` before it is evaluated.

    ``count`` preferences, then each reward alone; under a ``mapping`` in place of the adapter's
    own, which only preferences depend on, the preferences alone. ``pipe`` has no adapter yet.
    """
    adapter = Adapter.load(folder)
    points = slider_points(adapter.space, mapping or adapter.mapping, count)
    if mapping:
        points = [point for point in points if point.along is None]
    sampler = DiffusionSampler(pipe, sampling)
    return Subject(
        name=name,
        points=points,
        draw=by_targets(sampler),
        sampler=sampler,
        space=adapter.space,
        about={
            "mode": adapter.conditioner.mode,
            "mapping": mapping or adapter.mapping,
            "sampling": dict(sampling),
            "weights": weights_of(
                pipe, [*sorted(folder.glob("*.safetensors")), folder / ABOUT_FILE]
            ),
        },
    )


def method_subject(
    name: str,
    method: Method,
    pipe: RiCStableDiffusionPipeline,
    sampling: Mapping[str, Any],
    points: Sequence[Point],
    files: Sequence[Path] = (),
    *,
    meter: Meter | None = None,
    **about: Any,
) -> Subject:
    """A method that is asked for the preferences of ``points`` and draws from ``pipe``.

    ``files`` and ``about``: all that its samples depend on besides the model and ``sampling``;
    ``meter`` the one that its scorers count with.
    """
    return Subject(
        name=name,
        points=points,
        draw=by_preference(method),
        sampler=DiffusionSampler(pipe, sampling),
        meter=meter or Meter(),
        about={**about, "sampling": dict(sampling), "weights": weights_of(pipe, files)},
    )


def preference_points(space: RewardSpace, count: int) -> list[Point]:
    """The preferences of ``slider_points`` for methods without targets."""
    return [Point(preference=preference) for preference in preference_line(space.names, count)]


def weights_of(pipe: RiCStableDiffusionPipeline, files: Sequence[Path]) -> str:
    """Names the base model's weights together with the content of the files."""
    content = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    return config.digest([base_digests(pipe), content])[:16]
