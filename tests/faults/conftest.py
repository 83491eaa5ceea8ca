"""The tiny model and the command line as in tests/e2e, the toy backend as in tests/training."""

import importlib.util
from pathlib import Path

import pytest

from support import toy as toy_backend

_path = Path(__file__).parents[1] / "e2e" / "conftest.py"
_spec = importlib.util.spec_from_file_location("ric_tests_e2e", _path)
_e2e = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_e2e)
alone, tiny, root, ric, model, files = (
    getattr(_e2e, name) for name in ("alone", "tiny", "root", "ric", "model", "files")
)


@pytest.fixture(scope="session")
def toy():
    return toy_backend
