"""The tiny model behind the app's engine, and the command line as in tests/e2e."""

import importlib.util
from pathlib import Path

import pytest
import torch

from ric_diffusion.app.choice import ModelChoice
from ric_diffusion.app.engine import Engine
from ric_diffusion.app.jobs import Job

_path = Path(__file__).parents[1] / "e2e" / "conftest.py"
_spec = importlib.util.spec_from_file_location("ric_tests_e2e_for_app", _path)
_e2e = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_e2e)
alone, tiny, root, ric, model, refused, place = (
    getattr(_e2e, name) for name in ("alone", "tiny", "root", "ric", "model", "refused", "place")
)


@pytest.fixture(scope="session")
def make_engine(root):
    """make_engine("text"): an engine of its own."""

    def make(mode="embedding"):
        torch.set_num_threads(1)
        choice = ModelChoice.of(str(root / "model"), root / mode / "adapter")
        return Engine(choice.load(), choice)

    return make


@pytest.fixture(scope="session")
def engine(make_engine):
    return make_engine()


@pytest.fixture
def job():
    return Job()
