"""Two processes train as one does with twice the micro-batches."""

import dataclasses
import json

import pytest
import torch

from ric_diffusion.training.loop import LoopConfig, fit

CONFIG = LoopConfig(
    steps=6, batch_size=4, learning_rate=0.05, ema=0.5, log_every=2, checkpoint_minutes=0.0
)
# torchrun: on a CPU `accelerate launch` starts several processes only through MPI.
LAUNCH = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--local_addr", "localhost"]
LAUNCH += ["--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0"]


def test_two_processes_are_one(toy, start, tmp_path):
    out = tmp_path / "two"
    process = start(out, {"config": dataclasses.asdict(CONFIG), "noise": 0.3}, *LAUNCH)
    text, _ = process.communicate(timeout=600)
    assert process.returncode == 0, text
    ranks = [json.loads((out / f"rank-{rank}.json").read_text()) for rank in (0, 1)]
    assert ranks[0]["values"] == ranks[1]["values"]  # to the last bit

    alone = toy.Toy(noise=0.3)
    settings = dataclasses.replace(CONFIG, accumulate=2)
    fit(alone, toy.COUNT, settings, tmp_path / "one", digest="toy")
    assert ranks[0]["values"] == pytest.approx(alone.values().tolist(), abs=1e-6)
    taken = [batch for pair in zip(*(r["batches"] for r in ranks), strict=True) for batch in pair]
    assert taken == [list(batch) for batch in alone.batches]

    # One of them keeps log and checkpoint, and its checkpoint is good for a single process too.
    log = [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert log == [2, 4, 6]
    again = toy.Toy()
    fit(again, toy.COUNT, CONFIG, out, digest="toy", resume=True)
    assert torch.equal(again.values(), torch.tensor(ranks[0]["values"]))
