"""A real `ric train` that is interrupted, then killed, ends as if it never had been."""

import json
import signal
import time
from pathlib import Path

import pytest

from ric_diffusion.training import checkpoint
from support.processes import starter

# The command line, with a delay in each step so that there is time to stop it.
PROGRAM = """
import signal, sys, time
import torch
from ric_diffusion.cli import main
from ric_diffusion.models.diffusion.backend import DiffusionBackend

torch.set_num_threads(1)
# Whoever runs the tests in the background has Ctrl-C ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
loss = DiffusionBackend.loss

def slow(self, batch):
    time.sleep(0.15)
    return loss(self, batch)

DiffusionBackend.loss = slow
sys.exit(main(sys.argv[1:]))
"""
STEPS = 24


@pytest.fixture
def start():
    with starter() as start_python:
        yield lambda *args: start_python("-c", PROGRAM, *args)


def wait_for(process, out, steps):
    deadline = time.monotonic() + 300
    while process.poll() is None and steps_done(out) < steps:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def steps_done(out):
    last = checkpoint.newest(out / "checkpoints")
    return int(last.name.removeprefix("step-")) if last else 0


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_interrupted_killed_and_resumed(start, ric, root, tiny, files, tmp_path):
    data = tiny.config(root, "embedding", prompts=[])
    data["loop"] |= {"steps": STEPS, "checkpoint_minutes": 0, "log_every": 5}
    path = tiny.write_config(tmp_path / "config.yaml", data)
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert ric("train", path, "--out", whole).code == 0

    process = start("train", path, "--out", out)
    wait_for(process, out, 3)
    process.send_signal(signal.SIGINT)
    printed, err = process.communicate()
    assert (process.returncode, printed) == (130, ""), err
    assert "Traceback" not in err
    interrupted_at = steps_done(out)
    assert err.splitlines()[-1] == (
        f"ric train: stopped after step {interrupted_at}, of which there is a checkpoint; "
        "--resume goes on where it stopped"
    )
    assert 3 <= interrupted_at < STEPS

    process = start("train", path, "--out", out, "--resume")
    wait_for(process, out, interrupted_at + 4)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, process.communicate()
    assert interrupted_at + 4 <= steps_done(out) < STEPS
    assert not (out / "adapter").exists()

    assert ric("train", path, "--out", out, "--resume").code == 0
    assert files(out / "adapter") == files(whole / "adapter")
    # Parameters, their average and the optimizer's moments, to the last bit.
    last = Path("checkpoints") / f"step-{STEPS}"
    stored = [files(folder / last) for folder in (out, whole)]
    for found in stored:
        del found[Path("manifest.json")]  # has the digest of those seconds, too
    states = [json.loads(found.pop(Path("state.json"))) for found in stored]
    for state in states:
        assert state["cost"].pop("seconds") > 0  # of the wall; all the rest is the same
    assert stored[0] == stored[1] and states[0] == states[1]
    assert (out / "log.jsonl").read_bytes() == (whole / "log.jsonl").read_bytes()
    steps = [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()]
    assert steps == [5, 10, 15, 20, 24]
