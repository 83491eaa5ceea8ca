"""From the scores of several methods to the report's typed result.

Everything is in z of one reward space, the config's, whatever space a method was trained in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ric_diffusion.evaluation import metrics
from ric_diffusion.evaluation.calibration import Calibration
from ric_diffusion.evaluation.config import EvaluationConfig
from ric_diffusion.evaluation.metrics import Array, Interval, interval, means_of, ratio_interval
from ric_diffusion.evaluation.report.schema import (
    Bootstrap,
    CalibrationResult,
    ControlResult,
    Estimate,
    EvaluationResult,
    MethodResult,
    NearFront,
    PointResult,
    RewardCalibration,
    RewardInfo,
    ScorerInfo,
)
from ric_diffusion.evaluation.runner import MethodScores, folder_of
from ric_diffusion.evaluation.standard import Standard
from ric_diffusion.io.progress import tracked
from ric_diffusion.rewards import Curve, RewardSpace


def summarise(
    scores: Sequence[MethodScores],
    config: EvaluationConfig,
    out: Path,
    *,
    model: str,
    versions: Mapping[str, str],
    calibration: Calibration | None = None,
) -> EvaluationResult:
    """The result of a report in ``out`` on methods for ``model``.

    Ratios are to the first method. ``versions``: of the software, by name.
    """
    space = config.space
    standard = Standard.of(space, [one.scores for one in scores])
    curves = calibration.curves if calibration else {}
    reachable = {name: _common_range(scores, name, standard) for name in space.names}
    reachable |= {name: curve.reachable for name, curve in curves.items()}
    methods = tuple(
        _method(
            one, scores[0], config, standard, reachable, folder_of(out, one.name).relative_to(out)
        )
        for one in tracked(scores, "intervals", unit="method")
    )
    return EvaluationResult(
        model=model,
        versions=dict(versions),
        prompts=tuple(config.prompts),
        seeds=tuple(config.seeds),
        rewards=tuple(
            RewardInfo(
                name=reward.name,
                unit=reward.scale,
                mean=reward.mean,
                std=reward.std,
                range=space.range(reward.name),
                scorer=reward.fingerprint,
            )
            for reward in space.rewards
        ),
        held_out=tuple(
            ScorerInfo(name=scorer.name, unit=scorer.unit, scorer=scorer.fingerprint)
            for scorer in config.held_out
        ),
        training_front=tuple(tuple(point) for point in space.front),
        reference=tuple(metrics.reference_point(len(space.names)).tolist()),
        bootstrap=Bootstrap(draws=metrics.DRAWS, level=metrics.LEVEL, seed=0),
        methods=methods,
        calibration=_calibration(calibration, scores, standard) if calibration else None,
    )


def _calibration(
    calibration: Calibration, scores: Sequence[MethodScores], standard: Standard
) -> CalibrationResult:
    """What was calibrated, and how the error with it compares to that without."""
    curves = calibration.curves
    pair = [scores[i] for i in calibration.pair] if curves else []
    error, ratio = map(estimate, _errors(pair, curves, standard)) if curves else (None, None)
    return CalibrationResult(
        methods=tuple(one.name for one in pair),
        prompts=tuple(calibration.prompts),
        seeds=tuple(calibration.seeds),
        cost=calibration.cost,
        error=error,
        error_ratio=ratio,
        rewards=tuple(
            RewardCalibration(
                reward=name,
                reachable=curve.reachable,
                curve=replace(curve, prompt=None),
                error_ratio=estimate(_errors(pair, {name: curve}, standard)[1]),
                left_out=curve.prompt.errors if curve.prompt else None,
            )
            for name, curve in curves.items()
        ),
        uncalibrated=tuple(name for name in standard.space.names if name not in curves),
        average=None if calibration.average is None else scores[calibration.average].name,
    )


def _errors(
    pair: Sequence[MethodScores], curves: Mapping[str, Curve], standard: Standard
) -> tuple[Interval, Interval]:
    """Control error of the second method along all these rewards, and that over the first's, by
    the same requests."""
    (requested, without), (_, calibrated) = (
        map(np.concatenate, zip(*(alone(one, name, standard) for name in curves), strict=True))
        for one in pair
    )
    each = len(requested) // len(curves)  # as many requests along every reward
    low, high = np.repeat([curve.reachable for curve in curves.values()], each, axis=0).T

    def error(some: Array) -> float:
        return metrics.control_error(requested, means_of(some)[:, 0], (low, high))

    z, other = calibrated[..., None], without[..., None]
    return interval(z, error), ratio_interval(z, other, error)


def preference_z(scores: MethodScores, standard: Standard) -> Array:
    """z (R, Q, S, n) of the preference sweep, whose points come first."""
    return standard.z(scores.scores)[: len(scores.diversity)]


def _common_range(scores: Sequence[MethodScores], name: str, standard: Standard) -> metrics.Ends:
    """From the lowest to the highest mean that any of the methods obtains with this slider: errors
    over what each reaches itself would favour those that reach little. NaN without sliders."""
    means = [means_of(alone(one, name, standard)[1][..., None])[:, 0] for one in scores]
    return metrics.reached_range(np.concatenate(means))


def in_space(value: float, name: str, own: RewardSpace, space: RewardSpace) -> float:
    """A z of one reward in a method's own space, in z of another space."""
    theirs, ours = (s.rewards[s.names.index(name)] for s in (own, space))
    score = value * theirs.std + theirs.mean
    if theirs.centring and ours.centring:  # each rescales what it compares to its own spread
        score *= ours.centring.within / theirs.centring.within
    return (score - ours.mean) / ours.std


def alone(scores: MethodScores, name: str, standard: Standard) -> tuple[Array, Array]:
    """One reward moved alone: requested (P,) and obtained (P, Q, S), both in z of the standard's
    space; P is 0 for a method without its slider."""
    space = standard.space
    rows = [p for p, point in enumerate(scores.points) if point.along == name]
    own = scores.space or space
    asked = [in_space(scores.points[p].targets[name], name, own, space) for p in rows]
    return np.array(asked), standard.z(scores.scores)[rows, ..., space.names.index(name)]


def _method(
    scores: MethodScores,
    first: MethodScores,
    config: EvaluationConfig,
    standard: Standard,
    reachable: Mapping[str, metrics.Ends],
    folder: Path,
) -> MethodResult:
    """``folder``: the method's, below the report's."""
    space = config.space
    z = preference_z(scores, standard)
    ratio = None
    if scores is not first:
        ratio = estimate(ratio_interval(z, preference_z(first, standard), metrics.volume_of))
    near = metrics.near_front(means_of(z))
    return MethodResult(
        name=scores.name,
        about=dict(scores.about),
        hypervolume=estimate(interval(z, metrics.volume_of)),
        hypervolume_ratio=ratio,
        near_front=NearFront(count=int(near.sum()), total=len(near)),
        points=_points(scores, z, config, folder),
        control=tuple(
            _control(*alone(scores, name, standard), name, reachable[name])
            for name in space.names
            if any(point.along == name for point in scores.points)
        ),
        diversity=estimate(interval(scores.diversity[..., None, None], overall)),
        prompt_r_precision=estimate(interval(scores.prompt_r_precision[..., None], overall)),
        samples=math.prod(scores.scores.shape[:3]),
        rejected=dict(scores.rejected),
        cost=scores.cost,
    )


def overall(values: Array) -> float:
    """Mean over points of their means, (P, Q, S, 1) → a number; NaN of nothing."""
    means = means_of(values)
    return float(means[np.isfinite(means)].mean()) if np.isfinite(means).any() else math.nan


def _points(
    scores: MethodScores, z: Array, config: EvaluationConfig, folder: Path
) -> tuple[PointResult, ...]:
    """The preference sweep, point by point, with the files that show it."""
    names, held_out = config.space.names, [scorer.name for scorer in config.held_out]
    means = means_of(z)
    on, near = metrics.front_mask(means), metrics.near_front(means)
    obtained = interval(z, means_of)
    others = interval(scores.held_out, means_of)
    precision = interval(scores.prompt_r_precision[..., None], means_of)
    diversity = interval(scores.diversity[..., None, None], means_of)
    raw = means_of(scores.scores[: len(z)])
    return tuple(
        PointResult(
            preference=None if point.preference is None else dict(point.preference),
            targets=dict(point.targets),
            obtained={name: estimate(obtained, p, i) for i, name in enumerate(names)},
            scores={name: finite(raw[p, i]) for i, name in enumerate(names)},
            on_front=bool(on[p]),
            near_front=bool(near[p]),
            held_out={name: estimate(others, p, i) for i, name in enumerate(held_out)},
            prompt_r_precision=estimate(precision, p, 0),
            diversity=estimate(diversity, p, 0),
            files=tuple(tuple(str(folder / file) for file in row) for row in scores.files[p]),
        )
        for p, point in enumerate(scores.points[: len(z)])
    )


def _control(requested: Array, z: Array, name: str, reachable: metrics.Ends) -> ControlResult:
    """One reward moved alone: requested (P,) against obtained (P, Q, S).

    ``reachable``: where requests can be had; they are what errors count over.
    """
    grid = z[..., None]

    def error(some: Array) -> float:
        return metrics.control_error(requested, means_of(some)[:, 0], reachable)

    def sample_error(some: Array) -> float:
        return metrics.sample_error(requested, some[..., 0], reachable)

    def saturation(some: Array) -> float:
        return metrics.saturation(requested, means_of(some)[:, 0])

    obtained = interval(grid, means_of)
    low, high = metrics.reached_range(means_of(grid)[:, 0])
    of_means, per_sample = metrics.rank_control(requested, z)
    return ControlResult(
        reward=name,
        requested=tuple(requested.tolist()),
        obtained=tuple(estimate(obtained, p, 0) for p in range(len(requested))),
        reached=(finite(low), finite(high)),
        reachable=(finite(reachable[0]), finite(reachable[1])),
        error=estimate(interval(grid, error)),
        sample_error=estimate(interval(grid, sample_error)),
        saturation=estimate(interval(grid, saturation)),
        spearman_of_means=finite(of_means),
        spearman_per_sample=finite(per_sample),
    )


def estimate(found: Interval, *index: int) -> Estimate:
    """A statistic, or one of its elements, with its interval."""
    value, low, high = (
        finite(float(array[index])) for array in (found.value, found.low, found.high)
    )
    return Estimate(value=value, low=low, high=high)


def finite(value: float) -> float | None:
    """None for what JSON has no number for."""
    return float(value) if math.isfinite(value) else None
