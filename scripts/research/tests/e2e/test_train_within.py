"""scripts/research/train_emoji_base.py --minutes on tiny models, and what compares base models."""

import json
import sys

import numpy as np
import pytest
import torch
import yaml
from diffusers import StableDiffusionPipeline
from PIL import Image

import base_samples
import benchmark_base
import train_emoji_base
from ric_diffusion.io import config
from support.model import POOLED, SCHEDULER, TEXT, UNET
from timed import WARMING

NAMES = ("red apple", "octopus", "pizza", "crab")
LARGEST = 40_000  # bytes of weights in a file
PHASE = {"share": 1.0, "batch_size": 4, "learning_rate": 1e-3}
SETTINGS = {
    "seed": 0,
    "autoencoder": {
        "block_out_channels": [4, 4, 4, 8],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 1,
        "latent_channels": 4,
        "norm_num_groups": 4,
        "sample_size": 32,
    },
    "autoencoder_phase": PHASE,
    "text_encoder": TEXT | {"max_position_embeddings": 40},
    "unet": UNET | POOLED | {"sample_size": 4, "block_out_channels": [32, 32]},
    "scheduler": SCHEDULER,
    "numbers": {"fraction": 0.25, "variants": 2},
    "network_phase": PHASE,
    "rest": 0.5,
    "labels": ["colorfulness", "compressibility"],
}


def run(monkeypatch, module, *given):
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, given)])
    module.main()


@pytest.fixture(scope="module")
def quick():
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(base_samples, "SAMPLING", {"num_inference_steps": 1})
        monkeypatch.setattr(base_samples, "SEEDS", (1,))
        monkeypatch.setattr(train_emoji_base, "LARGEST_FILE", LARGEST)
        yield monkeypatch


@pytest.fixture(scope="module")
def folder(tmp_path_factory, quick):
    """Holds the pictures (data), their file, the config, and a trained base model (run)."""
    folder = tmp_path_factory.mktemp("within")
    for split, names in (("train", NAMES), ("other", NAMES[:1]), ("held-out", NAMES[:2])):
        lines = []
        (folder / "data" / split).mkdir(parents=True)
        for i, name in enumerate(names):
            image = Image.new("RGB", (32, 32), (250 - 40 * i, 60 * i, 90))
            image.save(folder / "data" / split / f"{i}.png")
            lines.append(json.dumps({"file_name": f"{i}.png", "text": name, "captions": [name]}))
        (folder / "data" / split / "metadata.jsonl").write_text("\n".join(lines))
    plain = config.to_dict(SETTINGS)
    (folder / "small.yaml").write_text(yaml.safe_dump(plain))
    run(quick, train_emoji_base, "--data", folder / "data", "--pack", folder / "data.tar.gz")
    train(quick, folder)
    return folder


def train(monkeypatch, folder, *given):
    data, run_folder = folder / "data.tar.gz", folder / "run"
    common = ["--data", data, "--out", run_folder, "--config", folder / "small.yaml"]
    run(monkeypatch, train_emoji_base, *common, *(given or ("--minutes", 0.05)))


def test_a_pipeline_in_files_that_are_small_enough(folder):
    files = list((folder / "run" / "pipeline").rglob("*.safetensors"))
    assert len([file for file in files if file.parent.name == "unet"]) > 2
    largest = max(p.numel() for p in pipeline(folder).unet.parameters()) * 2
    for file in files:
        if file.parent.name != "text_encoder":  # whose token embeddings alone take more here
            assert file.stat().st_size <= max(LARGEST, largest) + 20_000  # names and shapes


def pipeline(folder):
    return StableDiffusionPipeline.from_pretrained(
        folder / "run" / "pipeline", use_safetensors=True
    )


def test_it_draws_and_its_figures_are_there(folder):
    figures = json.loads((folder / "run" / "figures.json").read_text())
    assert figures["steps"]["autoencoder"] >= 1 and figures["steps"]["network"] >= 1
    assert figures["held_out_psnr"] > 5 and figures["compiled"] is False
    with Image.open(folder / "run" / "samples.png") as image:
        image.load()
    pipe = pipeline(folder)
    assert {p.dtype for p in pipe.unet.parameters()} == {torch.float32}
    assert pipe("octopus", num_inference_steps=1).images[0].size == (32, 32)
    log = (folder / "run" / "network" / "log.jsonl").read_text().splitlines()
    assert json.loads(log[-1])["step"] == figures["steps"]["network"]
    assert json.loads(log[-1])["learning_rate"] < 1e-3 or figures["steps"]["network"] == 1


def test_what_was_trained_is_not_trained_again(folder, quick):
    weights = pipeline(folder).unet.state_dict()
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(train_emoji_base, "steps_within", None)
        train(monkeypatch, folder)
    again = pipeline(folder).unet.state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in weights.items())


@pytest.mark.parametrize(
    "given, said",
    [
        (("--device", "cuda"), "--device: goes with --minutes"),
        (("--minutes", 0), "--minutes: 0.0 is not above 0"),
        (("--minutes", 1, "--start", "x"), "--start: does not go with --minutes"),
        (("--start", "x"), "--start: x holds no pipeline; name a folder"),
        (("--minutes", 1, "--device", "cuda"), "--device cuda: this machine has no GPU"),
    ],
)
def test_options_that_cannot_be(folder, given, said, monkeypatch, capsys):
    monkeypatch.setattr(train_emoji_base, "default_device", lambda: "cpu")
    with pytest.raises(SystemExit) as caught:
        train(monkeypatch, folder, *given)
    assert caught.value.code == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize("works", [True, False])
def test_what_does_not_compile_is_trained_as_it_is(works, monkeypatch, caplog):
    class Model:
        def __init__(self):
            self.unet = self.network = torch.nn.Linear(1, 1)
            self.buckets, self.seen = None, []

        def named_parameters(self):
            return dict(self.unet.named_parameters())

        def loss(self, batch):
            self.seen.append(self.network)
            return self.network(torch.ones(1, 1)).mean()

    class Compiled(torch.nn.Module):
        def forward(self, x):
            if not works:
                raise KeyError("no kernel")
            return model.unet(x)

    model, compiled = Model(), Compiled()
    monkeypatch.setattr(torch, "compile", lambda module: compiled)
    phase = config.from_dict(PHASE, train_emoji_base.TimedPhase, "x")
    train_emoji_base.compile_if_it_works(model, torch.zeros(4, 3, 2, 2), phase)
    assert model.network is (compiled if works else model.unet)
    assert len(model.seen) == (WARMING + 1 if works else 1)
    assert ("not compiled (KeyError: 'no kernel')" in caplog.text) is not works


def test_base_models_side_by_side(folder, quick, capsys):
    def colours(images, batch_size=64):
        means = torch.stack(
            [torch.from_numpy(np.array(image)).float().mean((0, 1)) for image in images]
        )
        return torch.nn.functional.normalize(means, dim=1).numpy()

    models, out = [folder / "run" / "pipeline"] * 2, folder / "report"
    given = ["--data", folder / "data", "--models", *models, "--out", out]
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(benchmark_base, "efficientnet_features", colours)
        run(monkeypatch, benchmark_base, *given)
        first = json.loads((out / "figures.json").read_text())
        monkeypatch.setattr(benchmark_base, "draw", None)  # nothing is drawn again
        run(monkeypatch, benchmark_base, *given)
    one, two = (each | {"seconds_per_picture": 0} for each in first)
    assert one == two  # the same model twice
    stored = json.loads((folder / "run" / "figures.json").read_text())
    assert one["held_out_psnr_db"] == pytest.approx(stored["held_out_psnr"], abs=0.05)
    assert one["side"] == 32 and 0 <= one["retrieval"] <= 1
    assert len(list((out / "model-0").glob("*.png"))) == 2 * len(NAMES)
    table = (out / "table.md").read_text()
    assert capsys.readouterr().out.endswith(table)
    assert f"| retrieval | {one['retrieval']:.3f} | {two['retrieval']:.3f} |" in table
