"""A labelling that is killed, again and again, ends as if it never had been."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ric_diffusion
from ric_diffusion.data.label import label_folder

# The scorer writes down every picture it scores; with a delay, so that there is time to kill it.
PROGRAM = """
import sys, time
from pathlib import Path
import numpy as np
import scorers
from ric_diffusion.data.label import label_folder

folder, out, log, delay = sys.argv[1:]

class Slow(scorers.BaseScorer):
    name, unit, fingerprint, options = "brightness", "level", "brightness-1", {"gain": 1.0}
    def _score(self, images, prompts):
        with open(log, "a") as file:
            file.writelines(prompt + "\\n" for prompt in prompts)
        time.sleep(float(delay))
        return [np.mean(image) for image in images]

label_folder(folder, out, [Slow()], batch_size=2, progress=False)
"""

BATCHES = 5


def start(folder: Path, out: Path, log: Path, delay: float) -> subprocess.Popen:
    home = str(Path(ric_diffusion.__file__).parents[1])
    command = [sys.executable, "-c", PROGRAM, str(folder), str(out), str(log), str(delay)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": home})


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_killed_and_resumed(folder, tmp_path, make_scorer):
    out, log = tmp_path / "out", tmp_path / "log"
    for stop in (1, 3):  # scored batches in the journal when the process is killed
        process = start(folder, out, log, delay=0.4)
        deadline = time.monotonic() + 60
        while lines(out / "scores.jsonl") < 1 + stop and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert os.listdir(out) == ["scores.jsonl"]
    done = lines(out / "scores.jsonl") - 1
    assert 3 <= done < BATCHES
    assert start(folder, out, log, delay=0).wait() == 0

    # A batch under way when the process was killed is scored again, the others are not.
    scored = log.read_text().splitlines()
    assert len(set(scored)) == 10
    assert len(scored) <= 10 + 2 * 2
    label_folder(folder, tmp_path / "whole", [make_scorer()], batch_size=2, progress=False)
    for name in ("metadata.parquet", "reward_space.json", "skipped.json"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert sorted(os.listdir(out / "images")) == sorted(os.listdir(tmp_path / "whole" / "images"))
