"""The toy backend, as a module and as a process."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ric_diffusion

TOY = Path(__file__).with_name("toy.py")


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def toy():
    """The module toy.py, which cannot be imported by name from here."""
    spec = importlib.util.spec_from_file_location("ric_tests_toy", TOY)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def start():
    """start(out, {"config": …}, *launcher) runs toy.py in a process of its own."""
    home = str(Path(ric_diffusion.__file__).parents[1])
    started = []

    def run(out, given, *launcher):
        process = subprocess.Popen(
            [sys.executable, *launcher, str(TOY), str(out), json.dumps(given)],
            env={**os.environ, "PYTHONPATH": home, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()
