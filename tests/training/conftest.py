"""The toy backend, as a module and as a process."""

import json
import subprocess

import pytest
import torch

from support import toy as toy_backend
from support.processes import starter


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def toy():
    return toy_backend


@pytest.fixture
def start():
    """start(out, {"config": …}, *launcher) runs toy.py in a process of its own."""
    with starter() as start_python:

        def run(out, given, *launcher):
            program = [*launcher, toy_backend.__file__, out, json.dumps(given)]
            return start_python(*program, stderr=subprocess.STDOUT)

        yield run
