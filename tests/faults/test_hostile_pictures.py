"""A folder of everything that strangers may call a picture: all of it is named, nothing crashes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import hostile_pictures
from support.processes import ENVIRONMENT

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")

LABEL = """
import sys
from pathlib import Path
import ric_diffusion.api.labelling, ric_diffusion.data.samples as samples
from ric_diffusion.cli import main

def peak():
    [line] = [x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x]
    return int(line.split()[1]) / 1024

samples.cores = lambda: 8
before = peak()
code = main(["label", sys.argv[1], "--scorers", "compressibility", "colorfulness", "--out", "out"])
print(peak() - before)
sys.exit(code)
"""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile") / "pictures"
    return folder, hostile_pictures.write(folder)


def is_harmless(text):
    """What a terminal may print."""
    return all(c.isprintable() or c in "\n\t" for c in text)


def test_each_is_labelled_or_left_out_for_its_reason(hostile, tmp_path):
    folder, reasons = hostile
    done = subprocess.run(
        [sys.executable, "-c", LABEL, folder],
        cwd=tmp_path, env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr
    *lines, megabytes = done.stdout.splitlines()
    assert is_harmless("\n".join(lines)) and float(megabytes) < 1024
    out = tmp_path / "out"
    left_out = {e["file"]: e["reason"] for e in json.loads((out / "skipped.json").read_text())}
    labelled = set(pq.read_table(out / "metadata.parquet")["original"].to_pylist())
    found = {name: left_out.get(name, "" if name in labelled else None) for name in reasons}
    wrong = {
        name: (reason, found[name])
        for name, reason in reasons.items()
        if (found[name] if not reason or found[name] is None else found[name][: len(reason)])
        != reason
    }
    assert wrong == {}
    assert len(reasons) > 150 and len(labelled) > 70
    assert all("\n" not in reason for reason in left_out.values())
    assert os.listdir(tmp_path) == ["out"]  # nothing of theirs has run
    assert all(path.parent.name == "images" for path in (out / "images").rglob("*"))


def test_they_are_scored(hostile, ric, tmp_path, monkeypatch):
    folder, _ = hostile
    monkeypatch.chdir(tmp_path)
    done = ric("score", folder, "--scorers", "colorfulness")
    assert done.code == 0 and is_harmless(done.out) and is_harmless(done.err)
    assert all(line.count("\t") == 1 for line in done.out.splitlines())
    said = done.err.splitlines()
    assert all(line.startswith(f"ric score: {folder}/") for line in said)
    assert all(line.endswith("; skipped") for line in said)
    assert f"ric score: {folder}/nan.tiff: not finite; skipped" in said
    done = ric("score", folder, "--scorers", "colorfulness", "--json")
    names = {Path(json.loads(line)["file"]).name for line in done.out.splitlines()}
    assert "two\nlines.png" in names and "\udcff\udcfe.png" in names
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("case", list(hostile_pictures.leading_out()), ids=lambda case: case.name)
def test_links_out_of_the_folder_are_refused(ric, tmp_path, case):
    folder = tmp_path / "pictures"
    folder.mkdir()
    case.data(folder / case.name)
    done = ric("label", folder, "--scorers", "colorfulness", "--out", tmp_path / "out")
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 1 and case.name in done.err
    assert done.err.endswith(f"leads out of {folder}; copy the file into the folder\n")
