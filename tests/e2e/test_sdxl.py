"""Everything there is for Stable Diffusion, on a small Stable Diffusion XL: from pictures to
adapter, rounds, report, calibrated sliders, app and export."""

import json

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.torch import load_file

from ric_diffusion.app.engine import Engine
from ric_diffusion.app.jobs import Job
from ric_diffusion.models.family import load_model
from support import sdxl

SETTINGS = {
    "lora": {"rank": 4, "alpha": 4, "targets": ["attention", "feed_forward", "convolution"]},
    "sampling": {"guidance_scale": 3.0, "num_inference_steps": 2, "contrast": 1.0},
}
LOOP = {
    "steps": 4,
    "batch_size": 4,
    "learning_rate": 0.02,
    "precision": "fp32",
    "log_every": 1,
    "checkpoint_minutes": 0,
}


@pytest.fixture(scope="module")
def xl(tmp_path_factory):
    return sdxl.write(tmp_path_factory.mktemp("xl") / "model")


def config(root, xl, mode, **more):
    return {
        "model": str(xl),
        "data": str(root / "labelled"),
        "diffusion": {**SETTINGS, "mode": mode},
        **more,
    }


def write(path, content):
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module", params=["embedding", "text"])
def trained(request, root, xl, tmp_path_factory):
    """(mode, run folder, adapter folder)"""
    from ric_diffusion import api

    out = tmp_path_factory.mktemp("run") / request.param
    path = out.parent / "train.yaml"
    write(path, config(root, xl, request.param, loop=LOOP))
    result = api.train(path, out=out)
    return request.param, out, result.adapter


def test_a_killed_training_goes_on_to_the_same_adapter(trained, root, xl, ric, tmp_path):
    mode, _, adapter = trained
    half = write(tmp_path / "a.yaml", config(root, xl, mode, loop=LOOP))
    from ric_diffusion.training.trainer import Trainer

    step, seen = Trainer.step, []

    def stop(self):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(step(self))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "step", stop)
        assert ric("train", half, "--out", tmp_path / "run").code == 130
    done = ric("train", half, "--out", tmp_path / "run", "--resume")
    assert done.code == 0, done.err
    found = load_file(tmp_path / "run" / "adapter" / "pytorch_lora_weights.safetensors")
    wanted = load_file(adapter / "pytorch_lora_weights.safetensors")
    assert found.keys() == wanted.keys()
    assert all((found[key] == wanted[key]).all() for key in wanted)


def test_drawn_and_swept(trained, xl, ric, tmp_path):
    mode, _, adapter = trained
    model = ["--model", xl, "--adapter", adapter, "--prompt", "red apple"]
    done = ric("generate", *model, "--preference", "colorfulness=1", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    with Image.open(tmp_path / "out" / "0.png") as picture:
        assert picture.size == (64, 64) and set(json.loads(picture.text["targets"]))
    done = ric("sweep", *model, "--points", 3, "--out", tmp_path / "sweep")
    assert done.code == 0, done.err
    points = json.loads((tmp_path / "sweep" / "sweep.json").read_text())["points"]
    assert len(points) == 3 and points[0]["targets"] != points[2]["targets"]
    done = ric("prompt", *model[2:], "--model", xl, "--targets", "colorfulness=1.5")
    if mode == "text":
        assert done.out.strip() == "red apple <colorfulness> 1.5"
    else:
        assert done.code == 2 and "learned tokens" in done.err


def test_an_online_round(trained, root, xl, ric, tmp_path):
    mode, _, adapter = trained
    online = {
        "rounds": 1,
        "samples": 8,
        "batch_size": 4,
        "guard": {"samples": 8, "diversity": 0.0, "prompt_r_precision": 0.0},
        "loop": {**LOOP, "steps": 2},
    }
    path = write(
        tmp_path / "online.yaml", config(root, xl, mode, adapter=str(adapter), online=online)
    )
    done = ric("online", path, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    about = json.loads((tmp_path / "run" / "adapter" / "ric_adapter.json").read_text())
    assert about["family"] == "stable-diffusion-xl" and about["training"]["rounds"] == 1


def test_evaluated_and_calibrated(trained, xl, ric, tmp_path):
    _, _, adapter = trained
    (tmp_path / "prompts.txt").write_text("red apple\ncat face\n")
    args = ["--prompts", tmp_path / "prompts.txt", "--points", 2, "--seeds", 1]
    model = ["--model", xl, "--adapter", adapter]
    done = ric("evaluate", *model, "none", *args, "--out", tmp_path / "report")
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert [len(method["points"]) for method in found["methods"]] == [2, 1]
    done = ric("evaluate", *model, *args, "--calibrate", "--out", tmp_path / "calibrated")
    assert done.code == 0, done.err
    assert (tmp_path / "calibrated" / "index.html").exists()


def test_the_apps_engine_draws_sweeps_and_moves_a_picture(trained, xl, tmp_path):
    _, _, adapter = trained
    engine = Engine(load_model(xl, adapter), str(xl))
    request = engine.request("red apple", 0, targets={"colorfulness": 1.0})
    drawn = engine.draw(request, Job())
    assert drawn.sample.size == (64, 64) and drawn.metadata["obtained"]
    line = engine.line("colorfulness", None, 2)
    assert len(engine.sweep(request, line, Job()).samples) == 2
    drawn.sample.save(tmp_path / "a.png")
    moved = engine.transform(request, tmp_path / "a.png", 0.5, Job())
    assert not np.array_equal(np.asarray(moved.sample), np.asarray(drawn.sample))


def test_exported(trained, ric, tmp_path):
    out = tmp_path / "sliders.safetensors"
    done = ric("export", "--adapter", trained[2], "--format", "kohya", "--out", out)
    assert done.code == 0, done.err
    assert all(key.startswith("lora_unet_") for key in load_file(out))
