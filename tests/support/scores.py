"""Scores of methods that no model was asked for: arrays of known z."""

from dataclasses import replace

import numpy as np

from ric_diffusion.evaluation.calibration import Calibration, curves_of
from ric_diffusion.evaluation.config import EvaluationConfig
from ric_diffusion.evaluation.grid import Point, range_points, slider_points
from ric_diffusion.evaluation.runner import MethodScores
from ric_diffusion.models.cost import Cost
from ric_diffusion.rewards import RewardSpace

NAMES = ("compressibility", "colorfulness", "aesthetic")
PROMPTS = ["red apple", "a <script>alert('x')</script> & \"co\"", "pizza"]
SEEDS = [1001, 1002]


class Named:
    """A scorer that is only spoken of."""

    unit = "score"

    def __init__(self, name):
        self.name = name
        self.fingerprint = f"{name} <v1>"

    def __call__(self, samples, prompts):
        raise AssertionError("nothing is scored here")


def space(n=2, mean=10.0, std=2.0):
    """``n`` rewards with that mean and standard deviation that trade off against each other."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(400, n))
    z -= 0.7 * (z.sum(axis=1, keepdims=True) - z)
    z = (z - z.mean(axis=0)) / z.std(axis=0)
    return RewardSpace.fit(
        {name: mean + std * column for name, column in zip(NAMES, z.T, strict=False)},
        units=dict.fromkeys(NAMES[:n], "kB"),
        fingerprints={name: f"{name} <v1>" for name in NAMES[:n]},
    )


def config_of(n=2, held_out=(), **changes):
    own = space(n)
    given = {
        "space": own,
        "prompts": PROMPTS,
        "seeds": SEEDS,
        "scorers": [Named(name) for name in own.names],
        "held_out": [Named(name) for name in held_out],
    }
    return EvaluationConfig(**given | changes)


def scores_of(config, name="method", gain=0.8, own=None, points=None, noise=0.1, seed=0, **changes):
    """Asked for z the method gives ``gain`` times that, in its own space ``own``, and noise; with
    no points given, those of sliders with 5 stops. A reward left out of the targets gives 0."""
    own = own or config.space
    points = slider_points(own, "front", 5) if points is None else points
    shape = len(points), len(config.prompts), len(config.seeds)
    sweep = sum(point.along is None for point in points)
    rng = np.random.default_rng(seed)
    asked = np.array([[point.targets.get(n, 0.0) for n in own.names] for point in points])
    z = gain * asked[:, None, None, :] + noise * rng.normal(size=(*shape, len(own.names)))
    order = [own.names.index(name) for name in config.space.names]
    given = {
        "name": name,
        "about": {"adapter": f"runs/{name}", "sampling": {"num_inference_steps": 20}},
        "points": points,
        "space": own if any(point.targets for point in points) else None,
        "scores": (z * own.stds + own.means)[..., order],
        "held_out": rng.normal(size=(sweep, *shape[1:], len(config.held_out))),
        "rejected": {},
        "diversity": rng.uniform(0.2, 0.4, (sweep, shape[1])),
        "prompt_r_precision": rng.uniform(0.5, 1.0, (sweep, *shape[1:])),
        "files": [
            [
                [f"samples/{p:03d}/{q:04d}-{config.seed(q, s)}.png" for s in range(shape[2])]
                for q in range(shape[1])
            ]
            for p in range(shape[0])
        ],
        "cost": Cost(forwards=480, scored=0, seconds=12.5),
    }
    return MethodScores(**given | changes)


def base_of(config, **changes):
    """A model without sliders: one point, z about 0."""
    return scores_of(config, **{"name": "no adapter", "points": [Point()], **changes})


def sweep_of(config, gain, noise=0.0, **changes):
    """A method that gives ``gain`` times what it is asked, along each reward alone."""
    points = range_points(config.space, 7)
    return scores_of(config, gain=gain, noise=noise, points=points, **changes)


def calibration_of(config, *names, gain):
    """The curves of that method for the rewards ``names``."""
    found = curves_of(sweep_of(config, gain), config.space)
    curves = {name: curve for name, curve in found.items() if name in names}
    cost = Cost(forwards=1234, scored=0, seconds=3.0)
    return Calibration(curves=curves, prompts=["a crow"], seeds=[7, 8], cost=cost)


def calibrated_scores(config, calibration, **method):
    """What a method gives once its targets go through the curves, on the points of a report."""
    plain = scores_of(config, **method)
    points = [
        replace(
            point,
            targets={
                name: calibration.curves[name].request(z) if name in calibration.curves else z
                for name, z in point.targets.items()
            },
        )
        for point in plain.points
    ]
    asked = scores_of(config, points=points, **method)
    return replace(asked, name="calibrated", points=plain.points)
