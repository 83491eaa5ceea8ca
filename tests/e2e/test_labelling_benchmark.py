"""The benchmark of labelling measures what it says, at a size that takes a second."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark_labelling import contents, count_whole, label, loop, make, sample

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmark_labelling.py"


def test_its_shards_are_made_by_seed_and_labelled_by_both(tmp_path):
    pytest.importorskip("webdataset")
    source = make(tmp_path, 30, 20, 16)
    assert sorted(path.name for path in source.iterdir()) == ["00000.tar", "00001.tar"]
    before = contents(source)
    assert make(tmp_path, 30, 20, 16) == source and contents(source) == before
    assert sample(0, 16) == sample(0, 16) != sample(1, 16)
    found = label(source, tmp_path / "out")
    assert found["count"] == 30 and found["peak_mb"] > 10 and found["seconds"] > 0
    assert count_whole(tmp_path / "out") == 2
    assert loop(source, tmp_path / "none")["count"] == 30


def test_a_run_in_a_process_of_its_own(tmp_path):
    source = make(tmp_path, 12, 4, 16)
    command = [sys.executable, SCRIPT, "--folder", ".", "--only", "label", source, tmp_path / "out"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=300)
    assert json.loads(done.stdout.splitlines()[-1])["count"] == 12
