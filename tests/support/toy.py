"""A toy backend, least squares with noise, and a program that trains it: the tests start, kill and
resume it as a process of its own."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

from ric_diffusion.backend import Batch
from ric_diffusion.training.loop import LoopConfig, fit, leave

COUNT, WIDTH = 23, 5


class Toy:
    """loss = mean over the batch of (x·w + b - y + noise)²; ``w`` and ``b`` are trained.

    ``on_loss`` is called with the number of losses so far, before each.
    """

    def __init__(self, noise=0.0, seed=0, delay=0.0, on_loss=None):
        rng = np.random.default_rng(seed)
        self.x = torch.tensor(rng.normal(size=(COUNT, WIDTH)), dtype=torch.float32)
        self.y = torch.tensor(rng.normal(size=COUNT), dtype=torch.float32)
        self.w = torch.nn.Parameter(torch.tensor(rng.normal(size=WIDTH), dtype=torch.float32))
        self.b = torch.nn.Parameter(torch.zeros(1))
        self.noise, self.delay, self.on_loss = noise, delay, on_loss
        self.calls = 0
        self.batches = []

    def parameters(self):
        return [self.w, self.b]

    def loss(self, batch: Batch):
        self.calls += 1
        self.batches.append(batch.indices)
        time.sleep(self.delay)
        scale = self.on_loss(self.calls) if self.on_loss else None
        rows = list(batch.indices)
        noise = self.noise * torch.randn(len(rows), generator=batch.generator)
        found = (self.x[rows] @ self.w + self.b - self.y[rows] + noise).square().mean()
        return found if scale is None else found * scale

    def save(self, folder):
        folder.mkdir(parents=True)
        torch.save([p.detach() for p in self.parameters()], folder / "toy.pt")

    def load(self, folder):
        for parameter, stored in zip(self.parameters(), torch.load(folder / "toy.pt"), strict=True):
            parameter.data.copy_(stored)

    def values(self):
        """All that was learned, (WIDTH + 1,)."""
        return torch.cat([p.detach() for p in self.parameters()])


def main():
    """toy.py OUT '{"config": {…}, "resume": …, "noise": …, "delay": …}'"""
    from accelerate import PartialState

    torch.set_num_threads(1)
    out, given = Path(sys.argv[1]), json.loads(sys.argv[2])
    toy = Toy(noise=given.get("noise", 0.0), delay=given.get("delay", 0.0))
    config = LoopConfig(**given["config"])
    fit(toy, COUNT, config, out, digest="toy", resume=given.get("resume", False))
    process = PartialState()
    story = {"values": toy.values().tolist(), "batches": toy.batches}
    (out / f"rank-{process.process_index}.json").write_text(json.dumps(story))
    leave(process)


if __name__ == "__main__":
    main()
