"""Two processes train as one does with twice the micro-batches."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from ric_diffusion.training import checkpoint
from ric_diffusion.training.guard import GuardConfig
from ric_diffusion.training.loop import LoopConfig
from ric_diffusion.training.online import OnlineConfig, run_rounds
from ric_diffusion.training.trainer import Trainer
from support import rounds
from support.points import Points
from support.processes import LAUNCH, starter

CONFIG = LoopConfig(
    steps=6,
    batch_size=4,
    learning_rate=0.05,
    ema=0.5,
    log_every=2,
    checkpoint_minutes=0.0,
    precision="fp32",
)


def batches_of(ranks):
    return [rank["batches"] for rank in ranks]


@pytest.mark.parametrize("sparse", [False, True])
def test_two_processes_are_one(toy, start, tmp_path, sparse):
    out, kind = tmp_path / "two", {"noise": 0.3, "sparse": sparse}
    process = start(out, {"config": dataclasses.asdict(CONFIG), **kind}, *LAUNCH)
    text, _ = process.communicate(timeout=600)
    assert process.returncode == 0, text
    ranks = [json.loads((out / f"rank-{rank}.json").read_text()) for rank in (0, 1)]
    assert ranks[0]["values"] == ranks[1]["values"]  # to the last bit

    alone = toy.Toy(**kind)
    settings = dataclasses.replace(CONFIG, accumulate=2)
    Trainer(alone, toy.COUNT, settings, tmp_path / "one", digest="toy").run()
    assert ranks[0]["values"] == pytest.approx(alone.values().tolist(), abs=1e-6)
    # At some steps the bias is part of one process's batch alone, at others of none.
    uses = {
        tuple(batch[0] >= 10 for batch in pair) for pair in zip(*batches_of(ranks), strict=True)
    }
    assert len(uses) == 4
    taken = [batch for pair in zip(*batches_of(ranks), strict=True) for batch in pair]
    assert taken == [list(batch) for batch in alone.batches]

    # One of them keeps log and checkpoint, and its checkpoint is good for a single process too.
    logs = [
        [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        for folder in (out, tmp_path / "one")
    ]
    assert [line["step"] for line in logs[0]] == [2, 4, 6]
    for line, other in zip(*logs, strict=True):  # the figures are those of both
        assert line == pytest.approx(other, abs=1e-5) and "loss_noise_75_100" in line
    # And so is the cost, in each of them and in the checkpoint.
    stored = json.loads((out / "checkpoints" / "step-6" / "state.json").read_text())["cost"]
    assert [rank["cost"] for rank in ranks] == [6 * 2 * 4 * 3] * 2
    assert stored["forwards"] == 6 * 2 * 4 * 3
    again = toy.Toy()
    Trainer(again, toy.COUNT, CONFIG, out, digest="toy", resume=True).run()
    assert torch.equal(again.values(), torch.tensor(ranks[0]["values"]))


def test_losses_that_are_no_number_in_one_process_stop_both(start, tmp_path):
    out = tmp_path / "two"
    config = dataclasses.asdict(CONFIG)
    process = start(out, {"config": config, "nan_in": [3, 1]}, *LAUNCH)
    text, _ = process.communicate(timeout=600)
    assert process.returncode == 1
    assert text.count("FloatingPointError: loss is nan at step 4, as in the 2 before") == 2
    assert checkpoint.newest(out / "checkpoints").name == "step-2"


def test_two_processes_share_the_rounds(tmp_path):
    online = OnlineConfig(
        rounds=2, samples=40, batch_size=8, guard=GuardConfig(samples=8), loop=CONFIG
    )
    out = tmp_path / "two"
    out.mkdir()
    with starter() as start_python:
        given = json.dumps(dataclasses.asdict(online))
        tests = Path(rounds.__file__).parents[1]
        process = start_python(*LAUNCH, "-m", rounds.__name__, out, given, cwd=tests)
        _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    ranks = [json.loads((out / f"rank-{rank}.json").read_text()) for rank in (0, 1)]
    # Of five batches a round, three are the first one's, which also measures for the guard.
    assert [len(rank["asked"]) - 8 * 3 * (i == 0) for i, rank in enumerate(ranks)] == [48, 32]
    assert ranks[0]["gain"] == ranks[1]["gain"]

    alone, one = Points(), tmp_path / "one"
    settings = dataclasses.replace(online, loop=dataclasses.replace(CONFIG, accumulate=2))
    cost, _ = run_rounds(
        alone, rounds.task(tmp_path / "labelled"), settings, one, digest="d", resume=True
    )
    assert ranks[0]["gain"] == pytest.approx(alone.gain.tolist(), abs=1e-6)
    assert [rank["scored"] for rank in ranks] == [cost.scored] * 2
    for number in (1, 2):
        found, wanted = (
            json.loads((folder / f"round-{number}" / "round.json").read_text())
            for folder in (out / "run", one)
        )
        assert found["selected"] == wanted["selected"] and found["samples"] == 40
