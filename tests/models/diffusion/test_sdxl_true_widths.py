"""Stable Diffusion XL with its true widths, blocks and tokenizers in fewer layers: trained, saved,
and drawn with again by another process. The stock pipeline loads what was trained."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from PIL import Image

from ric_diffusion.models.diffusion.backend import DiffusionConfig, LoraConfig
from ric_diffusion.models.diffusion.families.sdxl import FAMILY
from ric_diffusion.models.protocol import Batch
from support import sdxl
from support.processes import ENVIRONMENT, HOME

SAMPLING = {"guidance_scale": 5.0, "num_inference_steps": 1, "height": 64, "width": 64}
TARGETS = {"colorfulness": 1.5, "compressibility": -0.5}
STEPS = 6
ELSEWHERE = """
import sys, torch
from ric_diffusion import RiCPipeline
torch.set_num_threads(1)
folder, adapter, out = sys.argv[1:]
pipe = RiCPipeline.from_pretrained(folder)
pipe.load_adapter(adapter)
generator = torch.Generator().manual_seed(0)
pipe("a red apple", targets={targets}, generator=generator).images[0].save(out)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return sdxl.write(tmp_path_factory.mktemp("wide") / "model", wide=True)


def test_trained_saved_loaded_elsewhere_and_by_the_stock_pipeline(
    folder, space, pictures, tmp_path
):
    pixels, records = pictures
    settings = DiffusionConfig(
        lora=LoraConfig(rank=4, alpha=4, targets=("attention", "feed_forward")),
        min_snr_gamma=5.0,
        resolution=64,
        mirror=False,
        sampling=SAMPLING,
    )
    backend = FAMILY.create_backend(str(folder), space, settings)
    backend.prepare(records[:4], pixels, tmp_path / "cache")
    optimizer = torch.optim.AdamW(backend.named_parameters().values(), lr=1e-3)
    for step in range(STEPS):
        batch = Batch(indices=(step % 4,), generator=torch.Generator().manual_seed(step))
        loss = backend.loss(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        assert loss.isfinite()
    backend.save(tmp_path / "adapter")
    weights = FAMILY.read_adapter(tmp_path / "adapter")[1]
    assert all(weights.delta(module).abs().max() > 0 for module in weights.modules)
    del backend, optimizer

    pipe = FAMILY.load(str(folder), "cpu", torch.float32)
    plain = draw(pipe)
    pipe.load_adapter(tmp_path / "adapter")
    context = pipe.encode_context(["a red apple, " * 60], [TARGETS])
    assert context.states.shape == (1, 77 + 2, 2048) and context.pooled.shape == (1, 1280)
    ours = draw(pipe, targets=TARGETS)
    assert ours.tobytes() != plain.tobytes()
    assert draw(pipe, targets={"colorfulness": -1.5}).tobytes() != ours.tobytes()
    found = drawn_elsewhere(folder, tmp_path / "adapter", tmp_path / "elsewhere.png")
    assert found.tobytes() == ours.tobytes()
    pipe.unload_adapter()
    assert draw(pipe, **SAMPLING).tobytes() == draw(pipe, **SAMPLING).tobytes()
    stock = StableDiffusionXLPipeline(**pipe.components)
    stock.set_progress_bar_config(disable=True)
    before = draw(stock, **SAMPLING)
    assert draw(pipe, **SAMPLING).tobytes() == before.tobytes()
    stock.load_lora_weights(tmp_path / "adapter")
    assert draw(stock, **SAMPLING).tobytes() != before.tobytes()


def draw(pipe, **given):
    given = {**SAMPLING, **given}
    return pipe("a red apple", generator=torch.Generator().manual_seed(0), **given).images[0]


def drawn_elsewhere(folder: Path, adapter: Path, out: Path):
    """The same picture by a process of its own."""
    code = ELSEWHERE.replace("{targets}", repr(TARGETS))
    command = [sys.executable, "-c", code, str(folder), str(adapter), str(out)]
    done = subprocess.run(
        command, env={**os.environ, **ENVIRONMENT}, cwd=HOME, capture_output=True,
        text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with Image.open(out) as picture:
        return picture.copy()
