"""emoji-64 as it is bundled: within its size, stock, credited, and with sliders of its own."""

import json
from pathlib import Path

from diffusers import StableDiffusionPipeline
from PIL import Image

import ric_diffusion
from support.numbered import sample_file

FOLDER = Path(ric_diffusion.__file__).parent / "assets" / "emoji-64"


def test_size_and_format():
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 64e6
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".md", ".txt"}


def test_stock_diffusers_runs_it():
    for path in FOLDER.rglob("*.json"):
        if path.parent.name != "ric_adapter":
            assert "ric_diffusion" not in path.read_text()
    pipe = StableDiffusionPipeline.from_pretrained(FOLDER, use_safetensors=True)
    pipe.set_progress_bar_config(disable=True)
    image = pipe("red apple", num_inference_steps=2).images[0]
    assert image.size == (64, 64)
    assert image.getextrema() != ((0, 0),) * 3  # black is what NaN becomes


def test_card_credits_every_source():
    card = (FOLDER / "README.md").read_text()
    for word in ("Twemoji", "CC-BY-4.0", "Noto", "Apache-2.0", "Fluent", "MIT"):
        assert word in card


def test_generate(ric, tmp_path):
    args = ["--prompt", "red apple", "--targets", "colorfulness=1.5", "--steps", 4]
    done = ric("generate", "--model", "emoji-64", *args, "--out", tmp_path)
    assert done.code == 0, done.err
    with Image.open(sample_file(tmp_path)) as image:
        assert image.size == (64, 64)
        assert image.text["model"] == "emoji-64"
        assert json.loads(image.text["targets"]) == {"colorfulness": 1.5}
        assert json.loads(image.text["obtained"]).keys() == {"colorfulness", "compressibility"}


def test_sweep_is_the_default_models(ric, tmp_path):
    args = ["--prompt", "red apple", "--points", 3, "--steps", 2, "--out", tmp_path]
    assert ric("sweep", *args).code == 0
    metadata = json.loads((tmp_path / "sweep.json").read_text())
    assert metadata["model"] == "emoji-64" and len(metadata["points"]) == 3
