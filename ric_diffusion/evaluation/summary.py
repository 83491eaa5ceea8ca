"""From the outcomes of several subjects to ``metrics.json``: plain data that the report is made of.

Everything is in z of one reward space, the setup's, whatever space a model was trained in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ric_diffusion.evaluation import metrics
from ric_diffusion.evaluation.calibration import Calibration
from ric_diffusion.evaluation.metrics import Array, Interval, interval, means_of, ratio_interval
from ric_diffusion.evaluation.subject import Outcome, Setup, folder_of
from ric_diffusion.rewards import Curve, RewardSpace


def summarise(
    outcomes: Sequence[Outcome],
    setup: Setup,
    out: Path,
    *,
    model: str,
    versions: Mapping[str, str],
    calibration: Calibration | None = None,
) -> dict[str, Any]:
    """``metrics.json`` of a report in ``out`` on adapters or methods for ``model``.

    Ratios are to the first outcome. ``versions``: of the software, by name. Numbers are
    finite or None.
    """
    space = setup.space
    curves = calibration.curves if calibration else {}
    reach = {name: _common_reach(outcomes, name, space) for name in space.names}
    reach |= {name: curve.reach for name, curve in curves.items()}
    models = []
    for outcome in tqdm(outcomes, desc="intervals", unit="model"):
        folder = folder_of(out, outcome.name)
        models.append(_model(outcome, outcomes[0], setup, reach, folder, out))
    return {
        "model": model,
        "versions": dict(versions),
        "prompts": list(setup.prompts),
        "seeds": list(setup.seeds),
        "rewards": [
            {
                "name": reward.name,
                "unit": reward.unit,
                "mean": reward.mean,
                "std": reward.std,
                "range": list(space.range(reward.name)),
                "scorer": reward.fingerprint,
            }
            for reward in space.rewards
        ],
        "held_out": [
            {"name": scorer.name, "unit": scorer.unit, "scorer": scorer.fingerprint}
            for scorer in setup.held_out
        ],
        "training_front": [list(point) for point in space.front],
        "reference": metrics.reference_point(len(space.names)).tolist(),
        "bootstrap": {"draws": metrics.DRAWS, "level": metrics.LEVEL, "seed": 0},
        "models": models,
        "calibration": calibration and _calibration(calibration, outcomes, space),
    }


def _calibration(
    calibration: Calibration, outcomes: Sequence[Outcome], space: RewardSpace
) -> dict[str, Any]:
    """What was calibrated, and how the error with it compares to that without."""
    curves = calibration.curves
    pair = [outcomes[i] for i in calibration.pair] if curves else []
    error, ratio = map(_figures, _errors(pair, curves, space)) if curves else (None, None)
    return {
        "models": [outcome.name for outcome in pair],
        "prompts": list(calibration.prompts),
        "seeds": list(calibration.seeds),
        "cost": calibration.cost.to_dict(),
        "error": error,
        "error_ratio": ratio,
        "rewards": [
            {
                "reward": name,
                "reach": list(curve.reach),
                "curve": curve.to_dict(),
                "error_ratio": _figures(_errors(pair, {name: curve}, space)[1]),
            }
            for name, curve in curves.items()
        ],
        "uncalibrated": [name for name in space.names if name not in curves],
    }


def _errors(
    pair: Sequence[Outcome], curves: Mapping[str, Curve], space: RewardSpace
) -> tuple[Interval, Interval]:
    """Control error of the second outcome along all these rewards, and that over the first's, by
    the same requests."""
    (requested, without), (_, calibrated) = (
        map(np.concatenate, zip(*(alone(one, name, space) for name in curves), strict=True))
        for one in pair
    )
    each = len(requested) // len(curves)  # as many requests along every reward
    low, high = np.repeat([curve.reach for curve in curves.values()], each, axis=0).T

    def error(some: Array) -> float:
        return metrics.control_error(requested, means_of(some)[:, 0], (low, high))

    z, other = calibrated[..., None], without[..., None]
    return interval(z, error), ratio_interval(z, other, error)


def z_of(outcome: Outcome, space: RewardSpace) -> Array:
    """z (P, Q, S, n) of all points, those of the preference sweep first."""
    flat = outcome.scores.reshape(-1, len(space.names))
    return space.normalize(flat).reshape(outcome.scores.shape)


def preference_z(outcome: Outcome, space: RewardSpace) -> Array:
    """z of the preference sweep alone."""
    return z_of(outcome, space)[: len(outcome.diversity)]


def _common_reach(outcomes: Sequence[Outcome], name: str, space: RewardSpace) -> metrics.Ends:
    """From the lowest to the highest mean that any of the models obtains with this slider: errors
    over what each reaches itself would favour those that reach little. NaN without sliders."""
    means = [means_of(alone(one, name, space)[1][..., None])[:, 0] for one in outcomes]
    return metrics.reached_range(np.concatenate(means))


def in_space(value: float, name: str, own: RewardSpace, space: RewardSpace) -> float:
    """A z of one reward in a model's own space, in z of another space."""
    theirs, ours = (s.rewards[s.names.index(name)] for s in (own, space))
    return (value * theirs.std + theirs.mean - ours.mean) / ours.std


def alone(outcome: Outcome, name: str, space: RewardSpace) -> tuple[Array, Array]:
    """One reward moved alone: requested (P,) and obtained (P, Q, S), both in z of ``space``; P is 0
    for a model without its slider."""
    rows = [p for p, point in enumerate(outcome.points) if point.along == name]
    own = outcome.space or space
    asked = [in_space(outcome.points[p].targets[name], name, own, space) for p in rows]
    return np.array(asked), z_of(outcome, space)[rows, ..., space.names.index(name)]


def _model(
    outcome: Outcome,
    first: Outcome,
    setup: Setup,
    reach: Mapping[str, metrics.Ends],
    folder: Path,
    out: Path,
) -> dict[str, Any]:
    space = setup.space
    z = preference_z(outcome, space)
    ratio = None
    if outcome is not first:
        found = ratio_interval(z, preference_z(first, space), metrics.volume_of)
        ratio = _figures(found)
    near = metrics.near_front(means_of(z))
    count = int(np.prod(outcome.scores.shape[:3]))
    return {
        "name": outcome.name,
        "about": dict(outcome.about),
        "hypervolume": _figures(interval(z, metrics.volume_of)),
        "hypervolume_ratio": ratio,
        "near_front": {"count": int(near.sum()), "of": len(near)},
        "points": _points(outcome, z, setup, folder.relative_to(out)),
        "control": [
            _control(*alone(outcome, name, space), name, reach[name])
            for name in space.names
            if any(point.along == name for point in outcome.points)
        ],
        "diversity": _figures(interval(outcome.diversity[..., None, None], _overall)),
        "prompt_kept": _figures(interval(outcome.kept[..., None], _overall)),
        "samples": count,
        "faults": dict(outcome.faults),
        "cost": outcome.cost.to_dict(),
    }


def _overall(values: Array) -> float:
    """Mean over points of their means, (P, Q, S, 1) → a number; NaN of nothing."""
    means = means_of(values)
    return float(means[np.isfinite(means)].mean()) if np.isfinite(means).any() else math.nan


def _points(outcome: Outcome, z: Array, setup: Setup, folder: Path) -> list[dict[str, Any]]:
    """The preference sweep, point by point, with the files that show it."""
    names, held_out = setup.space.names, [scorer.name for scorer in setup.held_out]
    means = means_of(z)
    on, near = metrics.front_mask(means), metrics.near_front(means)
    obtained = interval(z, means_of)
    others = interval(outcome.held_out, means_of)
    kept = interval(outcome.kept[..., None], means_of)
    diversity = interval(outcome.diversity[..., None, None], means_of)
    scores = means_of(outcome.scores[: len(z)])
    return [
        {
            "preference": _maybe_dict(point.preference),
            "targets": dict(point.targets),
            "obtained": {name: _figures(obtained, p, i) for i, name in enumerate(names)},
            "scores": {name: _finite(scores[p, i]) for i, name in enumerate(names)},
            "on_front": bool(on[p]),
            "near_front": bool(near[p]),
            "held_out": {name: _figures(others, p, i) for i, name in enumerate(held_out)},
            "prompt_kept": _figures(kept, p, 0),
            "diversity": _figures(diversity, p, 0),
            "files": [[str(folder / file) for file in row] for row in outcome.files[p]],
        }
        for p, point in enumerate(outcome.points[: len(z)])
    ]


def _control(requested: Array, z: Array, name: str, reach: metrics.Ends) -> dict[str, Any]:
    """One reward moved alone: requested (P,) against obtained (P, Q, S).

    ``reach``: where requests can be had; they are what errors count over.
    """
    grid = z[..., None]

    def error(some: Array) -> float:
        return metrics.control_error(requested, means_of(some)[:, 0], reach)

    def sample_error(some: Array) -> float:
        return metrics.sample_error(requested, some[..., 0], reach)

    def saturation(some: Array) -> float:
        return metrics.saturation(requested, means_of(some)[:, 0])

    obtained = interval(grid, means_of)
    of_means, per_sample = metrics.rank_control(requested, z)
    return {
        "reward": name,
        "requested": requested.tolist(),
        "obtained": [_figures(obtained, p, 0) for p in range(len(requested))],
        "reached": [_finite(end) for end in metrics.reached_range(means_of(grid)[:, 0])],
        "reach": [_finite(end) for end in reach],
        "error": _figures(interval(grid, error)),
        "sample_error": _figures(interval(grid, sample_error)),
        "saturation": _figures(interval(grid, saturation)),
        "spearman_of_means": _finite(of_means),
        "spearman_per_sample": _finite(per_sample),
    }


def _figures(found: Interval, *index: int) -> dict[str, float | None]:
    """A statistic, or one of its elements, with its interval."""
    parts = {"value": found.value, "low": found.low, "high": found.high}
    return {key: _finite(float(array[index])) for key, array in parts.items()}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _maybe_dict(given: Mapping[str, float] | None) -> dict[str, float] | None:
    return None if given is None else dict(given)
