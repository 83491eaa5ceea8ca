"""Everything there is for Stable Diffusion, on small models of the other families: from pictures
to adapter, rounds, report, calibrated sliders, app and export."""

import importlib
import json

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from ric_diffusion import api
from ric_diffusion.app.choice import ModelChoice
from ric_diffusion.app.engine import Engine
from ric_diffusion.app.jobs import Job
from ric_diffusion.models.family import family_of, load_model
from support.numbered import sample_file

# The module of each family's small model, and the mode that is tried.
FAMILIES = {
    "stable-diffusion-xl": ("sdxl", "text"),
    "stable-diffusion-3": ("sd3", "embedding"),
    "flux": ("flux", "text"),
    "z-image": ("z_image", "embedding"),
}
ARCHITECTURES = {
    "stable-diffusion-xl": "stable-diffusion-xl-v1-base",
    "stable-diffusion-3": "stable-diffusion-v3.5-medium",
    "flux": "flux-1-dev",
    "z-image": "z-image",
}
SETTINGS = {
    "lora": {"rank": 4, "alpha": 4, "targets": ["attention", "feed_forward"]},
    "resolution": 64,
}
LOOP = {
    "steps": 4,
    "batch_size": 4,
    "learning_rate": 0.02,
    "precision": "fp32",
    "log_every": 1,
    "checkpoint_minutes": 0,
}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def small(family, tmp_path_factory):
    builder = importlib.import_module(f"support.{FAMILIES[family][0]}")
    return builder.write(tmp_path_factory.mktemp("small") / "model")


def config(root, small, mode, **more):
    scale = family_of(small).guidance
    sampling = {scale: 3.0, "num_inference_steps": 2, "contrast": 1.0, "height": 64, "width": 64}
    return {
        "model": str(small),
        "data": str(root / "labelled"),
        "diffusion": {**SETTINGS, "mode": mode, "sampling": sampling},
        **more,
    }


def write(path, content):
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def trained(family, root, small, tmp_path_factory):
    """(mode, run folder, adapter folder)"""
    mode = FAMILIES[family][1]
    out = tmp_path_factory.mktemp("run") / mode
    path = write(out.parent / "train.yaml", config(root, small, mode, loop=LOOP))
    return mode, out, api.train(path, out=out).adapter


def test_a_killed_training_goes_on_to_the_same_adapter(trained, root, small, ric, tmp_path):
    mode, _, adapter = trained
    half = write(tmp_path / "a.yaml", config(root, small, mode, loop=LOOP))
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


def test_drawn_and_swept(trained, small, ric, tmp_path):
    mode, _, adapter = trained
    model = ["--model", small, "--adapter", adapter, "--prompt", "red apple"]
    done = ric("generate", *model, "--preference", "colorfulness=1", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    with Image.open(sample_file(tmp_path / "out")) as picture:
        assert picture.size == (64, 64) and set(json.loads(picture.text["targets"]))
    guidance = family_of(small)
    option = [f"--{guidance.guidance.replace('_', '-')}", guidance.guidance_off]
    done = ric("generate", *model, *option, "--contrast", 2, "--targets", "colorfulness=1")
    said = f"--contrast: give {guidance.guidance} above {guidance.guidance_off:g}, not "
    assert done.code == 2 and said in done.err and done.err.count("\n") == 1
    done = ric("sweep", *model, "--points", 3, "--out", tmp_path / "sweep")
    assert done.code == 0, done.err
    points = json.loads((tmp_path / "sweep" / "sweep.json").read_text())["points"]
    assert len(points) == 3 and points[0]["targets"] != points[2]["targets"]
    done = ric("prompt", *model[2:], "--model", small, "--targets", "colorfulness=1.5")
    if mode == "text":
        assert done.out.strip() == "red apple <colorfulness> 1.5"
    else:
        assert done.code == 2 and "learned tokens" in done.err


def test_an_online_round(family, trained, root, small, ric, tmp_path):
    mode, _, adapter = trained
    online = {
        "rounds": 1,
        "samples": 8,
        "batch_size": 4,
        "guard": {"samples": 8, "diversity": 0.0, "prompt_r_precision": 0.0},
        "loop": {**LOOP, "steps": 2},
    }
    path = write(
        tmp_path / "online.yaml", config(root, small, mode, adapter=str(adapter), online=online)
    )
    done = ric("online", path, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    about = json.loads((tmp_path / "run" / "adapter" / "ric_adapter.json").read_text())
    assert about["family"] == family and about["training"]["rounds"] == 1


def test_evaluated_and_calibrated(trained, small, ric, tmp_path):
    _, _, adapter = trained
    (tmp_path / "prompts.txt").write_text("red apple\ncat face\n")
    args = ["--prompts", tmp_path / "prompts.txt", "--points", 2, "--seeds", 1]
    model = ["--model", small, "--adapter", adapter]
    done = ric("evaluate", *model, "none", *args, "--out", tmp_path / "report")
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert [len(method["points"]) for method in found["methods"]] == [2, 1]
    done = ric("evaluate", *model, *args, "--calibrate", "--out", tmp_path / "calibrated")
    assert done.code == 0, done.err
    assert (tmp_path / "calibrated" / "index.html").exists()


def test_the_apps_engine_draws_sweeps_and_moves_a_picture(trained, small, tmp_path):
    _, _, adapter = trained
    engine = Engine(load_model(small, adapter), ModelChoice.of(str(small)))
    request = engine.request("red apple", 0, targets={"colorfulness": 1.0})
    drawing, job = Job(), Job()
    drawn = engine.draw(request, drawing)
    assert drawing.done == drawing.total > 1
    assert drawn.sample.size == (64, 64) and drawn.metadata["obtained"]
    line = engine.line("colorfulness", None, 2, {})
    assert len(engine.sweep(request, line, Job())[0].samples) == 2
    drawn.sample.save(tmp_path / "a.png")
    moved = engine.transform(request, tmp_path / "a.png", 0.5, job)
    assert 0 < job.done == job.total < drawing.total
    assert not np.array_equal(np.asarray(moved.sample), np.asarray(drawn.sample))


def test_exported(family, trained, ric, tmp_path):
    for format, prefix in (("kohya", "lora_unet_"), ("diffusers", ""), ("comfyui", "")):
        out = tmp_path / f"{format}.safetensors"
        done = ric("export", "--adapter", trained[2], "--format", format, "--out", out)
        if (family, format) == ("z-image", "kohya"):
            assert (done.code, done.err) == (
                2,
                "ric export: --format kohya: sd-scripts knows no z-image; choose comfyui or "
                "diffusers\n",
            )
            continue
        assert done.code == 0, done.err
        assert all(key.startswith(prefix) for key in load_file(out))
        with safe_open(out, framework="pt") as file:
            assert file.metadata()["modelspec.architecture"] == f"{ARCHITECTURES[family]}/lora"
