"""A labelling that is killed, again and again, ends as if it never had been."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import ric_diffusion
from ric_diffusion.data.label import label_folder

# The scorer writes down every picture it scores, and kills its own process in its batch `last`.
PROGRAM = """
import os, signal, sys
import numpy as np
import scorers
from ric_diffusion.data.label import label_folder

folder, out, log, last = sys.argv[1:]

class Deadly(scorers.BaseScorer):
    name, unit, fingerprint, options = "brightness", "level", "brightness-1", {"gain": 1.0}
    batches = 0
    def _score(self, images, prompts):
        with open(log, "a") as file:
            file.writelines(prompt + "\\n" for prompt in prompts)
        self.batches += 1
        if self.batches == int(last):
            os.kill(os.getpid(), signal.SIGKILL)
        return [np.mean(image) for image in images]

label_folder(folder, out, [Deadly()], batch_size=2, progress=False)
"""


def run(*arguments: object) -> int:
    home = str(Path(ric_diffusion.__file__).parents[1])
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": home}, timeout=300).returncode


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_killed_and_resumed(folder, tmp_path, make_scorer):
    out, log = tmp_path / "out", tmp_path / "log"
    for last in (2, 3):  # of five batches: 1 is done, then 2 more
        assert run(folder, out, log, last) == -signal.SIGKILL
        assert os.listdir(out) == ["scores.jsonl"]
    resumed = make_scorer()
    label_folder(folder, out, [resumed], batch_size=2, progress=False)

    # Only the batches under way when the process was killed are scored again.
    numbers = [int(line.split()[1]) for line in [*log.read_text().splitlines(), *resumed.seen]]
    assert numbers == [0, 1, 2, 3, 2, 3, 4, 5, 6, 7, 6, 7, 8, 9]
    label_folder(folder, tmp_path / "whole", [make_scorer()], batch_size=2, progress=False)
    for name in ("metadata.parquet", "reward_space.json", "skipped.json"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert sorted(os.listdir(out / "images")) == sorted(os.listdir(tmp_path / "whole" / "images"))
