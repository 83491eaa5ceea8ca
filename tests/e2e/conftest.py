"""The tiny model and its folders, and the command line in this process or another one."""

import os
import re
import runpy
import subprocess
import sys
from dataclasses import dataclass

import huggingface_hub
import pytest
import torch
from safetensors import safe_open

from ric_diffusion.cli import main
from ric_diffusion.evaluation import metrics as figures
from support import tiny as tiny_model
from support.processes import ENVIRONMENT


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """One thread, and no hub to wait for."""
    torch.set_num_threads(1)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture(scope="session")
def tiny():
    return tiny_model


@pytest.fixture(scope="session")
def root(tiny, tmp_path_factory):
    """model/, pictures/, labelled/, embedding/ and text/; tests/rejected finds them there too."""
    return tiny.make(tmp_path_factory.getbasetemp() / "tiny")


@dataclass
class Done:
    code: int
    out: str
    err: str


@pytest.fixture
def ric(capsys):
    """ric("score", path, …) is the command line in this process."""

    def run(*args):
        capsys.readouterr()
        try:
            code = main([str(arg) for arg in args])
        except SystemExit as stop:  # argparse
            code = stop.code
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def ric_process():
    """The same in a process of its own."""

    def run(*args):
        done = subprocess.run(
            [sys.executable, "-m", "ric_diffusion", *map(str, args)],
            env={**os.environ, **ENVIRONMENT},
            capture_output=True,
            text=True,
            timeout=600,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def script(monkeypatch, capsys):
    """script(path, *arguments) runs a benchmark in this process: its exit code, output, errors."""
    resamples = figures.resamples  # a thousand draws of tiny data would take most of the time
    monkeypatch.setattr(figures, "resamples", lambda shape, n, seed: resamples(shape, 20, seed))
    monkeypatch.setattr(figures, "REFERENCE", -1e3)  # noise is far below any training data

    def run(path, *arguments):
        monkeypatch.syspath_prepend(str(path.parent))
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
        capsys.readouterr()
        try:
            runpy.run_path(str(path), run_name="__main__")
            code = 0
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def model(root):
    """Arguments: the tiny model with its adapter of embedding mode."""
    return ["--model", root / "model", "--adapter", root / "embedding" / "adapter"]


@pytest.fixture
def files():
    """files(folder): what is in it, byte for byte; safetensors writes its metadata in any order."""

    def read(folder):
        return {p.relative_to(folder): content(p) for p in folder.rglob("*") if p.is_file()}

    return read


def content(path):
    if path.suffix != ".safetensors":
        return path.read_bytes()
    with safe_open(path, framework="np") as file:
        names = sorted(file.keys())
        return file.metadata(), [(name, file.get_tensor(name).tobytes()) for name in names]


@pytest.fixture
def place(root, tiny, tmp_path, monkeypatch):
    """The working folder, with a few things in it that are no models and no folders to write to."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_file").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bogus").mkdir()
    (tmp_path / "bogus" / "model_index.json").write_text('{"_class_name": "SomePipeline"}')
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "ric_adapter.json").write_text('{"format_ver')
    (tmp_path / "future").mkdir()
    (tmp_path / "future" / "ric_adapter.json").write_text('{"format_version": 99}')
    return tmp_path


@pytest.fixture
def refused(ric, root, place):
    """refused(said, *args): one line, beside bars, exit code 2, nothing written. "{root}" in the
    arguments is the tiny model's folder."""

    def run(said, *args):
        before = listing(place), listing(root)
        done = ric(*[str(arg).format(root=root) for arg in args])
        assert done.code == 2, done
        assert done.out == ""
        said_lines = filter(None, done.err.splitlines())
        (line,) = (line for line in said_lines if not re.match(r"\w+: +\d+%\|", line))
        assert line.startswith(f"ric {args[0]}: ")
        assert said in line
        assert (listing(place), listing(root)) == before

    return run


def listing(folder):
    return {
        str(path): path.stat().st_mtime_ns if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }
