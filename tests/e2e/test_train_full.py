"""``train: full``: all weights of the denoiser, a model of its own with the adapter in it; ``train:
tokens``: none of them; and runs that train text encoders along."""

import json

import numpy as np
import pytest
import torch
import yaml
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file

from ric_diffusion import RiCPipeline, evaluate, generate
from ric_diffusion.cli import main
from ric_diffusion.models.diffusion.backend import DiffusionBackend

TARGETS = {"compressibility": 1.2}
SAMPLING = {"guidance_scale": 3.0, "num_inference_steps": 2}
FULL = {"train": "full", "sampling": SAMPLING, "dropout": {"prompt": 0.0, "reward": 0.0}}
TOKENS = {"train": "tokens", "sampling": SAMPLING}
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def settings(root, tiny):
    """settings(mode, **changes): a run of two steps without sheets; ``changes`` of its model."""

    def make(mode, **diffusion):
        data = tiny.config(root, mode)
        loop = {**data["loop"], "steps": 2, "precision": "fp32", "learning_rate": 0.001}
        return {**data, "diffusion": {"mode": mode, **diffusion}, "loop": loop, "prompts": []}

    return make


@pytest.fixture(scope="module")
def trained(settings, tmp_path_factory):
    """A run of each mode."""
    folder = tmp_path_factory.mktemp("full")
    for mode in ("text", "embedding"):
        path = folder / f"{mode}.yaml"
        path.write_text(yaml.safe_dump(settings(mode, **FULL)))
        assert main(["train", str(path), "--out", str(folder / mode)]) == 0
    return folder


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


def drawn(pipe, prompt="red apple", **given):
    generator = torch.Generator().manual_seed(0)
    return pipe(prompt, generator=generator, output_type="latent", **given).images


@pytest.mark.parametrize("mode", ["text", "embedding"])
def test_a_model_is_written_with_the_adapter_in_it(trained, root, mode):
    run, model = trained / mode, trained / mode / "model"
    before, after = load_file(root / "model" / WEIGHTS), load_file(model / WEIGHTS)
    assert before.keys() == after.keys() and not (run / "adapter").exists()
    assert all(t.dtype == torch.float32 for t in after.values())
    moved = [key for key in before if not torch.equal(before[key], after[key])]
    assert len(moved) == len(before)  # every one of them, biases and norms too
    for part in ("vae", "text_encoder"):
        [file] = [p.relative_to(model) for p in (model / part).glob("*.safetensors")]
        stored, base = load_file(model / file), load_file(root / "model" / file)
        assert all(torch.equal(stored[key], base[key]) for key in base)
    names = {path.name for path in (model / "ric_adapter").iterdir()}
    encoder = {"reward_encoder.safetensors"} if mode == "embedding" else set()
    assert names == {"ric_adapter.json", "manifest.json", "README.md"} | encoder
    about = json.loads((model / "ric_adapter" / "ric_adapter.json").read_text())
    assert about["lora"] is False and about["base_model"] == str(model)
    training = about["training"]
    assert training["base_model"] == str(root / "model")
    assert (training["records"], training["steps"]) == (14, 2)
    card = (model / "ric_adapter" / "README.md").read_text()
    assert f"fine-tuned on the rewards, from `{root / 'model'}`" in card
    assert ("nodes for ComfyUI" in card) == (mode == "embedding")


def test_every_door_draws_the_same_and_stock_pipelines_read_the_words(trained, ric, tmp_path):
    model = trained / "text" / "model"
    pipe = quiet(RiCPipeline.from_pretrained(model))
    wanted = drawn(pipe, targets=TARGETS)
    stock = quiet(StableDiffusionPipeline.from_pretrained(model, use_safetensors=True))
    assert torch.equal(drawn(stock, "red apple <compressibility> 1.2", **SAMPLING), wanted)
    assert not torch.equal(drawn(pipe), wanted)
    asked = ["--prompt", "red apple", "--targets", "compressibility=1.2", "--seed", "3"]
    done = ric("generate", "--model", model, *asked, "--out", tmp_path)
    assert done.code == 0, done.err
    [file] = tmp_path.glob("*.png")
    [sample] = generate(pipe, "red apple", targets=TARGETS, seed=3)
    assert np.array_equal(np.asarray(Image.open(file)), np.asarray(sample.sample))
    report = evaluate(model, ["red apple"], tmp_path / "report", points=2, seeds=1)
    point = report.methods[0].points[0]
    file, seed = tmp_path / "report" / point.files[0][0], int(point.files[0][0][-8:-4])
    [sample] = generate(pipe, "red apple", targets=point.targets, seed=seed)
    off = np.asarray(Image.open(file), int) - np.asarray(sample.sample, int)
    assert np.abs(off).max() <= 1  # by the rounding of a batch


def test_online_rounds_go_on_with_its_weights(trained, settings, ric, root, tmp_path):
    data = settings("embedding", **FULL)
    rounds = {
        "rounds": 1,
        "samples": 8,
        "batch_size": 8,
        "loop": {**data["loop"], "steps": 1, "learning_rate": 0.0001},
        "guard": {"samples": 8, "diversity": 0.0, "prompt_r_precision": 0.0},
    }
    model = trained / "embedding" / "model"
    kept = {key: data[key] for key in ("model", "data", "diffusion")}  # from the base model
    path = tmp_path / "online.yaml"
    path.write_text(
        yaml.safe_dump({**kept, "adapter": str(model / "ric_adapter"), "online": rounds})
    )
    done = ric("online", path, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    out = tmp_path / "out" / "model"
    assert done.out.splitlines()[-1] == str(out / "ric_adapter")
    start, end = load_file(model / WEIGHTS), load_file(out / WEIGHTS)
    base = load_file(root / "model" / WEIGHTS)
    near = sum(float((end[key] - start[key]).square().sum()) for key in start)
    far = sum(float((end[key] - base[key]).square().sum()) for key in start)
    assert 0 < near < far / 4
    about = json.loads((out / "ric_adapter" / "ric_adapter.json").read_text())
    assert about["training"]["base_model"] == str(root / "model")
    assert about["training"]["rounds"] == 1
    assert torch.isfinite(drawn(quiet(RiCPipeline.from_pretrained(out)), targets=TARGETS)).all()
    # With LoRA there is nothing to go on with.
    lora = {**kept, "diffusion": {"sampling": SAMPLING}}
    other = {**lora, "adapter": str(model / "ric_adapter"), "online": rounds}
    path.write_text(yaml.safe_dump(other))
    done = ric("online", path, "--out", tmp_path / "lora")
    assert done.code == 2 and "has no LoRA to go on with" in done.err
    # And with LoRA alone, no weights.
    given = {**kept, "adapter": str(root / "embedding" / "adapter"), "online": rounds}
    path.write_text(yaml.safe_dump(given))
    done = ric("online", path, "--out", tmp_path / "weights")
    assert done.code == 2 and "lies in no model, and train: full goes on with" in done.err


@pytest.mark.parametrize(
    ("mode", "diffusion"),
    [
        ("text", FULL),
        ("embedding", TOKENS),
        ("text", {"lora": {"rank": 2, "alpha": 2, "targets": ["attention", "text_encoder"]}}),
    ],
    ids=["full", "tokens", "text_encoder"],
)
def test_interrupted_and_resumed(mode, diffusion, settings, ric, tmp_path, monkeypatch):
    loss, calls = DiffusionBackend.loss, []

    def interrupted(self, batch):
        calls.append(batch)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return loss(self, batch)

    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings(mode, **diffusion)))
    assert ric("train", path, "--out", tmp_path / "whole").code == 0
    with monkeypatch.context() as patch:  # a checkpoint after every step
        patch.setattr("ric_diffusion.training.trainer.time.monotonic", lambda: 1e6 * len(calls))
        patch.setattr(DiffusionBackend, "loss", interrupted)
        assert ric("train", path, "--out", tmp_path / "run").code == 130
    assert ric("train", path, "--out", tmp_path / "run", "--resume").code == 0
    files = [p.relative_to(tmp_path / "whole") for p in (tmp_path / "whole").rglob("*.safetensors")]
    compared = [file for file in files if "cache" not in file.parts]
    assert len(compared) >= 2  # the checkpoint, and what was written in the end
    for file in compared:
        one, other = load_file(tmp_path / "whole" / file), load_file(tmp_path / "run" / file)
        assert one.keys() == other.keys()
        assert all(torch.equal(other[key], tensor) for key, tensor in one.items()), file


@pytest.mark.parametrize(
    ("said", "diffusion"),
    [
        ("diffusion: lora goes with train: lora", {"lora": {"rank": 8}}),
        ("diffusion: base_precision is bf16, which frozen", {"base_precision": "bf16"}),
        ("diffusion: base_precision is nf4, which frozen", {"base_precision": "nf4"}),
    ],
)
def test_what_does_not_go_with_it_is_refused(said, diffusion, settings, ric, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings("text", **FULL, **diffusion)))
    done = ric("train", path, "--out", tmp_path / "run")
    assert done.code == 2 and said in done.err and len(done.err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_whole_model_is_not_pushed_as_an_adapter(settings, ric, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings("text", **FULL)))
    done = ric("train", path, "--out", tmp_path / "run", "--push-to-hub", "some/name")
    assert done.code == 2 and "uploads adapters, and train: full makes a model" in done.err
    assert not (tmp_path / "run").exists()


def test_tokens_alone(settings, ric, root, tmp_path):
    path, run = tmp_path / "config.yaml", tmp_path / "run"
    path.write_text(yaml.safe_dump(settings("embedding", **TOKENS)))
    done = ric("train", path, "--out", run)
    assert done.code == 0, done.err
    adapter = run / "adapter"
    names = {path.name for path in adapter.iterdir()}
    assert names == {"ric_adapter.json", "reward_encoder.safetensors", "manifest.json", "README.md"}
    about = json.loads((adapter / "ric_adapter.json").read_text())
    assert (about["lora"], about["frozen"]) == (False, True)
    assert about["base_model"] == str(root / "model")
    card = (adapter / "README.md").read_text()
    assert "is as it was: this adapter holds no LoRA" in card and "nodes for ComfyUI" in card
    assert "the model fills it in" in card
    pipe = quiet(RiCPipeline.from_pretrained(root / "model"))
    pipe.load_adapter(adapter)
    low, high = (drawn(pipe, targets={"compressibility": z}) for z in (-2.0, 2.0))
    assert not torch.equal(low, high)
    done = ric(
        "export", "--adapter", adapter, "--format", "kohya", "--out", tmp_path / "x.safetensors"
    )
    assert done.code == 2 and "its sliders are reward tokens alone" in done.err
    data = settings("embedding", **TOKENS)
    rounds = {
        "rounds": 1, "samples": 8, "batch_size": 8, "loop": {**data["loop"], "steps": 1},
        "guard": {"samples": 8, "diversity": 0.0, "prompt_r_precision": 0.0},
    }  # fmt: skip
    kept = {key: data[key] for key in ("model", "data", "diffusion")}
    path.write_text(yaml.safe_dump({**kept, "adapter": str(adapter), "online": rounds}))
    done = ric("online", path, "--out", tmp_path / "online")
    assert done.code == 0, done.err
    found = tmp_path / "online" / "adapter" / "reward_encoder.safetensors"
    one, other = load_file(adapter / "reward_encoder.safetensors"), load_file(found)
    assert any(not torch.equal(one[key], other[key]) for key in one)
