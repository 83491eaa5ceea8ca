"""A small Z-Image by the command line alone: from pictures to adapter, round and report."""

import json

import pytest
import yaml
from PIL import Image

from support import z_image

SAMPLING = {"guidance_scale": 2.0, "num_inference_steps": 2, "height": 64, "width": 64}
LOOP = {
    "steps": 2,
    "batch_size": 4,
    "learning_rate": 0.02,
    "precision": "fp32",
    "log_every": 1,
    "checkpoint_minutes": 0,
}
ONLINE = {
    "rounds": 1,
    "samples": 8,
    "batch_size": 4,
    "guard": {"samples": 8, "diversity": 0.0, "prompt_r_precision": 0.0},
    "loop": LOOP,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return z_image.write(tmp_path_factory.mktemp("z") / "model")


@pytest.mark.parametrize("mode", ["embedding", "text"])
def test_from_pictures_to_report(mode, model, root, ric, tmp_path):
    def done(*args):
        ended = ric(*args)
        assert ended.code == 0, ended.err
        return ended.out

    def config(name, **more):
        settings = {
            "mode": mode,
            "lora": {"rank": 4, "alpha": 4, "targets": ["attention", "feed_forward"]},
            "sampling": SAMPLING,
            "resolution": 64,
        }
        path = tmp_path / f"{name}.yaml"
        content = {"model": str(model), "data": str(root / "labelled"), "diffusion": settings}
        path.write_text(yaml.safe_dump(content | more))
        return path

    done("train", config("train", loop=LOOP), "--out", tmp_path / "run")
    adapter = tmp_path / "run" / "adapter"
    with_adapter = ["--model", model, "--adapter", adapter]
    request = ["--prompt", "red apple", "--targets", "colorfulness=1.5"]
    done("generate", *with_adapter, *request, "--out", tmp_path / "out")
    with Image.open(tmp_path / "out" / "0.png") as picture:
        assert picture.size == (64, 64)
        assert json.loads(picture.text["targets"]) == {"colorfulness": 1.5}
    prompt = ["--prompt", "red apple"]
    done("sweep", *with_adapter, *prompt, "--points", 2, "--out", tmp_path / "sweep")
    assert len(json.loads((tmp_path / "sweep" / "sweep.json").read_text())["points"]) == 2
    done("online", config("online", adapter=str(adapter), online=ONLINE), "--out", tmp_path / "on")
    about = json.loads((tmp_path / "on" / "adapter" / "ric_adapter.json").read_text())
    assert about["family"] == "z-image" and about["training"]["rounds"] == 1
    (tmp_path / "prompts.txt").write_text("red apple\na cat face\n")
    done(
        "evaluate", *with_adapter, "none", "--prompts", tmp_path / "prompts.txt",
        "--points", 2, "--seeds", 1, "--out", tmp_path / "report",
    )  # fmt: skip
    found = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert [len(method["points"]) for method in found["methods"]] == [2, 1]
    if mode == "text":
        said = done("prompt", "--adapter", adapter, "--model", model, *request)
        assert said.strip() == "red apple <colorfulness> 1.5"
