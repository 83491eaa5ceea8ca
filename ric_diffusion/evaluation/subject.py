"""What is evaluated, on what, and what comes of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ric_diffusion.backend import Sampler
from ric_diffusion.cost import Cost, Meter
from ric_diffusion.errors import InputError
from ric_diffusion.evaluation.metrics import Array
from ric_diffusion.evaluation.sweep import preference_line, target_line
from ric_diffusion.rewards import RewardSpace, to_targets

SETTINGS = "settings.json"


@dataclass(frozen=True, kw_only=True)
class Point:
    """What is asked of a subject: targets in its own z, and the preference they come of.

    ``along`` is the one reward that is moved, the others on auto; None in the preference sweep. A
    model without sliders has one point, with neither targets nor preference.
    """

    targets: Mapping[str, float] = field(default_factory=dict)
    preference: Mapping[str, float] | None = None
    along: str | None = None


def slider_points(space: RewardSpace, mapping: str, count: int) -> list[Point]:
    """The preference sweep of a model with sliders, then each reward moved alone."""
    line = [{name: 1.0} for name in space.names]  # of one reward: nothing to weigh it against
    if len(line) > 1:
        line = preference_line(space.names, count)
    preferences = [Point(targets=to_targets(p, space, mapping), preference=p) for p in line]
    alone = [
        Point(targets=target, along=name)
        for name in space.names
        for target in target_line(space, name, count)
    ]
    return preferences + alone


Draw = Callable[[Sequence[Point], Sequence[str], Sequence[int]], list[Any]]


def by_targets(sampler: Sampler) -> Draw:
    """Draw from a model that is asked for a point's targets; for methods that are asked for its
    preference there is ``methods.by_preference``."""
    return lambda points, prompts, seeds: sampler.sample(
        prompts, [point.targets for point in points], seeds
    )


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model, or any other method, under evaluation.

    ``points``: those of the preference sweep first. ``draw``: N points, prompts and seeds → N
    samples. ``sampler`` writes, reads and judges them. ``space``: in whose z the targets are, None
    without targets. ``about``: plain data naming all that the samples depend on, weights included:
    another one is another evaluation. ``meter`` counts what drawing costs, to the networks of the
    sampler and to whatever else was metered with it.
    """

    name: str
    points: Sequence[Point]
    draw: Draw
    sampler: Sampler
    about: Mapping[str, Any]
    space: RewardSpace | None = None
    meter: Meter = field(default_factory=Meter)

    @property
    def preferences(self) -> int:
        """How many points the preference sweep has."""
        return sum(point.along is None for point in self.points)


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What all subjects of a report share: Q prompts, S seeds each, the scorers of the n rewards of
    ``space``, and h held-out ones, which no subject was trained on. ``seeds`` are those of the
    first prompt."""

    space: RewardSpace
    prompts: Sequence[str]
    seeds: Sequence[int]
    scorers: Sequence[Any]
    held_out: Sequence[Any] = ()
    batch_size: int = 32

    def seed(self, q: int, s: int) -> int:
        """The ``s``-th seed of prompt ``q``. No two prompts share one: what a noise does to all
        prompts alike would else stay in every mean."""
        return self.seeds[s] + q * len(self.seeds)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was found for one subject with P points, the first R of them its preference sweep.

    ``scores`` (P, Q, S, n) and ``held_out`` (R, Q, S, h) in the scorers' units, NaN where a sample
    has a fault; ``faults``: how many samples have which; ``diversity`` (R, Q); ``kept`` (R, Q, S),
    the prompt figure; ``files`` [P][Q][S], below the subject's folder; ``cost`` of drawing.
    """

    name: str
    about: Mapping[str, Any]
    points: Sequence[Point]
    space: RewardSpace | None
    scores: Array
    held_out: Array
    faults: Mapping[str, int]
    diversity: Array
    kept: Array
    files: list[list[list[str]]]
    cost: Cost


def folder_of(out: Path, name: str) -> Path:
    """Where the subject of this name keeps its samples and journals, below a report's folder."""
    return out / "models" / (re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-") or "model")


def settings_of(subject: Subject, setup: Setup) -> dict[str, Any]:
    """All that a folder's samples and scores depend on, as plain JSON data."""
    settings = {
        "model": dict(subject.about),
        "points": [asdict(point) for point in subject.points],
        "prompts": list(setup.prompts),
        "seeds": [
            [setup.seed(q, s) for s in range(len(setup.seeds))] for q in range(len(setup.prompts))
        ],
        "scorers": [scorer.fingerprint for scorer in setup.scorers],
        "held-out scorers": [scorer.fingerprint for scorer in setup.held_out],
        "batch size": setup.batch_size,
    }
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain


def check_folder(subject: Subject, setup: Setup, folder: Path) -> None:
    """InputError if the folder holds an evaluation with other settings. Writes nothing."""
    try:
        stored = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
    except ValueError:
        stored = None
    if not isinstance(stored, dict):
        stored = {}
    ours = settings_of(subject, setup)
    if changed := [key for key in ours if key not in stored or stored[key] != ours[key]]:
        raise InputError(
            f"{folder}: holds an evaluation with other {', '.join(changed)}; choose another --out, "
            "or delete that folder"
        )
