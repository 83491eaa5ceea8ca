"""Execute notebooks: from each N-name.py, in jupytext's percent format, the N-name.ipynb beside it.

python scripts/run_notebooks.py [notebooks/1-sliders.py …]    # all of them by default
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import tempfile
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from PIL import Image

HOME = Path(__file__).resolve().parents[1]
ENVIRONMENT = {
    "PYTHONPATH": str(HOME),
    "OMP_NUM_THREADS": "1",  # what is committed should not depend on the machine
    "HF_HUB_OFFLINE": "1",
}
WIDGET = "application/vnd.jupyter.widget-view+json"


def executed(source: Path, folder: Path) -> Any:
    """The notebook that ``source`` says, executed in ``folder`` by a kernel of this very Python."""
    notebook = jupytext.read(source)
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # else drawn afresh each time
    kernel = AsyncKernelManager(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(
        notebook, km=kernel, timeout=600, record_timing=False, resources=resources
    )
    client.execute(env={**os.environ, **ENVIRONMENT}, cleanup_kc=True)
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [tidy(output) for output in cell.outputs if not noise(output)]
    return notebook


def noise(output: Any) -> bool:
    """Progress and warnings of libraries."""
    return output.get("name") == "stderr" or WIDGET in output.get("data", {})


def tidy(output: Any) -> Any:
    """With a picture as PNG alone, where Pillow offers JPEG too, in all its colours."""
    if png := output.get("data", {}).get("image/png"):
        image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
        file = io.BytesIO()
        image.save(file, "png", optimize=True)
        output.data["image/png"] = base64.b64encode(file.getvalue()).decode()
        output.data.pop("image/jpeg", None)
    return output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", nargs="*", type=Path, metavar="NOTEBOOK.py")
    options = parser.parse_args()
    for source in options.sources:
        if not source.is_file():
            parser.exit(2, f"{parser.prog}: {source}: no such file; name a notebook's .py\n")
    for source in options.sources or sorted((HOME / "notebooks").glob("*.py")):
        with tempfile.TemporaryDirectory() as folder:
            notebook = executed(source, Path(folder))
        path = source.with_suffix(".ipynb")
        nbformat.write(notebook, path)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
