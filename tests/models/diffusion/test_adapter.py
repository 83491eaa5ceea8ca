"""The adapter folder: written, and read back the same, here and elsewhere."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file

from ric_diffusion import RiCStableDiffusionImg2ImgPipeline, RiCStableDiffusionPipeline
from ric_diffusion.adapters.adapter import Adapter
from ric_diffusion.adapters.format import DiffusersFormat
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.diffusion.backend import LoraConfig
from ric_diffusion.models.diffusion.families.sd import UNET_LAYERS
from ric_diffusion.rewards import RewardSpace
from support.model import POOLED

REPOSITORY = Path(__file__).parents[3]
MODES = ("embedding", "text")
LORA, ABOUT = "pytorch_lora_weights.safetensors", "ric_adapter.json"
ENCODER, MANIFEST = "reward_encoder.safetensors", "manifest.json"
ASKED = {"targets": {"colorfulness": 1.5}, "negative_targets": {"compressibility": -1.0}}


@pytest.fixture(params=MODES)
def folder(request, adapters):
    return adapters[request.param]


def test_what_lies_in_the_folder(folder, model, space):
    about = json.loads((folder / ABOUT).read_text())
    files = {LORA, ABOUT, MANIFEST, "README.md"} | (
        {ENCODER} if folder.name == "embedding" else set()
    )
    assert {p.name for p in folder.iterdir()} == files
    assert about["format_version"] == 1
    assert about["family"] == "stable-diffusion"
    assert about["base_model"] == str(model)
    assert about["conditioning"]["mode"] == folder.name
    assert ("grammar" in about["conditioning"]) == (folder.name == "text")
    assert RewardSpace.from_dict(about["reward_space"]) == space
    assert about["reward_space"]["rewards"][0]["fingerprint"] == "colorfulness-1"
    assert about["mapping"] == "front"
    assert about["sampling"] == {"guidance_scale": 3.0, "num_inference_steps": 2}
    with safe_open(folder / LORA, framework="pt") as file:
        assert json.loads(file.metadata()["ric_adapter"]) == about


def test_the_card_tells_the_slider_ranges(folder, space, model):
    card = (folder / "README.md").read_text()
    low, high = space.range("compressibility")
    assert f"| compressibility | -kB | {low:+.2f} … {high:+.2f} |" in card
    assert f"An adapter for `{model}`" in card and f"{folder.name} mode" in card


SCRIPT = """
import sys, numpy as np, torch
torch.set_num_threads(1)
from ric_diffusion import RiCStableDiffusionPipeline
asked = {"targets": {"colorfulness": 1.5}, "negative_targets": {"compressibility": -1.0}}
model, embedding, text, saved, out = sys.argv[1:]
found = {}
for name, folder, adapter in (
    ("embedding", model, embedding), ("text", model, text), ("saved", saved, None)
):
    pipe = RiCStableDiffusionPipeline.from_pretrained(folder)
    if adapter:
        pipe.load_adapter(adapter)
    generator = torch.Generator().manual_seed(0)
    given = {"num_inference_steps": 2, "output_type": "np", "generator": generator}
    found[name] = pipe("red apple", **asked, **given).images
np.savez(out, **found)
"""


def test_in_another_process_the_images_are_the_same(model, adapters, pipe, draw, tmp_path):
    wanted = {}
    for mode in MODES:
        pipe.load_adapter(adapters[mode])
        wanted[mode] = draw(pipe, output_type="np", **ASKED)
    pipe.save_pretrained(tmp_path / "saved")
    paths = [model, adapters["embedding"], adapters["text"], tmp_path / "saved", tmp_path / "x.npz"]
    command = [sys.executable, "-c", SCRIPT, *map(str, paths)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "x.npz")
    for name, mode in (("embedding", "embedding"), ("text", "text"), ("saved", "text")):
        assert np.array_equal(found[name], wanted[mode]), name
    assert np.abs(wanted["text"] - wanted["embedding"]).max() > 0.01


def test_what_was_trained_is_what_is_loaded(make_backend, stir, pipe, tmp_path):
    """The LoRA in training runs beside the weights, the loaded one inside them."""
    for mode in MODES:
        backend = stir(make_backend(mode))
        backend.save(tmp_path / mode)
        targets = [{"colorfulness": 1.5}, {"compressibility": -1.0}]
        wanted = backend.sample(["red apple", "blue car"], targets, [0, 1])
        pipe.load_adapter(tmp_path / mode)
        found = pipe(
            ["red apple", "blue car"],
            targets=targets,
            generator=[torch.Generator().manual_seed(seed) for seed in (0, 1)],
            **pipe.adapter.sampling,
        ).images
        for a, b in zip(wanted, found, strict=True):
            assert np.abs(np.asarray(a, int) - np.asarray(b, int)).max() <= 1


def test_a_unet_that_pools_its_context_takes_every_kind_of_lora(
    make_backend, make_parts, stir, draw, watch, tmp_path
):
    """As emoji-64 does: reward tokens then reach every residual block through the pool."""
    torch.manual_seed(0)
    StableDiffusionPipeline(**make_parts(**POOLED)).save_pretrained(tmp_path / "model")
    settings = LoraConfig(rank=4, alpha=8, targets=tuple(UNET_LAYERS))
    backend = stir(make_backend(folder=tmp_path / "model", lora=settings))
    backend.save(tmp_path / "adapter")
    backend.pipe.unet.eval()
    pipe = RiCStableDiffusionPipeline.from_pretrained(tmp_path / "model")
    pipe.set_progress_bar_config(disable=True)
    unchanged = watch(pipe.unet)
    plain = draw(pipe)
    pipe.load_adapter(tmp_path / "adapter")
    assert torch.allclose(draw(pipe, **ASKED), draw(backend.pipe, **ASKED), atol=1e-4)
    assert ("", "add_embedding.pool.q_proj") in pipe._held.merged.originals
    pipe.unload_adapter()
    assert unchanged() and torch.equal(draw(pipe), plain)


def test_unloaded_it_leaves_no_trace(folder, pipe, stock, draw, watch):
    unchanged = watch(pipe.unet)
    pipe.load_adapter(folder)
    assert not unchanged()
    pipe.unload_adapter()
    assert pipe.adapter is None and pipe.reward_space is None
    assert unchanged()
    assert torch.equal(draw(pipe), draw(stock))
    pipe.unload_adapter()  # twice does no harm
    with pytest.raises(InputError, match="no adapter is loaded"):
        draw(pipe, **ASKED)


def test_loading_takes_the_place_of_the_one_before(adapters, pipe, draw):
    pipe.load_adapter(adapters["embedding"])
    first = draw(pipe, **ASKED)
    pipe.load_adapter(adapters["text"])
    assert pipe.adapter.conditioner.mode == "text"
    pipe.load_adapter(adapters["embedding"])
    pipe.load_adapter(adapters["embedding"])
    assert torch.equal(draw(pipe, **ASKED), first)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_restored_to_the_bit_too(adapters, pipe, dtype, watch):
    pipe.unet.to(dtype)
    unchanged = watch(pipe.unet)
    pipe.load_adapter(adapters["text"])
    assert not unchanged()
    assert all(p.dtype == dtype for p in pipe.unet.parameters())
    pipe.unload_adapter()
    assert unchanged()


CASTS = {
    "bf16": lambda pipe: pipe.to(torch.bfloat16),
    "fp16": lambda pipe: pipe.to(torch.float16),
    "bf16 and back": lambda pipe: pipe.to(torch.bfloat16).to(torch.float32),
    "bf16, then fp16": lambda pipe: pipe.to(torch.bfloat16).to(torch.float16),
    "fp8 layerwise": lambda pipe: pipe.unet.enable_layerwise_casting(
        torch.float8_e4m3fn, compute_dtype=torch.float32
    ),
    "fp8 layerwise from bf16": lambda pipe: pipe.to(torch.bfloat16).unet.enable_layerwise_casting(
        torch.float8_e5m2, compute_dtype=torch.bfloat16
    ),
}


@pytest.mark.parametrize("cast", CASTS.values(), ids=CASTS)
def test_a_cast_after_loading_is_no_change_of_the_weights(cast, adapters, model, pipe, caplog):
    """Saved, scaled and unloaded, the pipeline is in the precision that it was cast to, and as if
    there had been no adapter."""
    plain = RiCStableDiffusionPipeline.from_pretrained(model)
    pipe.load_adapter(adapters["embedding"])
    for each in (plain, pipe):
        cast(each)
    merged = {key: value.clone() for key, value in pipe.unet.state_dict().items()}

    def differ(state):
        return [k for k, v in pipe.unet.state_dict().items() if not same_bits(v, state[k])]

    assert differ(plain.unet.state_dict())
    with pipe.without_adapter():
        assert not differ(plain.unet.state_dict())
    assert not differ(merged)
    pipe.set_adapter_scale("default", 0.5)
    assert differ(merged) and differ(plain.unet.state_dict())
    pipe.set_adapter_scale("default", 1)
    assert not differ(merged)
    pipe.unload_adapter()
    assert not differ(plain.unet.state_dict())
    assert not [one for one in caplog.records if one.name.startswith("ric_diffusion")]


def same_bits(a, b):
    return a.dtype == b.dtype and torch.equal(a.view(torch.uint8), b.view(torch.uint8))


def test_saved_again_it_is_the_same(folder, pipe, tmp_path):
    pipe.load_adapter(folder)
    pipe.save_adapter(tmp_path / "copy")
    assert {p.name for p in (tmp_path / "copy").iterdir()} == {p.name for p in folder.iterdir()}
    for file in folder.iterdir():
        copy = tmp_path / "copy" / file.name
        if file.suffix == ".safetensors":
            ours, theirs = load_file(copy), load_file(file)
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[key], theirs[key]) for key in ours)
        else:
            assert copy.read_text() == file.read_text()


def test_there_must_be_an_adapter_to_save(pipe, tmp_path):
    with pytest.raises(InputError, match="no adapter is loaded"):
        pipe.save_adapter(tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_saved_pipeline_is_stock_with_the_adapter_inside(
    folder, pipe, stock, draw, tmp_path, watch
):
    pipe.load_adapter(folder)
    wanted = draw(pipe, **ASKED)
    unchanged = watch(pipe.unet)
    pipe.save_pretrained(tmp_path / "saved")
    assert unchanged()
    assert torch.equal(draw(pipe, **ASKED), wanted)

    index = json.loads((tmp_path / "saved" / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionPipeline"
    again = RiCStableDiffusionPipeline.from_pretrained(tmp_path / "saved")
    assert torch.equal(draw(again, **ASKED), wanted)
    assert again.adapter.about() == pipe.adapter.about()

    plain = StableDiffusionPipeline.from_pretrained(tmp_path / "saved", use_safetensors=True)
    assert torch.equal(draw(plain), draw(stock))


def test_img2img_is_saved_under_its_stock_name(adapters, pipe, tmp_path):
    pipe.load_adapter(adapters["text"])
    img2img = RiCStableDiffusionImg2ImgPipeline.from_pipe(pipe)
    img2img.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionImg2ImgPipeline"


def test_saving_without_an_adapter_leaves_none_behind(adapters, pipe, tmp_path):
    pipe.load_adapter(adapters["text"])
    pipe.save_pretrained(tmp_path)
    pipe.unload_adapter()
    pipe.save_pretrained(tmp_path)
    assert RiCStableDiffusionPipeline.from_pretrained(tmp_path).adapter is None


def test_pipelines_that_share_a_unet_share_the_adapter(adapters, pipe, draw, watch):
    unchanged = watch(pipe.unet)
    pipe.load_adapter(adapters["embedding"])
    first = draw(pipe, **ASKED)
    other = RiCStableDiffusionImg2ImgPipeline.from_pipe(pipe)
    assert other.adapter is pipe.adapter
    other.load_adapter(adapters["text"])
    assert pipe.adapter.conditioner.mode == "text"  # its U-Net holds that LoRA now
    pipe.load_adapter(adapters["embedding"])
    assert torch.equal(draw(pipe, **ASKED), first)
    other.unload_adapter()
    assert pipe.adapter is None and unchanged()


def test_a_hub_id_fetches_only_what_is_needed(adapters, pipe, monkeypatch):
    asked = []

    def download(repo, allow_patterns):
        asked.append((repo, sorted(allow_patterns)))
        return str(adapters["embedding"])

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    pipe.load_adapter("someone/sliders")
    assert asked == [("someone/sliders", sorted([LORA, ABOUT, ENCODER, MANIFEST]))]
    assert pipe.adapter is not None


def test_a_hub_repository_brings_its_adapter_along(model, adapters, draw, tmp_path):
    """A download cache as huggingface_hub keeps it, of a repository with a ric_adapter inside."""
    commit = "0" * 40
    kept = tmp_path / "models--someone--sliders"
    shutil.copytree(model, kept / "snapshots" / commit)
    shutil.copytree(adapters["embedding"], kept / "snapshots" / commit / "ric_adapter")
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text(commit)
    pipe = RiCStableDiffusionPipeline.from_pretrained(
        "someone/sliders", cache_dir=tmp_path, local_files_only=True
    )
    pipe.set_progress_bar_config(disable=True)
    local = RiCStableDiffusionPipeline.from_pretrained(model)
    local.load_adapter(adapters["embedding"])
    local.set_progress_bar_config(disable=True)
    assert torch.equal(draw(pipe, **ASKED), draw(local, **ASKED))


def test_the_mapping_must_exist(adapters, space):
    conditioner = Adapter.load(adapters["text"]).conditioner
    with pytest.raises(InputError, match="mapping 'sideways'"):
        Adapter(
            family="x", base_model="x", space=space, conditioner=conditioner, mapping="sideways"
        )
    with pytest.raises(InputError, match="they must agree"):
        one = space.subset(["colorfulness"])
        Adapter(family="x", base_model="x", space=one, conditioner=conditioner)


def test_a_failed_save_leaves_the_old_folder(adapters, pipe, tmp_path, monkeypatch):
    shutil.copytree(adapters["text"], tmp_path / "a")
    pipe.load_adapter(adapters["embedding"])

    def fail(self, folder, weights, about):
        raise RuntimeError("disk full")

    monkeypatch.setattr(DiffusersFormat, "write", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        pipe.save_adapter(tmp_path / "a")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert Adapter.load(tmp_path / "a").conditioner.mode == "text"
