"""The tiny model of tests/e2e and the toy backend of tests/training, by path: nothing here can be
imported by name."""

import importlib.util
from pathlib import Path

import pytest


def load(path):
    spec = importlib.util.spec_from_file_location(f"ric_tests_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TESTS = Path(__file__).parents[1]
_e2e = load(TESTS / "e2e" / "conftest.py")
alone, tiny, root, ric, model, files = (
    getattr(_e2e, name) for name in ("alone", "tiny", "root", "ric", "model", "files")
)


@pytest.fixture(scope="session")
def toy():
    return load(TESTS / "training" / "toy.py")
