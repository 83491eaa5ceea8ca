"""Labellings that are killed, or run side by side, end as one that runs alone and undisturbed."""

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
        assert {path.name.split("-")[0] for path in out.iterdir()} == {"run.json", "scores"}
    resumed = make_scorer()
    label_folder(folder, out, [resumed], batch_size=2, progress=False)

    # Only the batches under way when the process was killed are scored again.
    numbers = [int(line.split()[1]) for line in [*log.read_text().splitlines(), *resumed.seen]]
    assert numbers == [0, 1, 2, 3, 2, 3, 4, 5, 6, 7, 6, 7, 8, 9]
    label_folder(folder, tmp_path / "whole", [make_scorer()], batch_size=2, progress=False)
    assert output(out) == output(tmp_path / "whole")


# Two processes score and publish together; the barrier makes them begin at once.
TOGETHER = """
import os, sys, time
import numpy as np
import scorers
from pathlib import Path
from ric_diffusion.data.label import label_folder

folder, out, me, other = map(Path, sys.argv[1:])

class Slow(scorers.BaseScorer):
    name, unit, fingerprint, options = "brightness", "level", "brightness-1", {"gain": 1.0}
    def _score(self, images, prompts):
        time.sleep(0.01)
        return [np.mean(image) for image in images]

me.touch()
while not other.exists():
    time.sleep(0.001)
report = label_folder(folder, out, [Slow()], batch_size=2, progress=False)
assert report.count == 10 and not report.skipped
"""


def test_two_at_once_into_one_folder(folder, tmp_path, make_scorer):
    label_folder(folder, tmp_path / "whole", [make_scorer()], batch_size=2, progress=False)
    expected = output(tmp_path / "whole")
    home = str(Path(ric_diffusion.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": home}
    for trial in range(3):
        out = tmp_path / f"out-{trial}"
        here, there = tmp_path / f"a-{trial}", tmp_path / f"b-{trial}"
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", TOGETHER, *map(str, (folder, out, *pair))],
                env=environment,
                stderr=subprocess.PIPE,
            )
            for pair in ((here, there), (there, here))
        ]
        for process in processes:
            _, error = process.communicate(timeout=300)
            assert process.returncode == 0, error.decode()
        assert output(out) == expected
        assert not list(out.rglob(".tmp-*"))
        again = label_folder(folder, out, [make_scorer()], progress=False)
        assert (again.written, again.scored) == (False, {"brightness": 0})


def output(out: Path) -> dict[str, bytes]:
    """Bytes by path of all but the journals."""
    files = [path for path in out.rglob("*") if path.is_file() and path.suffix != ".jsonl"]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}
