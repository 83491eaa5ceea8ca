"""``metrics.json``: what an evaluation found, as types. Every number is finite or None.

z are standard units of one reward space, that of the report, whatever space an adapter was trained
in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ric_diffusion.io.config import from_dict, to_dict
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import read_file, write_json
from ric_diffusion.models.cost import Cost
from ric_diffusion.rewards import Curve

METRICS_FILE = "metrics.json"
SCHEMA_VERSION = 2  # the first edition's files had no version

Number = float | None
Ends = tuple[Number, Number]  # of a range, in z


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure and the ends of its bootstrap interval."""

    value: Number
    low: Number
    high: Number


@dataclass(frozen=True, kw_only=True)
class ScorerInfo:
    """A scorer that no method was trained on; ``scorer`` is its fingerprint."""

    name: str
    unit: str
    scorer: str


@dataclass(frozen=True, kw_only=True)
class RewardInfo:
    """A reward of the report's space: one z is ``std`` of its ``unit``, 0 is ``mean``; ``range`` is
    that of the training data in z, and ``scorer`` its scorer's fingerprint."""

    name: str
    unit: str
    mean: float
    std: float
    range: tuple[float, float]
    scorer: str


@dataclass(frozen=True, kw_only=True)
class Bootstrap:
    """How the intervals were made: ``draws`` of prompts and seeds, at the ``level``."""

    draws: int
    level: float
    seed: int


@dataclass(frozen=True, kw_only=True)
class NearFront:
    """``count`` points of the ``total`` lie on the front or near it."""

    count: int
    total: int


@dataclass(frozen=True, kw_only=True)
class PointResult:
    """One point of a preference sweep.

    Attributes:
        preference: None for a method without sliders.
        targets: in z of the method's own space.
        obtained: mean z by reward, and ``scores`` the same in the scorers' units.
        held_out: mean score by held-out scorer.
        files: Q rows of S samples, below the report's folder.
    """

    preference: Mapping[str, float] | None
    targets: Mapping[str, float]
    obtained: Mapping[str, Estimate]
    scores: Mapping[str, Number]
    on_front: bool
    near_front: bool
    held_out: Mapping[str, Estimate]
    prompt_r_precision: Estimate
    diversity: Estimate
    files: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class ControlResult:
    """One reward moved alone, the others on auto.

    Attributes:
        requested: z, and ``obtained`` the mean z of each request.
        reached: from the lowest to the highest mean obtained.
        reachable: errors are over the requests inside it, the same for all methods.
        error: mean of |mean obtained - requested|, and ``sample_error`` that of single samples.
        saturation: fraction of the requested range outside the reached one.
        spearman_of_means: rank correlation of the requests with the means.
        spearman_per_sample: median of the same over single prompts and seeds.
    """

    reward: str
    requested: tuple[float, ...]
    obtained: tuple[Estimate, ...]
    reached: Ends
    reachable: Ends
    error: Estimate
    sample_error: Estimate
    saturation: Estimate
    spearman_of_means: Number
    spearman_per_sample: Number


@dataclass(frozen=True, kw_only=True)
class MethodResult:
    """What came of one method.

    Attributes:
        about: plain data that names all that its samples depend on.
        hypervolume: of the preference sweep's means above the reference point.
        hypervolume_ratio: to that of the report's first method, paired; None for that one.
        points: the preference sweep, and ``control`` each reward moved alone.
        samples: how many were drawn; ``rejected`` of them, by reason.
        cost: of drawing; ``training_cost`` where it is known.
    """

    name: str
    about: Mapping[str, Any]
    hypervolume: Estimate
    hypervolume_ratio: Estimate | None
    near_front: NearFront
    points: tuple[PointResult, ...]
    control: tuple[ControlResult, ...]
    diversity: Estimate
    prompt_r_precision: Estimate
    samples: int
    rejected: Mapping[str, int]
    cost: Cost
    training_cost: Cost | None = None

    def control_of(self, reward: str) -> ControlResult | None:
        """The sweep along this reward, None for a method that cannot move it."""
        return next((sweep for sweep in self.control if sweep.reward == reward), None)


@dataclass(frozen=True, kw_only=True)
class RewardCalibration:
    """A calibrated reward: its ``reachable`` range in z, its average curve, and the error of the
    slider over that without calibration.

    ``left_out``: where calibration knows the prompt, the mean error of single samples of prompts
    that were left out of its fit: by the average curve, and with the prompt.
    """

    reward: str
    reachable: tuple[float, float]
    curve: Curve
    error_ratio: Estimate
    left_out: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class CalibrationResult:
    """What was calibrated on other samples than the report's, and what came of it.

    Attributes:
        methods: the names of the two that are compared, without calibration and with it; none
            where nothing could be calibrated.
        average: the name of the method with the average curves alone, where the calibrated one
            knows the prompt besides.
        seeds: those of the first prompt.
        error: of all calibrated sliders together, and ``error_ratio`` that over the one without.
        uncalibrated: rewards where what is obtained does not rise with what is asked.
    """

    methods: tuple[str, ...]
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    cost: Cost
    error: Estimate | None
    error_ratio: Estimate | None
    rewards: tuple[RewardCalibration, ...]
    uncalibrated: tuple[str, ...]
    average: str | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluationResult:
    """A report on methods for one model, on the same prompts and seeds.

    Attributes:
        model: how the user called it.
        versions: of the software, by name.
        seeds: those of the first prompt.
        training_front: (F, n) in z, the front of the training data.
        reference: (n,) in z, what hypervolumes are measured from.
        methods: ratios are to the first of them.
    """

    schema_version: int = SCHEMA_VERSION
    model: str
    versions: Mapping[str, str]
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    rewards: tuple[RewardInfo, ...]
    held_out: tuple[ScorerInfo, ...]
    training_front: tuple[tuple[float, ...], ...]
    reference: tuple[float, ...]
    bootstrap: Bootstrap
    methods: tuple[MethodResult, ...]
    calibration: CalibrationResult | None = None

    def method(self, name: str) -> MethodResult | None:
        """The method of this name, if it was measured."""
        return next((method for method in self.methods if method.name == name), None)

    def calibration_errors(self, reward: str) -> tuple[Estimate, Estimate]:
        """The control errors that the calibration of a reward is judged by: without it, with it.
        ValueError if the report has none of it."""
        names = self.calibration.methods if self.calibration else ()
        sweeps = [m.control_of(reward) for name in names if (m := self.method(name))]
        found = [sweep.error for sweep in sweeps if sweep is not None]
        if len(found) != 2:
            raise ValueError(f"{reward} is not calibrated in this report")
        return found[0], found[1]

    def sample_errors(self, reward: str) -> list[Estimate]:
        """The errors of single samples of a calibrated reward: without calibration, with the
        average curve where that was measured, with all of it. Empty without a calibration."""
        if self.calibration is None or not self.calibration.methods:
            return []
        without, calibrated = self.calibration.methods
        named = (without, self.calibration.average, calibrated)
        methods = [method for name in named if name and (method := self.method(name))]
        sweeps = [method.control_of(reward) for method in methods]
        return [sweep.sample_error for sweep in sweeps if sweep is not None]

    def save(self, path: Path) -> None:
        """Write it as JSON, in one move."""
        write_json(path, to_dict(self))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what ``save`` wrote. InputError if it is missing, malformed, or of a release with
        another schema."""
        try:
            stored = json.loads(read_file(path))
        except OSError as error:
            raise InputError(
                f"{path}: cannot be read ({error.strerror}); make a report with ric evaluate"
            ) from None
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{path}: not valid JSON ({error}); make the report again with ric evaluate"
            ) from None
        version = stored.get("schema_version") if isinstance(stored, dict) else None
        if version != SCHEMA_VERSION:
            raise InputError(
                f"{path}: schema_version is {version}, and this release reads {SCHEMA_VERSION}; "
                "make the report again with ric evaluate"
            )
        return from_dict(stored, cls, str(path))
