"""The tiny model and its folders, and the command line as in tests/e2e."""

import importlib.util
from pathlib import Path

_path = Path(__file__).parents[1] / "e2e" / "conftest.py"
_spec = importlib.util.spec_from_file_location("ric_tests_e2e_for_api", _path)
_e2e = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_e2e)
alone, tiny, root, ric, files = (
    getattr(_e2e, name) for name in ("alone", "tiny", "root", "ric", "files")
)
