"""The models that come along: within their size, stock, credited, and with sliders of their own."""

import json
from pathlib import Path

import pytest
from diffusers import StableDiffusionPipeline
from PIL import Image

from ric_diffusion.models.known import BUNDLED
from support.numbered import sample_file

SIDES = {"emoji-64": 64, "emoji-128": 128}
LIMITS = {"emoji-64": 64e6, "emoji-128": 72e6}  # bytes


@pytest.fixture(params=BUNDLED)
def model(request) -> str:
    return request.param


@pytest.fixture
def folder(model) -> Path:
    return BUNDLED[model]


def test_size_and_format(model, folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= LIMITS[model]
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".md", ".txt"}


def test_stock_diffusers_runs_it(model, folder):
    for path in folder.rglob("*.json"):
        if path.parent.name != "ric_adapter":
            assert "ric_diffusion" not in path.read_text()
    pipe = StableDiffusionPipeline.from_pretrained(folder, use_safetensors=True)
    pipe.set_progress_bar_config(disable=True)
    image = pipe("red apple", num_inference_steps=2).images[0]
    assert image.size == (SIDES[model],) * 2
    assert image.getextrema() != ((0, 0),) * 3  # black is what NaN becomes


def test_card_credits_every_source(folder):
    card = (folder / "README.md").read_text()
    for word in ("Twemoji", "CC-BY-4.0", "Noto", "Apache-2.0", "Fluent", "MIT"):
        assert word in card


def test_generate(ric, model, tmp_path):
    args = ["--prompt", "red apple", "--targets", "colorfulness=1.5", "--steps", 4]
    done = ric("generate", "--model", model, *args, "--out", tmp_path)
    assert done.code == 0, done.err
    with Image.open(sample_file(tmp_path)) as image:
        assert image.size == (SIDES[model],) * 2
        assert image.text["model"] == model
        assert json.loads(image.text["targets"]) == {"colorfulness": 1.5}
        assert json.loads(image.text["obtained"]).keys() == {"colorfulness", "compressibility"}


def test_sweep_is_the_default_models(ric, tmp_path):
    args = ["--prompt", "red apple", "--points", 3, "--steps", 2, "--out", tmp_path]
    assert ric("sweep", *args).code == 0
    metadata = json.loads((tmp_path / "sweep.json").read_text())
    assert metadata["model"] == "emoji-64" and len(metadata["points"]) == 3
