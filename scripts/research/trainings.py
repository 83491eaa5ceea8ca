"""What methods give that were trained several times.

A figure is the mean of those of the single trainings. Its interval is a bootstrap of all that is
left to chance: in each draw, the trainings are drawn with replacement, and so are the prompts and
the seeds of each prompt. Prompts and seeds are the same for all trainings and methods, and the
ratio of two methods is paired over them. Trainings of methods that are of the same runs, such as an
adapter with and without its calibration, are paired as well; those of others have nothing in common
and are drawn apart.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from ric_diffusion.evaluation import metrics
from ric_diffusion.evaluation.calibration import Calibration
from ric_diffusion.evaluation.config import EvaluationConfig
from ric_diffusion.evaluation.metrics import Array, Ends, Statistic, interval_of, means_of
from ric_diffusion.evaluation.report.schema import (
    CalibrationResult,
    ControlResult,
    Estimate,
    EvaluationResult,
    MethodResult,
    NearFront,
    PointResult,
)
from ric_diffusion.evaluation.report.summary import (
    alone,
    estimate,
    finite,
    overall,
    preference_z,
    summarise,
)
from ric_diffusion.evaluation.runner import MethodScores
from ric_diffusion.evaluation.standard import Standard
from ric_diffusion.io.progress import tracked
from ric_diffusion.models.cost import Cost

FIRST = 0  # the training whose samples are shown
Figure = Callable[[Array, Ends, Array], ArrayLike]  # of requests, where they count, and z


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A method without its calibration and with it, by their names, and the ``calibrations`` of
    each training."""

    plain: str
    calibrated: str
    calibrations: Sequence[Calibration]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The K trainings of one method: their ``scores``, and the ``results`` of each by itself.
    ``runs``: what its trainings are drawn by, the same for methods that are of the same runs."""

    scores: Sequence[MethodScores]
    results: Sequence[MethodResult]
    runs: str

    @property
    def name(self) -> str:
        return self.results[FIRST].name


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """``result``, whose methods have the figures of all their trainings, and by the method's name
    the ``hypervolumes`` of each."""

    result: EvaluationResult
    hypervolumes: Mapping[str, tuple[float | None, ...]]


def over_trainings(
    scores: Sequence[Sequence[MethodScores]],
    runs: Sequence[str],
    config: EvaluationConfig,
    out: Path,
    *,
    model: str,
    versions: Mapping[str, str],
    pair: Pair | None = None,
) -> Comparison:
    """What came of methods for ``model``, of each the ``scores`` of its trainings, as a report in
    ``out``; ``runs``: by method, a name that those of the same runs share. Where all were trained
    once, it is what ``summarise`` gives."""
    flat = [one for trainings in scores for one in trainings]
    calibration = None
    if pair is not None:
        names = [one.name for one in flat]
        places = names.index(pair.plain), names.index(pair.calibrated)
        calibration = replace(pair.calibrations[FIRST], pair=places)
    single = summarise(flat, config, out, model=model, versions=versions, calibration=calibration)
    standard = Standard.of(config.space, [one.scores for one in flat])
    results = iter(single.methods)
    methods = [
        Measured(scores=trainings, results=[next(results) for _ in trainings], runs=name)
        for trainings, name in zip(scores, runs, strict=True)
    ]
    volumes = [_volumes(one, standard) for one in methods]
    ratios = [None, *(_ratio(other, volumes[0]) for other in volumes[1:])]
    found = list(zip(methods, volumes, ratios, strict=True))
    rows = tracked(found, "intervals over trainings", unit="method")
    result = replace(
        single,
        methods=tuple(_method(*row, standard, config, pair) for row in rows),
        calibration=_calibration(single.calibration, methods, pair, standard) if pair else None,
    )
    each = {one.name: tuple(some.hypervolume.value for some in one.results) for one in methods}
    return Comparison(result=result, hypervolumes=each)


def drawn(z: Array, statistic: Statistic) -> Array:
    """A statistic of z (P, Q, S, n) of one training and, below it, of every draw of prompts and
    seeds: (1 + draws, …)."""
    draws = metrics.resamples(z.shape[1:3], metrics.DRAWS, 0)
    return np.array([statistic(z), *(statistic(z[:, q[:, None], s]) for q, s in draws)], float)


def mean_of(trainings: Sequence[Array], runs: str) -> Array:
    """What ``drawn`` gives of K trainings -> their mean, in each draw that of K of them drawn with
    replacement: (1 + draws, …). The name of their ``runs`` says which are drawn."""
    stack = np.array(trainings)
    count, rows = stack.shape[:2]
    seed = [0, zlib.crc32(runs.encode())]
    draws = np.random.default_rng(seed).integers(count, size=(count, rows))
    draws[:, 0] = range(count)  # the value itself is of all
    mean: Array = stack[draws, range(rows)].mean(axis=0)
    return mean


def _estimate(found: Array, *index: int) -> Estimate:
    return estimate(interval_of(found[0], found[1:]), *index)


def _ratio(above: Array, below: Array) -> Array:
    return np.where(below == 0, np.nan, above / np.where(below == 0, 1.0, below))


def _volumes(one: Measured, standard: Standard) -> Array:
    """Of the hypervolume, (1 + draws,)."""
    each = [drawn(preference_z(some, standard), metrics.volume_of) for some in one.scores]
    return mean_of(each, one.runs)


def _method(
    one: Measured,
    volume: Array,
    ratio: Array | None,
    standard: Standard,
    config: EvaluationConfig,
    pair: Pair | None,
) -> MethodResult:
    def pooled(values: Sequence[Array], statistic: Statistic) -> Array:
        return mean_of([drawn(some, statistic) for some in values], one.runs)

    z = pooled([preference_z(some, standard) for some in one.scores], means_of)
    held_out = pooled([some.held_out for some in one.scores], means_of)
    precision = [some.prompt_r_precision[..., None] for some in one.scores]
    diversity = [some.diversity[..., None, None] for some in one.scores]
    near = metrics.near_front(z[0])
    each = pooled(precision, means_of), pooled(diversity, means_of)
    return replace(
        one.results[FIRST],
        hypervolume=_estimate(volume),
        hypervolume_ratio=None if ratio is None else _estimate(ratio),
        near_front=NearFront(count=int(near.sum()), total=len(near)),
        points=_points(one, z, held_out, *each, config),
        control=tuple(_control(one, sweep, standard, pair) for sweep in one.results[FIRST].control),
        diversity=_estimate(pooled(diversity, overall)),
        prompt_r_precision=_estimate(pooled(precision, overall)),
        samples=sum(result.samples for result in one.results),
        rejected=dict(sum((Counter(result.rejected) for result in one.results), Counter())),
        cost=sum((result.cost for result in one.results), Cost()),
    )


def _points(
    one: Measured,
    z: Array,
    held_out: Array,
    precision: Array,
    diversity: Array,
    config: EvaluationConfig,
) -> tuple[PointResult, ...]:
    """The preference sweep, from what ``mean_of`` gives of the means of its points; ``scores`` are
    those of the mean z."""
    names = config.space.names
    on, near = metrics.front_mask(z[0]), metrics.near_front(z[0])
    obtained, others, kept, spread = (
        interval_of(found[0], found[1:]) for found in (z, held_out, precision, diversity)
    )
    sweeps = [result.points for result in one.results]
    return tuple(
        replace(
            point,
            obtained={name: estimate(obtained, p, i) for i, name in enumerate(names)},
            scores={name: _mean([sweep[p].scores[name] for sweep in sweeps]) for name in names},
            on_front=bool(on[p]),
            near_front=bool(near[p]),
            held_out={
                scorer.name: estimate(others, p, i) for i, scorer in enumerate(config.held_out)
            },
            prompt_r_precision=estimate(kept, p, 0),
            diversity=estimate(spread, p, 0),
        )
        for p, point in enumerate(sweeps[FIRST])
    )


def _mean(values: Sequence[float | None]) -> float | None:
    """None unless all are known."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _control(
    one: Measured, first: ControlResult, standard: Standard, pair: Pair | None
) -> ControlResult:
    """One reward moved alone, by the requests of the ``first`` training. Each training of a
    calibrated pair is judged where its own calibration says that requests can be had."""
    sweeps = [alone(some, first.reward, standard) for some in one.scores]
    ends = [_reachable(k, one, first, pair) for k in range(len(sweeps))]

    def pooled(figure: Figure) -> Array:
        rows = zip(sweeps, ends, strict=True)
        each = [drawn(z[..., None], partial(figure, asked, end)) for (asked, z), end in rows]
        return mean_of(each, one.runs)

    obtained = pooled(lambda _asked, _ends, z: means_of(z))
    values = interval_of(obtained[0], obtained[1:])
    ranks = [metrics.rank_control(asked, z) for asked, z in sweeps]
    low, high = metrics.reached_range(obtained[0, :, 0])
    return replace(
        first,
        obtained=tuple(estimate(values, p, 0) for p in range(len(first.requested))),
        reached=(finite(low), finite(high)),
        error=_estimate(pooled(_error)),
        sample_error=_estimate(pooled(lambda a, ends, z: metrics.sample_error(a, z[..., 0], ends))),
        saturation=_estimate(pooled(lambda a, _ends, z: metrics.saturation(a, means_of(z)[:, 0]))),
        spearman_of_means=finite(float(np.mean([of_means for of_means, _ in ranks]))),
        spearman_per_sample=finite(float(np.mean([single for _, single in ranks]))),
    )


def _error(asked: Array, ends: Ends, z: Array) -> float:
    return metrics.control_error(asked, means_of(z)[:, 0], ends)


def _reachable(k: int, one: Measured, first: ControlResult, pair: Pair | None) -> Ends:
    """Where the requests count that the ``k``-th training is judged by."""
    if pair is not None and one.name in (pair.plain, pair.calibrated):
        curve = pair.calibrations[k].curves.get(first.reward)
        if curve is not None:
            return curve.reachable
    low, high = (np.nan if end is None else end for end in first.reachable)
    return low, high


def _calibration(
    first: CalibrationResult, methods: Sequence[Measured], pair: Pair, standard: Standard
) -> CalibrationResult:
    """Errors are of the rewards that all trainings calibrated; curves and prompts are those of the
    ``first`` training."""
    both = [next(m for m in methods if m.name == name) for name in (pair.plain, pair.calibrated)]
    names = [
        name
        for name in standard.space.names
        if all(name in one.curves for one in pair.calibrations)
    ]

    def errors(some: Sequence[str]) -> tuple[Array, Array]:
        """Without and with, of all these rewards together."""
        found = []
        for method in both:
            each = []
            for scores, one in zip(method.scores, pair.calibrations, strict=True):
                sweeps = [alone(scores, name, standard) for name in some]
                asked, z = map(np.concatenate, zip(*sweeps, strict=True))
                reach = [one.curves[name].reachable for name in some]
                low, high = np.repeat(reach, len(asked) // len(some), axis=0).T
                each.append(drawn(z[..., None], partial(_error, asked, (low, high))))
            found.append(mean_of(each, method.runs))
        return found[0], found[1]

    without, calibrated = errors(names) if names else (None, None)
    return replace(
        first,
        methods=(pair.plain, pair.calibrated) if names else (),
        error=None if calibrated is None else _estimate(calibrated),
        error_ratio=None if calibrated is None else _estimate(_ratio(calibrated, without)),
        rewards=tuple(
            replace(one, error_ratio=_estimate(_ratio(*errors([one.reward])[::-1])))
            for one in first.rewards
            if one.reward in names
        ),
        uncalibrated=tuple(name for name in standard.space.names if name not in names),
    )
