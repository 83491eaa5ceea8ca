"""What the parts of a benchmark found, kept as numbers: tables can be made of them anywhere,
without the runs and the samples.

SCORES/NAME holds what one training of a part's methods gave: run.json says what that depends on,
methods.json is a list of ``Kept``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ric_diffusion.evaluation.calibration import Calibration
from ric_diffusion.evaluation.config import EvaluationConfig
from ric_diffusion.evaluation.grid import Point
from ric_diffusion.evaluation.metrics import Array
from ric_diffusion.evaluation.runner import MethodScores, sample_files
from ric_diffusion.io import config as configs
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import read_file, write_text
from ric_diffusion.models.cost import Cost
from ric_diffusion.rewards import RewardSpace, calibration

METHODS_FILE = "methods.json"
DIGITS = 6  # of a score: JPEG's bytes are counted, and no interval is as narrow
Curve = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Training:
    """What there is to say of one training of a method, beside its samples.

    Attributes:
        cost: of that training.
        variant: of another method; figures leave it out.
        plain: the name of the method that is the same without the calibration.
        calibration: its own, if it was calibrated.
        parameters: how many numbers were trained, where methods are compared by that.
        curves: by what they are for, iterations (T,) and mean rewards (T,) of the runs behind it.
    """

    cost: Cost = field(default_factory=Cost)
    variant: bool = False
    plain: str | None = None
    calibration: Calibration | None = None
    parameters: int | None = None
    curves: Mapping[str, Curve] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Kept(Training):
    """A method as one training left it, measured."""

    scores: MethodScores


@dataclass(frozen=True, kw_only=True)
class _Grid:
    """An array, with None for NaN, which JSON does not know."""

    shape: tuple[int, ...]
    values: tuple[float | None, ...]

    def __post_init__(self) -> None:
        if len(self.values) != math.prod(self.shape):
            raise ValueError(f"values are {len(self.values)}, which are not of shape {self.shape}")

    @classmethod
    def of(cls, array: Array) -> _Grid:
        rounded = [float(f"{value:.{DIGITS}g}") for value in array.ravel().tolist()]
        return cls(
            shape=array.shape,
            values=tuple(value if math.isfinite(value) else None for value in rounded),
        )

    @property
    def array(self) -> Array:
        values = [math.nan if value is None else value for value in self.values]
        return np.array(values, float).reshape(self.shape)


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """``Kept`` as plain data; ``curves``: the rewards, whose iterations count from 1."""

    name: str
    about: Mapping[str, Any]
    points: tuple[Point, ...]
    space: Mapping[str, Any] | None
    scores: _Grid
    held_out: _Grid
    rejected: Mapping[str, int]
    diversity: _Grid
    prompt_r_precision: _Grid
    drawing: Cost
    training: Cost
    variant: bool
    plain: str | None
    calibration: Mapping[str, Any] | None
    parameters: int | None
    curves: Mapping[str, tuple[float, ...]]

    def __post_init__(self) -> None:
        if len(self.scores.shape) != 4:
            raise ValueError(f"scores are of shape {self.scores.shape}; give (P, Q, S, n)")
        points, prompts, seeds, _ = self.scores.shape
        if len(self.points) != points:
            raise ValueError(f"points are {len(self.points)}, the scores have {points}")
        swept = self.prompt_r_precision.shape
        same = swept[1:] == (prompts, seeds) and swept[0] <= points
        if not same or self.held_out.shape[:3] != swept or self.diversity.shape != swept[:2]:
            raise ValueError(
                "held_out, diversity and prompt_r_precision are not of the same points, prompts "
                "and seeds as the scores"
            )
        if self.calibration is not None and "curves" not in self.calibration:
            raise ValueError("calibration: has no curves")


def is_kept(folder: Path) -> bool:
    """Whether ``write_kept`` has written there."""
    return (folder / METHODS_FILE).exists()


def write_kept(folder: Path, found: Sequence[Kept]) -> None:
    """Write the methods of one training, a line for each, last of all that is in the folder."""
    lines = [json.dumps(configs.to_dict(_stored(one)), allow_nan=False) for one in found]
    write_text(folder / METHODS_FILE, "[\n" + ",\n".join(lines) + "\n]\n")


def read_kept(folder: Path, config: EvaluationConfig, suffix: str) -> list[Kept] | None:
    """What ``write_kept`` wrote, None if it did not; ``suffix``: of the samples' files. InputError
    if it is malformed."""
    path = folder / METHODS_FILE
    try:
        stored = json.loads(read_file(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not readable ({error}); remove it to make it anew") from error
    return [
        _kept(one, config, suffix) for one in configs.from_dict(stored, list[_Stored], str(path))
    ]


def _stored(kept: Kept) -> _Stored:
    scores, found = kept.scores, kept.calibration
    plain = None
    if found is not None:
        own = {name: curve.to_dict() for name, curve in found.curves.items()}
        plain = {**configs.to_dict(found), "curves": own, "seeds": list(found.seeds)}
    return _Stored(
        name=scores.name,
        about=configs.to_dict(scores.about),
        points=tuple(scores.points),
        space=None if scores.space is None else scores.space.to_dict(),
        scores=_Grid.of(scores.scores),
        held_out=_Grid.of(scores.held_out),
        rejected=scores.rejected,
        diversity=_Grid.of(scores.diversity),
        prompt_r_precision=_Grid.of(scores.prompt_r_precision),
        drawing=scores.cost,
        training=kept.cost,
        variant=kept.variant,
        plain=kept.plain,
        calibration=plain,
        parameters=kept.parameters,
        curves={name: tuple(rewards.tolist()) for name, (_, rewards) in kept.curves.items()},
    )


def _kept(stored: _Stored, config: EvaluationConfig, suffix: str) -> Kept:
    scores, found = stored.scores.array, None
    points, prompts, seeds, _ = scores.shape
    if stored.calibration is not None:
        curves = calibration.curves(stored.calibration["curves"])
        plain = configs.from_dict(
            {**stored.calibration, "curves": {}}, Calibration, f"{stored.name}: calibration"
        )
        found = replace(plain, curves=curves)
    return Kept(
        scores=MethodScores(
            name=stored.name,
            about=stored.about,
            points=stored.points,
            space=None if stored.space is None else RewardSpace.from_dict(stored.space),
            scores=scores,
            held_out=stored.held_out.array,
            rejected=stored.rejected,
            diversity=stored.diversity.array,
            prompt_r_precision=stored.prompt_r_precision.array,
            files=sample_files(config, (points, prompts, seeds), suffix),
            cost=stored.drawing,
        ),
        cost=stored.training,
        variant=stored.variant,
        plain=stored.plain,
        calibration=found,
        parameters=stored.parameters,
        curves={
            name: (np.arange(len(rewards)) + 1, np.array(rewards))
            for name, rewards in stored.curves.items()
        },
    )
