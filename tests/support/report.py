"""A report as ``ric evaluate`` writes it, as far as the app reads it."""

from pathlib import Path

from ric_diffusion.evaluation.report.schema import (
    METRICS_FILE,
    Bootstrap,
    Estimate,
    EvaluationResult,
    MethodResult,
    NearFront,
    PointResult,
    RewardInfo,
)
from ric_diffusion.models.cost import Cost


def estimate(value):
    return Estimate(value=value, low=value, high=value)


def point_of(z, *, preference=None, targets=None, on_front=True):
    return PointResult(
        preference=preference,
        targets=targets or {},
        obtained={name: estimate(value) for name, value in z.items()},
        scores=z,
        on_front=on_front,
        near_front=on_front,
        held_out={},
        prompt_r_precision=estimate(1.0),
        diversity=estimate(0.5),
        files=(("a.png",),),
    )


def method_of(name, points, **about):
    return MethodResult(
        name=name,
        about=about,
        hypervolume=estimate(4.0),
        hypervolume_ratio=None,
        near_front=NearFront(count=1, total=len(points)),
        points=tuple(points),
        control=(),
        diversity=estimate(0.5),
        prompt_r_precision=estimate(1.0),
        samples=len(points),
        rejected={},
        cost=Cost(),
    )


def result_of(names, *, mapping="front", count=5):
    """Two methods: one without sliders, and one with ``count`` preferences between the first two
    rewards."""
    points = []
    for i in range(count):
        weight = 1 - i / (count - 1)
        weights = dict(zip(names, [weight, 1 - weight], strict=True))
        z = {names[0]: weight - 0.5, names[1]: 1.1 - weight}
        points.append(point_of(z, preference=weights, targets=z, on_front=i != 1))
    bare = point_of({names[0]: 0.5, names[1]: 0.1})
    return EvaluationResult(
        model="a model",
        versions={},
        prompts=("a",),
        seeds=(1001,),
        rewards=tuple(
            RewardInfo(name=name, unit="kB", mean=0.0, std=1.0, range=(-2.0, 2.0), scorer="v1")
            for name in names
        ),
        held_out=(),
        training_front=(),
        reference=(-2.0,) * len(names),
        bootstrap=Bootstrap(draws=1000, level=0.95, seed=0),
        methods=(method_of("no adapter", [bare]), method_of("ours", points, mapping=mapping)),
    )


def write_report(folder: Path, names, **changes) -> Path:
    result_of(names, **changes).save(folder / METRICS_FILE)
    return folder
