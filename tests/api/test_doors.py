"""One request gives one picture, whichever door it comes in by."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ric_diffusion import RiCPipeline, api, generate
from ric_diffusion.app.choice import ModelChoice
from ric_diffusion.app.engine import Engine
from ric_diffusion.app.jobs import Job
from support.numbered import sample_file

REQUESTS = {
    "targets": ({"targets": {"compressibility": 1.2, "colorfulness": -0.5}}, {}),
    "preference": ({"preference": {"compressibility": 3, "colorfulness": 1}}, {}),
    "auto": ({}, {}),
    "other sampling": ({"targets": {"colorfulness": 1.0}}, {"steps": 2, "guidance_scale": 5.0}),
}


def words(asked, sampling):
    """The same on the command line."""
    for name, values in asked.items():
        yield from (f"--{name}", *(f"{reward}={value}" for reward, value in values.items()))
    for name, value in sampling.items():
        yield from (f"--{name.replace('_', '-')}", str(value))


@pytest.mark.parametrize("mode", ["embedding", "text"])
@pytest.mark.parametrize("request_", REQUESTS)
def test_all_doors_give_one_picture(ric, root, tmp_path, mode, request_):
    asked, sampling = REQUESTS[request_]
    model, adapter = str(root / "model"), str(root / mode / "adapter")
    args = ["--model", model, "--adapter", adapter, "--prompt", "red apple", "--seed", 3]
    assert ric("generate", *args, *words(asked, sampling), "--out", tmp_path / "cli").code == 0
    with Image.open(sample_file(tmp_path / "cli", 3)) as image:
        expected, metadata = np.array(image), json.loads(image.text["targets"])

    same = {"seed": 3, "sampling": sampling, **asked}
    [named] = generate(model, "red apple", adapter=adapter, out=tmp_path / "api", **same)
    loaded = api.load(model, adapter)
    [reused] = generate(loaded, "red apple", **same)
    found = {"by name": named.sample, "loaded": reused.sample}
    assert named.path == sample_file(tmp_path / "api", 3)
    assert named.path.read_bytes() == sample_file(tmp_path / "cli", 3).read_bytes()
    assert named.metadata == reused.metadata and dict(named.targets) == metadata

    pipe = RiCPipeline.from_pretrained(model)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_adapter(adapter)
    own = {"steps": "num_inference_steps"}
    arguments = {own.get(name, name): value for name, value in sampling.items()}
    generator = torch.Generator().manual_seed(3)
    output = pipe("red apple", generator=generator, **asked, **arguments)
    found["pipeline"] = output.images[0]
    assert output.targets == [metadata]

    if not sampling:  # the app has the adapter's own
        engine = Engine(loaded, ModelChoice.of(model))
        drawn = engine.draw(engine.request("red apple", 3, **asked), Job())
        found["app"] = drawn.sample
        assert drawn == replace(reused, settings=drawn.settings)
    for door, sample in found.items():
        assert np.array_equal(np.array(sample), expected), door
