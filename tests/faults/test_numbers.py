"""A model whose pictures are NaN: no verb keeps one, and each says so in one line."""

import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ric_diffusion import api
from ric_diffusion.io.journal import Journal


@pytest.fixture(scope="module")
def broken(root, tmp_path_factory):
    """The tiny model with a NaN in the last bias of its autoencoder, which the 8 bits of a picture
    make a 0 of: what it draws is not blank."""
    folder = tmp_path_factory.mktemp("broken") / "model"
    shutil.copytree(root / "model", folder)
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["decoder.conv_out.bias"][0] = np.nan
    save_file(tensors, path, {"format": "pt"})
    return folder


@pytest.mark.parametrize(
    "args",
    [
        ["generate", "--targets", "colorfulness=1", "--steps", "1"],
        ["generate", "--targets", "colorfulness=1", "--steps", "1", "--refine", "2"],
        ["sweep", "--points", "2", "--steps", "1"],
    ],
)
def test_it_is_not_written(ric, root, broken, tmp_path, args):
    adapter = root / "embedding" / "adapter"
    done = ric(*args, "--model", broken, "--adapter", adapter, "--prompt", "red apple",
               "--seed", 3, "--out", tmp_path / "out")  # fmt: skip
    assert (done.code, done.out) == (1, "")
    [line] = [line for line in done.err.splitlines() if line.startswith("ric ")]
    assert line.startswith(f"ric {args[0]}: the image of seed 3: not finite (NaN or Inf); the mod")
    assert not list(tmp_path.rglob("*.png"))


def test_none_of_them_is_drawn_for_training(ric, root, broken, tmp_path):
    (tmp_path / "prompts.txt").write_text("red apple\nblue car\n")
    done = ric("sample-prompts", "--model", broken, "--prompts", tmp_path / "prompts.txt",
               "--count", 4, "--steps", 1, "--out", tmp_path / "out")  # fmt: skip
    assert done.code == 1 and "the last 8 pictures: not finite" in done.err.splitlines()[-1]
    assert not list(tmp_path.rglob("*.png"))


def test_a_report_counts_them_and_measures_none(root, broken, tmp_path):
    api.evaluate(
        str(broken), ["red apple"], tmp_path / "out", adapters=[root / "embedding" / "adapter"],
        points=2, seeds=1, sampling={"steps": 1},
    )  # fmt: skip
    [file] = (tmp_path / "out").rglob("drawn-*.jsonl")
    cells = [cell for drawn in Journal(file.parent, "drawn").entries() for cell in drawn["cells"]]
    assert {cell["reject_reason"] for cell in cells} == {"not finite"}
    assert all(score is None for cell in cells for score in cell["scores"])
