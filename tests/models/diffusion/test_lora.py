"""The LoRA inside the U-Net: the same sums as diffusers makes, and room for a user's own."""

import json
import shutil
from dataclasses import replace

import accelerate
import peft
import pytest
import torch
import torch.nn.functional as F
from diffusers import StableDiffusionPipeline
from peft.utils import get_peft_model_state_dict
from safetensors import safe_open

from ric_diffusion import RiCStableDiffusionPipeline
from ric_diffusion.adapters import lora
from ric_diffusion.adapters.adapter import ABOUT_FILE
from ric_diffusion.adapters.format import DIFFUSERS_FILE, read_diffusers
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.diffusion.families.sd import FAMILY

ONE = {"targets": {"colorfulness": 1.5}}


@pytest.fixture(scope="module")
def user_lora(model, tmp_path_factory):
    """A style of the user's own, for stock diffusers."""
    folder = tmp_path_factory.mktemp("user")
    pipe = StableDiffusionPipeline.from_pretrained(model, use_safetensors=True)
    pipe.unet.add_adapter(peft.LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "conv1"]))
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for name, p in pipe.unet.named_parameters():
            if "lora_" in name:
                p += 0.3 * torch.randn(p.shape, generator=generator)
    pipe.save_lora_weights(folder, unet_lora_layers=get_peft_model_state_dict(pipe.unet))
    return folder


@pytest.fixture(scope="module")
def other_adapter(adapters, tmp_path_factory):
    """The same in text mode, for another reward."""
    folder = tmp_path_factory.mktemp("other") / "adapter"
    shutil.copytree(adapters["text"], folder)
    about = (folder / ABOUT_FILE).read_text()
    for name in ("colorfulness", "compressibility"):
        about = about.replace(name, f"other_{name}")
    (folder / ABOUT_FILE).write_text(about)
    (folder / "manifest.json").unlink()
    return folder


@pytest.fixture
def noise():
    generator = torch.Generator().manual_seed(0)
    return {
        "sample": torch.randn(2, 4, 8, 8, generator=generator),
        "timestep": 500,
        "encoder_hidden_states": torch.randn(2, 32, 32, generator=generator),
    }


@torch.no_grad()
def predict(pipe, noise):
    return pipe.unet(**noise).sample


def loaded(model, folder):
    pipe = StableDiffusionPipeline.from_pretrained(model, use_safetensors=True)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_lora_weights(folder)
    return pipe


@pytest.mark.parametrize("mode", ["embedding", "text"])
def test_stock_diffusers_loads_the_file_alone(mode, model, adapters, pipe, stock, noise, draw):
    theirs = loaded(model, adapters[mode])
    pipe.load_adapter(adapters[mode])
    pipe.adapter = None  # without the reward tokens, which stock pipelines know nothing of
    wanted = predict(theirs, noise)
    assert torch.allclose(predict(pipe, noise), wanted, atol=1e-5)
    assert not torch.allclose(predict(stock, noise), wanted, atol=1e-2)
    assert draw(theirs).shape == (1, 4, 8, 8)


def test_stock_diffusers_reads_the_words_of_text_mode(model, adapters, pipe, draw):
    theirs = loaded(model, adapters["text"])
    pipe.load_adapter(adapters["text"])
    ours, same = draw(pipe, "red apple", **ONE), pipe.adapter.sampling
    assert torch.allclose(ours, draw(theirs, "red apple <colorfulness> 1.5", **same), atol=1e-3)
    assert not torch.allclose(ours, draw(theirs, "red apple", **same), atol=1e-2)


def test_the_delta_of_a_layer_by_hand():
    a, b = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0], [0.0], [-1.0]])
    tensors = {"x.lora_A.weight": a, "x.lora_B.weight": b}
    one = lora.Lora(tensors=tensors, config={"r": 1, "lora_alpha": 0.5})
    assert one.modules == ["x"] and one.scale == 0.5
    assert one.delta("x").tolist() == [[1.5, 3.0], [0.0, 0.0], [-0.5, -1.0]]


def test_the_delta_of_a_convolution_is_one_convolution_after_the_other():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(2, 3, 3, 3, generator=generator)
    b = torch.randn(5, 2, 1, 1, generator=generator)
    tensors = {"x.lora_A.weight": a, "x.lora_B.weight": b}
    one = lora.Lora(tensors=tensors, config={"r": 2, "lora_alpha": 6})
    picture = torch.randn(1, 3, 6, 6, generator=generator)
    wanted = 3 * F.conv2d(F.conv2d(picture, a, padding=1), b)
    assert torch.allclose(F.conv2d(picture, one.delta("x"), padding=1), wanted, atol=1e-5)


def test_every_kind_of_layer_is_changed(adapters, pipe):
    before = {key: value.clone() for key, value in pipe.unet.state_dict().items()}
    pipe.load_adapter(adapters["text"])
    changed = {k for k, v in pipe.unet.state_dict().items() if not torch.equal(v, before[k])}
    assert all(key.endswith(".weight") for key in changed)
    for part in ("attn1.to_q", "attn2.to_v", "attn2.to_out.0", "ff.net.0.proj", "ff.net.2"):
        assert any(f"{part}.weight" in key for key in changed), part
    blocks = {key.split(".")[0] for key in changed if ".conv2." in key}
    assert blocks == {"down_blocks", "mid_block", "up_blocks"}


def test_the_metadata_is_what_diffusers_reads(adapters):
    with safe_open(adapters["text"] / DIFFUSERS_FILE, framework="pt") as file:
        settings = json.loads(file.metadata()["lora_adapter_metadata"])
        keys = list(file.keys())
    assert settings["unet.r"] == 4 and settings["unet.lora_alpha"] == 8
    assert all(key.startswith("unet.") for key in keys)


def test_a_users_lora_loaded_before(model, user_lora, adapters, pipe, draw):
    pipe.load_lora_weights(user_lora, adapter_name="style")
    plain = draw(pipe)
    pipe.load_adapter(adapters["embedding"])
    both = draw(pipe, **ONE)
    pipe.set_adapters("style", 0.0)
    alone = draw(pipe, **ONE)
    pipe.set_adapters("style", 1.0)
    assert torch.equal(draw(pipe, **ONE), both)
    assert not torch.allclose(alone, both, atol=1e-3)
    pipe.unload_adapter()
    assert torch.equal(draw(pipe), plain)
    fresh = RiCStableDiffusionPipeline.from_pretrained(model)
    fresh.load_adapter(adapters["embedding"])
    assert torch.equal(draw(fresh, **ONE), alone)


def test_a_users_lora_loaded_after(model, user_lora, adapters, pipe, stock, draw):
    pipe.load_adapter(adapters["embedding"])
    alone = draw(pipe, **ONE)
    pipe.load_lora_weights(user_lora, adapter_name="style")
    assert not torch.allclose(draw(pipe, **ONE), alone, atol=1e-3)
    pipe.unload_adapter()
    assert torch.equal(draw(pipe), draw(loaded(model, user_lora)))
    pipe.load_adapter(adapters["embedding"])
    pipe.unload_lora_weights()
    assert torch.equal(draw(pipe, **ONE), alone)
    pipe.unload_adapter()
    assert torch.equal(draw(pipe), draw(stock))


ORDERS = {  # "in": ours is loaded; "out": ours is unloaded; the rest is done to the user's
    "loaded, fused and unfused under ours": ("load", "fuse", "in", "unfuse", "remove", "out"),
    "unfused after ours": ("load", "fuse", "in", "out", "unfuse", "remove"),
    "fused over ours": ("in", "load", "fuse", "out", "unfuse", "remove"),
    "fused and unfused over ours": ("in", "load", "fuse", "unfuse", "out", "remove"),
    "scaled, then fused": ("load", "scale", "in", "fuse", "out", "unfuse", "remove"),
    "two of ours": ("load", "fuse", "in", "in again", "unfuse", "rescale", "remove", "out"),
}


@pytest.mark.parametrize("name", ORDERS)
def test_a_users_lora_is_fused_and_unfused_around_ours(
    name, user_lora, adapters, other_adapter, pipe, draw, caplog
):
    plain = draw(pipe)
    before = {key: value.clone() for key, value in pipe.unet.state_dict().items()}
    steps = {
        "load": lambda: pipe.load_lora_weights(user_lora, adapter_name="style"),
        "scale": lambda: pipe.set_adapters("style", 0.6),
        "fuse": pipe.fuse_lora,
        "unfuse": pipe.unfuse_lora,
        "remove": pipe.unload_lora_weights,
        "in": lambda: pipe.load_adapter(adapters["embedding"]),
        "in again": lambda: pipe.load_adapter(other_adapter, name="other"),
        "rescale": lambda: pipe.set_adapter_scale("other", 0.5),
        "out": pipe.unload_adapter,
    }
    for step in ORDERS[name]:
        steps[step]()
    assert pipe.adapter is None
    now = pipe.unet.state_dict()
    off = max((now[key] - value).abs().max().item() for key, value in before.items())
    assert off < 1e-6 and torch.allclose(draw(pipe), plain, atol=1e-4)
    changed = [record for record in caplog.records if "were changed" in record.message]
    exact = name in ("unfused after ours", "fused and unfused over ours")
    assert len(changed) == (not exact)


def test_a_fused_lora_stays_where_ours_is_taken_out_or_set_aside(
    model, user_lora, adapters, pipe, draw, tmp_path
):
    theirs = loaded(model, user_lora)
    theirs.fuse_lora()
    pipe.load_adapter(adapters["embedding"])
    pipe.load_lora_weights(user_lora, adapter_name="style")
    pipe.fuse_lora()
    both = draw(pipe, **ONE)
    with pipe.without_adapter():
        assert torch.allclose(draw(pipe), draw(theirs), atol=1e-4)
    assert torch.allclose(draw(pipe, **ONE), both, atol=1e-4)
    pipe.unload_adapter()
    assert torch.allclose(draw(pipe), draw(theirs), atol=1e-4)


def test_both_sums_are_in_a_layer(user_lora, adapters, pipe):
    pipe.load_adapter(adapters["text"])
    pipe.load_lora_weights(user_lora, adapter_name="style")
    layer = pipe.unet.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn1.to_q")
    ours = read_diffusers(adapters["text"] / DIFFUSERS_FILE)
    delta = ours.delta("mid_block.attentions.0.transformer_blocks.0.attn1.to_q")
    merged = layer.base_layer.weight.clone()
    pipe.unload_adapter()
    assert torch.allclose(merged - layer.base_layer.weight, delta, atol=1e-6)


def test_an_offloaded_unet_is_not_silently_left_as_it_was(adapters, pipe, tmp_path):
    """Its weights are stand-ins on the meta device, where a change would go nowhere."""
    pipe.load_adapter(adapters["embedding"])
    adapter = pipe.adapter
    accelerate.cpu_offload(pipe.unet, torch.device("cpu"))
    assert next(pipe.unet.parameters()).is_meta
    for act in (
        pipe.unload_adapter,
        lambda: pipe.load_adapter(adapters["text"]),
        lambda: pipe.save_pretrained(tmp_path),
    ):
        with pytest.raises(InputError, match="offload") as error:
            act()
        assert "\n" not in str(error.value)
        assert pipe.adapter is adapter


def test_model_offload_goes_on_working(adapters, pipe, draw):
    pipe.load_adapter(adapters["embedding"])
    wanted = draw(pipe, **ONE)
    pipe.enable_model_cpu_offload(device="cpu")
    assert torch.equal(draw(pipe, **ONE), wanted)
    pipe.load_adapter(adapters["text"])
    assert draw(pipe, **ONE).isfinite().all()


def test_fused_projections_hide_no_adapter(adapters, pipe, draw, tmp_path):
    plain = draw(pipe)
    pipe.load_adapter(adapters["embedding"])
    wanted = draw(pipe, **ONE)
    pipe.fuse_qkv_projections(vae=False)
    for act in (
        lambda: draw(pipe, **ONE),
        lambda: pipe.load_adapter(adapters["text"]),
        pipe.unload_adapter,
    ):
        with pytest.raises(InputError, match="call unfuse_qkv_projections first") as error:
            act()
        assert "\n" not in str(error.value)
    pipe.unfuse_qkv_projections(vae=False)
    assert torch.equal(draw(pipe, **ONE), wanted)
    pipe.unload_adapter()
    assert torch.equal(draw(pipe), plain)
    pipe.fuse_qkv_projections(vae=False)
    assert torch.allclose(draw(pipe), plain, atol=1e-4)  # nothing to hide
    with pytest.raises(InputError, match="call unfuse_qkv_projections first"):
        pipe.load_adapter(adapters["embedding"])
    assert pipe.adapter is None
    adapter, _ = FAMILY.read_adapter(adapters["embedding"])
    FAMILY.save_adapter(replace(adapter, lora=False), lora.NO_LORA, tmp_path / "tokens")
    pipe.load_adapter(tmp_path / "tokens")  # nothing of it is in the weights
    assert not torch.allclose(draw(pipe, **ONE), plain, atol=1e-2)
