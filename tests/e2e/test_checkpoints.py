"""A model that is one file, a variant or a revision, through the commands; nothing is fetched."""

import json
import shutil

import huggingface_hub
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from ric_diffusion import RiCStableDiffusionPipeline, api
from ric_diffusion.adapters.adapter import ABOUT_FILE, Adapter
from ric_diffusion.api import Checkpoint
from ric_diffusion.evaluation.compare import choose
from ric_diffusion.models.causal_lm.model import RiCCausalLM
from support import hub, ldm, lm
from support.numbered import sample_file

WEIGHTS = "pytorch_lora_weights.safetensors"


@pytest.fixture(scope="module")
def file(root, tmp_path_factory):
    pipe = RiCStableDiffusionPipeline.from_pretrained(root / "model")
    return ldm.write(tmp_path_factory.mktemp("file") / "tiny.safetensors", pipe.components)


@pytest.fixture
def given(file, root):
    return ["--model", file, "--base-config", root / "model"]


def test_train_and_generate(ric, root, tiny, file, given, tmp_path):
    """What is trained on the file and what is drawn with it are what the folder gives."""
    loop = tiny.config(root, "embedding")["loop"] | {"steps": 2}
    names = {"model": str(file), "base_config": str(root / "model")}
    for name, changes in (("file", names), ("folder", {})):
        config = tiny.config(root, "embedding", loop=loop, prompts=[], **changes)
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(config))
        done = ric("train", tmp_path / f"{name}.yaml", "--out", tmp_path / name)
        assert done.code == 0, done.err
    adapters = [tmp_path / name / "adapter" for name in ("file", "folder")]
    ours, theirs = (load_file(adapter / WEIGHTS) for adapter in adapters)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    identity = json.loads((tmp_path / "file" / "run.json").read_text())["identity"]
    assert {key: identity[key] for key in names} == names

    asked = ["--prompt", "red apple", "--targets", "colorfulness=1", "--adapter", adapters[0]]
    for name, model in (("a", given), ("b", ["--model", root / "model"])):
        done = ric("generate", *model, *asked, "--dtype", "auto", "--out", tmp_path / name)
        assert done.code == 0, done.err
    drawn = [np.asarray(Image.open(sample_file(tmp_path / name))) for name in ("a", "b")]
    assert np.array_equal(*drawn)
    assert Image.open(sample_file(tmp_path / "a")).text["model"] == str(file)
    card = (adapters[0] / "README.md").read_text()
    assert f'RiCPipeline.from_single_file("{file}", config="{root / "model"}")' in card
    assert f"--model {file} --base-config {root / 'model'} " in card
    found = [Adapter.load(adapter) for adapter in adapters]
    assert [adapter.base_config for adapter in found] == [str(root / "model"), None]


def test_other_verbs(ric, root, given, tmp_path):
    (tmp_path / "prompts.txt").write_text("red apple\n")
    adapter = root / "text" / "adapter"
    asked = ["--adapter", adapter, "--points", 2, "--steps", 1]
    done = ric("sweep", *given, *asked, "--prompt", "pizza", "--out", tmp_path / "sweep")
    assert done.code == 0, done.err
    done = ric("evaluate", *given, *asked, "--prompts", tmp_path / "prompts.txt",
               "--seeds", 1, "--out", tmp_path / "report")  # fmt: skip
    assert done.code == 0, done.err
    told = ["--adapter", adapter, "--prompt", "red apple", "--targets", "colorfulness=1"]
    assert ric("prompt", *given, *told).out == ric("prompt", *told).out != ""
    alone = shutil.copytree(adapter, tmp_path / "alone")  # as if it had been trained on the file
    about = json.loads((alone / ABOUT_FILE).read_text())
    about |= {"base_model": str(given[1]), "base_config": str(given[3])}
    (alone / ABOUT_FILE).write_text(json.dumps(about))
    (alone / "manifest.json").unlink()
    assert ric("prompt", "--adapter", alone, *told[2:]).out == ric("prompt", *told).out


@pytest.mark.parametrize(
    ("said", "args"),
    [
        ("--base-config: {file} holds weights alone; give the pipeline whose configs",
         ["--model", "{file}"]),
        ("usually stable-diffusion-v1-5/stable-diffusion-v1-5", ["--model", "{file}"]),
        ("--base-config here: {root}/model has configs of its own",
         ["--model", "{root}/model", "--base-config", "here"]),
        ("--model ./x.ckpt: a pickle, which can run any code", ["--model", "./x.ckpt"]),
        ("--model gone.safetensors: no such file", ["--model", "gone.safetensors"]),
        ("--model a_file.safetensors: not a whole .safetensors file (",
         ["--model", "a_file.safetensors"]),
        ("--model {root}/text/adapter/" + WEIGHTS + ": a LoRA, not a checkpoint",
         ["--model", "{root}/text/adapter/" + WEIGHTS]),
        ("--variant fp16: {root}/model has no such weights; it has weights without a variant",
         ["--model", "{root}/model", "--variant", "fp16"]),
        ("--revision v1: emoji-64 is not on the hub; leave it out", ["--revision", "v1"]),
        ("--model some/model: no such folder, and the hub cannot be reached",
         ["--model", "some/model", "--revision", "v1"]),
    ],
)  # fmt: skip
def test_refused(refused, file, root, place, said, args):
    for name in ("x.ckpt", "a_file.safetensors"):
        (place / name).write_text("x")
    args = [arg.replace("{file}", str(file)) for arg in args]
    refused(said.format(file=file, root=root), "generate", "--prompt", "red apple", *args)


def test_refused_in_a_config(refused, place, root, tiny, file):
    for said, changes in (
        ("c.yaml: base_config: ", {"model": str(file)}),
        ("c.yaml: variant fp16: ", {"variant": "fp16"}),
        ("c.yaml: revision v1: ", {"revision": "v1"}),
        ("c.yaml: model x.pt: a pickle", {"model": "x.pt"}),
    ):
        config = tiny.config(root, "embedding", **changes)
        (place / "c.yaml").write_text(yaml.safe_dump(config))
        refused(said, "train", "c.yaml", "--out", "run")


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """Where what was fetched lies; there is no hub to fetch more from."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


def test_a_revision_is_of_the_model_its_adapter_and_its_tokenizer(ric, root, tmp_path, cache):
    newer = shutil.copytree(root / "model", tmp_path / "newer")
    pipe = RiCStableDiffusionPipeline.from_pretrained(root / "model")
    pipe.load_adapter(root / "text" / "adapter")
    with torch.no_grad():
        pipe.vae.decoder.conv_out.bias += 1.0
    pipe.save_pretrained(newer)
    words = newer / "tokenizer" / "tokenizer_config.json"
    words.write_text(json.dumps(json.loads(words.read_text()) | {"model_max_length": 32}))
    hub.write(cache, "some/tiny", {"main": root / "model", "v2": newer})

    both = [api.load(Checkpoint(model="some/tiny", revision=r)) for r in (None, "v2")]
    assert [model.adapter is None for model in both] == [True, False]
    assert [model.tokenizer.model_max_length for model in both] == [64, 32]
    moved = both[1].vae.decoder.conv_out.bias - both[0].vae.decoder.conv_out.bias
    assert torch.allclose(moved, torch.ones(3))

    second = ["--model", "some/tiny", "--revision", "v2"]
    told = ["--adapter", root / "text" / "adapter", "--prompt", "red apple " * 40]
    assert "32 tokens are read at most" in ric("prompt", *told, *second).err
    measured, _ = choose(both[1], "some/tiny", [], {}, "v2")
    assert Adapter.load(measured.folder).space == both[1].reward_space
    config = ["--model", tmp_path / "x.safetensors", "--base-config", "some/tiny"]
    ldm.write(tmp_path / "x.safetensors", both[1].components)
    done = ric("generate", *config, "--revision", "v2", "--prompt", "pizza", "--steps", 1,
               "--out", tmp_path / "out")  # fmt: skip
    assert done.code == 0, done.err


def test_language_models_have_revisions_and_precisions(ric, refused, tmp_path, cache):
    for seed, name in enumerate(("first", "second")):
        model = RiCCausalLM.from_pretrained(str(lm.write_lm(tmp_path / name, seed=seed)))
        model.model.bfloat16().save_pretrained(tmp_path / name)
    hub.write(cache, "some/lm", {"main": tmp_path / "first", "v2": tmp_path / "second"})
    both = [api.load(Checkpoint(model="some/lm", revision=r), dtype="auto") for r in (None, "v2")]
    weights = [lm.model.get_input_embeddings().weight for lm in both]
    assert not torch.equal(*weights)
    folder = api.load(tmp_path / "second", dtype="float32").model.get_input_embeddings().weight
    assert torch.equal(weights[1].float(), folder)
    for option, value in ("--variant", "fp16"), ("--base-config", "x"):
        said = f"{option} {value}: causal language models have none; leave it out"
        refused(said, "generate", "--prompt", "x", "--model", "some/lm", option, value)
