"""A toy backend whose samples are points: what is asked times two learned gains, and noise."""

import json
from contextlib import nullcontext

import numpy as np
import torch

from ric_diffusion.data.records import Record
from ric_diffusion.rewards import RewardSpace

NAMES = ("x", "y")


class Axis:
    """A scorer: one coordinate."""

    unit, fingerprint, needs_prompts = "z", "axis-1", False

    def __init__(self, name):
        self.name, self.column = name, NAMES.index(name)

    def __call__(self, samples, prompts):
        return np.array([sample[self.column] for sample in samples])


def space():
    """z is the coordinate itself."""
    rng = np.random.default_rng(0)
    turn = rng.uniform(0, np.pi / 2, 500)
    points = np.stack([np.cos(turn), np.sin(turn)], axis=1) * rng.uniform(0, 3, (500, 1))
    points = (points - points.mean(axis=0)) / points.std(axis=0)
    return RewardSpace.fit(
        dict(zip(NAMES, points.T, strict=True)),
        units=dict.fromkeys(NAMES, "z"),
        scorers={name: {"name": name, "options": {}} for name in NAMES},
        fingerprints=dict.fromkeys(NAMES, "axis-1"),
    )


def labelled_points(folder, count=40):
    """Labelled points on disk."""
    rng = np.random.default_rng(1)
    records = []
    for i, point in enumerate(rng.normal(size=(count, 2)).tolist()):
        path = folder / f"{i}.json"
        path.write_text(json.dumps(point))
        scores = dict(zip(NAMES, point, strict=True))
        records.append(
            Record(file=str(path), captions=("a", "b")[i % 2 : i % 2 + 1], scores=scores)
        )
    return records


class PointFiles:
    """The medium: points as JSON files."""

    name, plural, suffix = "point", "points", ".json"

    def read(self, path):
        return tuple(json.loads(path.read_text()))

    def write(self, sample, path, metadata=None):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(sample))

    def reject_reason(self, sample):
        return "not a number" if np.isnan(sample).any() else None

    def digest(self, sample):
        return repr(sample)


class Points:
    """sample = gain * target + noise. ``gain`` is learned from records by least squares.

    ``on_sample`` is called with the number of batches so far, before each.
    """

    medium, buckets, sharded = PointFiles(), None, False

    def __init__(self, gain=0.5, noise=0.1, on_sample=None):
        self.gain = torch.nn.Parameter(torch.full((2,), float(gain)))
        self.noise, self.on_sample = noise, on_sample
        self.net = torch.nn.Identity()
        self.asked, self.batches = [], 0
        self.z = self.x = torch.empty(0)
        self.precision = 1.0  # prompt R-precision

    def sample(self, prompts, targets, seeds):
        self.batches += 1
        if self.on_sample:
            self.on_sample(self.batches)
        self.asked += seeds
        noise = np.array([np.random.default_rng(seed).normal(size=2) for seed in seeds])
        wanted = torch.tensor([[t.get(name, 0.0) for name in NAMES] for t in targets])
        mean = self.net((self.gain.detach() * wanted).reshape(-1, 2)).numpy()
        return [tuple(point) for point in (mean + self.noise * noise).tolist()]

    def features(self, samples):
        points = np.insert(np.array(samples, dtype=np.float32), 2, 1.0, axis=1)
        return points / np.linalg.norm(points, axis=1, keepdims=True)

    def prompt_r_precision(self, prompts, samples):
        return np.full(len(samples), self.precision)

    def network(self):
        return self.net

    def prepare(self, records, folder, cache, groups=None):
        self.z = torch.tensor([[r.scores[name] for name in NAMES] for r in records])
        self.x = torch.tensor([self.medium.read(folder / r.file) for r in records])
        return len(records)

    def named_parameters(self):
        return {"gain": self.gain}

    def loss(self, batch):
        rows = list(batch.indices)
        return (self.net(self.gain * self.z[rows]) - self.x[rows]).square().mean()

    def gathered(self):
        return nullcontext()

    def save(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "gain.json").write_text(json.dumps(self.gain.tolist()))

    def load(self, folder):
        self.gain.data = torch.tensor(json.loads((folder / "gain.json").read_text()))
