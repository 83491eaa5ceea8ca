"""A toy backend, least squares with noise, and a program that trains it: the tests start, kill and
resume it as a process of its own."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

from ric_diffusion.io.config import from_dict
from ric_diffusion.models.cost import Cost, Meter
from ric_diffusion.models.protocol import Batch
from ric_diffusion.training.loop import LoopConfig
from ric_diffusion.training.processes import leave
from ric_diffusion.training.trainer import Trainer

COUNT, WIDTH = 23, 5


class Toy:
    """loss = mean over the batch of (x·w + b - y + noise)²; ``w`` and ``b`` are trained.

    ``on_loss`` is called with the number of losses so far, before each. If ``sparse``, ``b`` is
    part of only those batches whose first record has a number of 10 or more. The noise level of a
    record is its number over COUNT; ``meter`` is told of three forward passes for each.
    """

    buckets = None

    def __init__(self, noise=0.0, seed=0, delay=0.0, on_loss=None, sparse=False, meter=None):
        rng = np.random.default_rng(seed)
        self.x = torch.tensor(rng.normal(size=(COUNT, WIDTH)), dtype=torch.float32)
        self.y = torch.tensor(rng.normal(size=COUNT), dtype=torch.float32)
        self.w = torch.nn.Parameter(torch.tensor(rng.normal(size=WIDTH), dtype=torch.float32))
        self.b = torch.nn.Parameter(torch.zeros(1))
        self.noise, self.delay, self.on_loss, self.sparse = noise, delay, on_loss, sparse
        self.meter = meter
        self.calls = 0
        self.batches = []

    def named_parameters(self):
        return {"w": self.w, "b": self.b}

    def loss(self, batch: Batch):
        self.calls += 1
        self.batches.append(batch.indices)
        time.sleep(self.delay)
        scale = self.on_loss(self.calls) if self.on_loss else None
        rows = list(batch.indices)
        noise = self.noise * torch.randn(len(rows), generator=batch.generator)
        found = self.x[rows] @ self.w - self.y[rows] + noise
        if not self.sparse or rows[0] >= 10:
            found = found + self.b
        batch.note(torch.tensor(rows) / COUNT, found.square())
        if self.meter:
            self.meter.add(Cost(forwards=3 * len(rows)))
        found = found.square().mean()
        return found if scale is None else found * scale

    def save(self, folder):
        folder.mkdir(parents=True)
        values = {name: p.detach() for name, p in self.named_parameters().items()}
        torch.save(values, folder / "toy.pt")

    def load(self, folder):
        for name, stored in torch.load(folder / "toy.pt").items():
            self.named_parameters()[name].data.copy_(stored)

    def values(self):
        """All that was learned, (WIDTH + 1,)."""
        return torch.cat([self.w.detach(), self.b.detach()])


def main():
    """toy.py OUT '{"config": {…}, "resume": …, "noise": …, and so on}'"""
    from accelerate import PartialState

    torch.set_num_threads(1)
    out, given = Path(sys.argv[1]), json.loads(sys.argv[2])
    config = from_dict(given.pop("config"), LoopConfig, "toy")
    resume = given.pop("resume", False)
    nan_in = given.pop("nan_in", None)  # [the first loss, process]
    meter = Meter()
    toy = Toy(**given, meter=meter)
    if nan_in:
        spoiled, rank = nan_in
        toy.on_loss = lambda calls: (
            float("nan") if calls >= spoiled and PartialState().process_index == rank else None
        )
    Trainer(toy, COUNT, config, out, digest="toy", resume=resume, meter=meter).run()
    process = PartialState()
    found = {"values": toy.values().tolist(), "batches": toy.batches, "cost": meter.read().forwards}
    (out / f"rank-{process.process_index}.json").write_text(json.dumps(found))
    leave(process)


if __name__ == "__main__":
    main()
