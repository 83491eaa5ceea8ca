"""Outcomes of evaluations that no model was asked for: arrays of known z."""

import numpy as np

from ric_diffusion.cost import Cost
from ric_diffusion.evaluation.subject import Outcome, Point, Setup, slider_points
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


def setup_of(n=2, held_out=(), **changes):
    own = space(n)
    given = {
        "space": own,
        "prompts": PROMPTS,
        "seeds": SEEDS,
        "scorers": [Named(name) for name in own.names],
        "held_out": [Named(name) for name in held_out],
    }
    return Setup(**given | changes)


def outcome_of(setup, name="model", gain=0.8, own=None, points=None, noise=0.1, seed=0, **changes):
    """Asked for z the model gives ``gain`` times that, in its own space ``own``, and noise; with
    no points given, those of sliders with 5 stops. A reward left out of the targets gives 0."""
    own = own or setup.space
    points = slider_points(own, "front", 5) if points is None else points
    shape = len(points), len(setup.prompts), len(setup.seeds)
    sweep = sum(point.along is None for point in points)
    rng = np.random.default_rng(seed)
    asked = np.array([[point.targets.get(n, 0.0) for n in own.names] for point in points])
    z = gain * asked[:, None, None, :] + noise * rng.normal(size=(*shape, len(own.names)))
    order = [own.names.index(name) for name in setup.space.names]
    given = {
        "name": name,
        "about": {"adapter": f"runs/{name}", "sampling": {"num_inference_steps": 20}},
        "points": points,
        "space": own if any(point.targets for point in points) else None,
        "scores": (z * own.stds + own.means)[..., order],
        "held_out": rng.normal(size=(sweep, *shape[1:], len(setup.held_out))),
        "faults": {},
        "diversity": rng.uniform(0.2, 0.4, (sweep, shape[1])),
        "kept": rng.uniform(0.5, 1.0, (sweep, *shape[1:])),
        "files": [
            [
                [f"samples/{p:03d}/{q:04d}-{setup.seed(q, s)}.png" for s in range(len(setup.seeds))]
                for q in range(shape[1])
            ]
            for p in range(shape[0])
        ],
        "cost": Cost(forwards=480, scored=0, seconds=12.5),
    }
    return Outcome(**given | changes)


def base_of(setup, **changes):
    """A model without sliders: one point, z about 0."""
    return outcome_of(setup, **{"name": "no adapter", "points": [Point()], **changes})
