"""How near single pictures come to what they are asked for: open loop, calibrated, refined.

A picture, one prompt from one seed, cannot show every z, and what it can show need not be one
piece: between two of its styles there may be nothing. So its reach is measured first, by none of
the methods: the reward's model target goes over all that a search may ask, in steps that are halved
wherever the picture changes by more than JUMP, and the reach is what lies between neighbours that
differ by no more than that. Targets are those that calibration says can be had on average; pictures
asked for one outside their own reach are counted apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from ric_diffusion.data.scoring import scores_of
from ric_diffusion.evaluation.calibration import on_average, with_prompt
from ric_diffusion.evaluation.grid import preference_points, range_points, target_line
from ric_diffusion.evaluation.refine import refined_samples
from ric_diffusion.evaluation.runner import run_sweep
from ric_diffusion.io.progress import tracking
from ric_diffusion.models.diffusion.sampler import DiffusionSampler
from ric_diffusion.rewards import Curve
from ric_diffusion.rewards.refine import Axis

JUMP = 0.5  # z between neighbours; more is taken for a jump
STEPS, HALVED = 17, 5  # model targets of a picture's reach, and how often a step is halved
PASSES = 3
OPEN, AVERAGE, AWARE = "open loop", "calibrated on average", "calibrated for the prompt"
ASKED = 5  # targets of each reward, and preferences
BATCH = 40

Reach = list[tuple[float, float]]  # pieces, in z


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Mean |obtained - asked| of single pictures, in z, by method, over the rewards asked.

    ``name``: the reward asked alone, or "both"; ``inside``: the share of pictures asked for
    something inside their reach, whose errors are ``errors``; ``outside``: the errors of the
    others; ``passes``: how many more times a picture was drawn, on average, by the last method;
    ``scatter``: see there, of what is calibrated for the prompt.
    """

    name: str
    pictures: int
    inside: float
    errors: Mapping[str, float | None]
    outside: Mapping[str, float | None]
    passes: float
    scatter: float | None


def pieces(z: Sequence[float]) -> Reach:
    """The reach of a picture that gives these z for rising model targets."""
    pairs = [sorted(pair) for pair in pairwise(z)]
    return [(low, high) for low, high in pairs if high - low <= JUMP]


def is_inside(reach: Reach, z: float) -> bool:
    return any(low <= z <= high for low, high in reach)


def accuracy_of(
    name: str,
    asked: np.ndarray,
    inside: np.ndarray,
    obtained: Mapping[str, np.ndarray],
    passes: Sequence[int],
    seeds: int,
) -> Accuracy:
    """Of N pictures: ``asked`` and ``obtained`` by method (N, n) in z, NaN where a picture has no
    score, and whether what was asked lies ``inside`` their reach, (N,). Every ``seeds`` of them in
    turn are of one prompt, and asked for the same."""
    errors = {method: np.abs(z - asked).mean(axis=1) for method, z in obtained.items()}

    def means(rows: np.ndarray) -> dict[str, float | None]:
        known = {method: each[rows & np.isfinite(each)] for method, each in errors.items()}
        return {m: float(each.mean()) if len(each) else None for m, each in known.items()}

    return Accuracy(
        name=name,
        pictures=len(asked),
        inside=float(inside.mean()),
        errors=means(inside),
        outside=means(~inside),
        passes=float(np.mean(passes)),
        scatter=scatter(obtained[AWARE], inside, seeds),
    )


def scatter(z: np.ndarray, inside: np.ndarray, seeds: int) -> float | None:
    """The mean error that is left, if it is normal, where a prompt's own mean is what is asked:
    what knows the prompt but not the seed cannot do better. Over z (N, n) of prompts all of whose
    ``seeds`` pictures are ``inside`` their reach; None without."""
    each = z.reshape(-1, seeds, z.shape[1])
    each = each[inside.reshape(-1, seeds).all(axis=1) & np.isfinite(each).all(axis=(1, 2))]
    if seeds < 2 or not len(each):
        return None
    deviations = np.sqrt(each.var(axis=1, ddof=1).mean(axis=0))
    return float(math.sqrt(2 / math.pi) * deviations.mean())


def curves_on(
    sampler: DiffusionSampler, prompts: Sequence[str], seeds: Sequence[int], using: Sequence[Any]
) -> dict[str, Curve]:
    """The adapter's own calibration, or one that is made on these prompts."""
    adapter = sampler.pipe.adapter
    if adapter.calibration:
        return dict(adapter.calibration)
    points = range_points(adapter.space, 11)
    sweep = run_sweep(sampler, adapter.space, points, prompts, seeds, using, stage="calibrate")
    features = sampler.pipe.prompt_features(prompts)
    curves = {}
    for column, name in enumerate(adapter.space.names):
        rows = [p for p, point in enumerate(points) if point.along == name]
        requested = [points[p].targets[name] for p in rows]
        z = sweep.z[rows, ..., column]
        if curve := Curve.fit(requested, np.nanmean(z, axis=(1, 2))):
            curves[name] = with_prompt(curve, requested, z, features)
    return curves


def reach_of(
    sampler: DiffusionSampler,
    name: str,
    prompts: Sequence[str],
    seeds: Sequence[int],
    using: Sequence[Any],
) -> list[Reach]:
    """The reach of N pictures along one reward, the others on auto."""
    adapter = sampler.pipe.adapter
    axis = Axis.of(adapter.calibration.get(name), *adapter.space.range(name))
    found: list[dict[float, float]] = [{} for _ in prompts]
    steps = np.linspace(axis.model_targets[0], axis.model_targets[-1], STEPS).tolist()
    todo = [(i, step) for i in range(len(prompts)) for step in steps]
    with sampler.pipe.uncalibrated(), tracking(f"{name}: reach", len(todo)) as tracker:
        for _ in range(HALVED + 1):
            for start in range(0, len(todo), BATCH):
                some = todo[start : start + BATCH]
                targets, rows = [{name: step} for _, step in some], [i for i, _ in some]
                z = drawn(
                    sampler, [prompts[i] for i in rows], targets, [seeds[i] for i in rows], using
                )
                for (i, step), row in zip(some, z, strict=True):
                    found[i][step] = float(row[adapter.space.names.index(name)])
                tracker.advance(len(some))
            todo = [(i, step) for i, known in enumerate(found) for step in jumps(known)]
    return [pieces([z for _, z in sorted(known.items())]) for known in found]


def jumps(known: Mapping[float, float]) -> list[float]:
    """The middle of each step between whose ends a picture jumps."""
    steps = sorted(known)
    return [(a + b) / 2 for a, b in pairwise(steps) if abs(known[a] - known[b]) > JUMP]


def drawn(
    sampler: DiffusionSampler,
    prompts: Sequence[str],
    targets: Sequence[Mapping[str, float]],
    seeds: Sequence[int],
    using: Sequence[Any],
) -> np.ndarray:
    """What N pictures obtain, (N, n) in z, NaN for those that are rejected."""
    samples = sampler.sample(prompts, targets, seeds)
    z: np.ndarray = sampler.pipe.adapter.space.normalize(
        scores_of(samples, prompts, using), prompts
    )
    z[[sampler.medium.reject_reason(sample) is not None for sample in samples]] = np.nan
    return z


def accuracy(
    sampler: DiffusionSampler,
    prompts: Sequence[str],
    seeds: Sequence[int],
    curves: Mapping[str, Curve],
    using: Sequence[Any],
) -> list[Accuracy]:
    """Each reward that has a curve alone, and all of them together, asked by preference: every
    picture of these prompts and seeds for ASKED targets. The first pass of ``refine`` is that of
    the curves as they are, which may know the prompt. The adapter has them afterwards."""
    pipe = sampler.pipe
    adapter = replace(pipe.adapter, calibration=on_average(curves))
    pipe.adapter = adapter
    space, pictures = adapter.space, [(prompt, seed) for prompt in prompts for seed in seeds]
    reaches = {
        name: reach_of(sampler, name, *zip(*pictures, strict=True), using) for name in curves
    }
    asked = {name: target_line(space, name, ASKED, curve) for name, curve in curves.items()}
    if len(curves) == len(space.names) > 1:
        points = preference_points(space, ASKED, adapter.mapping)
        asked["both"] = [adapter.reachable(point.targets) for point in points]
    found = []
    for name, line in asked.items():
        cells = [(i, targets) for targets in line for i in range(len(pictures))]
        given = (
            [pictures[i][0] for i, _ in cells],
            [t for _, t in cells],
            [pictures[i][1] for i, _ in cells],
        )
        names = list(line[0])
        columns = [space.names.index(one) for one in names]

        def batches(given: Sequence[Sequence[Any]] = given) -> np.ndarray:
            starts = range(0, len(given[0]), BATCH)
            parts = [drawn(sampler, *(of[i : i + BATCH] for of in given), using) for i in starts]
            return np.concatenate(parts)

        with pipe.uncalibrated():
            obtained = {OPEN: batches()[:, columns]}
        obtained[AVERAGE] = batches()[:, columns]
        pipe.adapter = replace(adapter, calibration=dict(curves))
        refined = refined_samples(pipe, sampler, using, *given, passes=PASSES, batch_size=BATCH)
        pipe.adapter = adapter
        for count in range(PASSES + 1):
            method = f"refine={count}" if count else AWARE
            nearest = [one.after(count).obtained for one in refined]
            obtained[method] = np.array([[z[one] for one in names] for z in nearest])
        inside = [all(is_inside(reaches[one][i], z) for one, z in t.items()) for i, t in cells]
        found.append(
            accuracy_of(
                name,
                np.array([list(targets.values()) for _, targets in cells]),
                np.array(inside),
                obtained,
                [len(one.passes) - 1 for one in refined],
                len(seeds),
            )
        )
    pipe.adapter = replace(adapter, calibration=dict(curves))
    return found
