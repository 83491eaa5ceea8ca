"""LoRA in the text encoders: trained, read by stock pipelines, taken out to the bit."""

import copy

import diffusers
import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from packaging.version import Version
from safetensors.torch import load_file

from ric_diffusion import RiCPipeline, RiCStableDiffusionPipeline
from ric_diffusion.adapters import export as exports
from ric_diffusion.adapters.lora import MAIN
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.lru import Recent
from ric_diffusion.models.diffusion.backend import DiffusionBackend, DiffusionConfig, LoraConfig
from ric_diffusion.models.diffusion.families import flux, sd, sd3, sdxl, z_image
from ric_diffusion.models.diffusion.family import TEXT_TO_IMAGE
from ric_diffusion.models.diffusion.pipeline import stock_class
from ric_diffusion.models.protocol import Batch
from ric_diffusion.rewards import RewardSpace
from support import flux as small_flux
from support import sd3 as small_sd3
from support import sdxl as small_sdxl

# Whether diffusers finds the names that others have for layers of transformers from 5.6.
READS_KOHYA = Version(diffusers.__version__) >= Version("0.41")
BOTH = LoraConfig(rank=4, alpha=8, targets=("attention", "text_encoder"))
ALONE = LoraConfig(rank=2, alpha=2, targets=("text_encoder",))
WORDS = "red apple <colorfulness> 1.5"
ONE = {"targets": {"colorfulness": 1.5}}


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def folders(make_backend, model, stir, tmp_path_factory):
    """``both`` changes denoiser and text encoder; ``alone``, for another reward, the latter."""
    root = tmp_path_factory.mktemp("text-encoders")
    stir(make_backend("text", lora=BOTH)).save(root / "both")
    space = RewardSpace.fit({"luminance": torch.randn(100).numpy()})
    config = DiffusionConfig(mode="text", lora=ALONE)
    stir(sd.FAMILY.create_backend(str(model), space, config, seed=1), 1).save(root / "alone")
    return {name: root / name for name in ("both", "alone")}


@pytest.fixture(scope="module")
def xl(space, stir, tmp_path_factory):
    """The small Stable Diffusion XL and an adapter that changes both its text encoders."""
    root = tmp_path_factory.mktemp("xl")
    config = DiffusionConfig(mode="text", lora=BOTH, sampling={"num_inference_steps": 2})
    folder = small_sdxl.write(root / "model")
    stir(sdxl.FAMILY.create_backend(str(folder), space, config)).save(root / "adapter")
    return root


def states(pipe, text=WORDS):
    with torch.no_grad():
        return pipe.encode_prompt(text, "cpu", 1, False)[0]


def test_stock_diffusers_loads_all_of_it(model, folders, stock, pipe, draw):
    theirs = quiet(StableDiffusionPipeline.from_pretrained(model, use_safetensors=True))
    theirs.load_lora_weights(folders["both"])
    pipe.load_adapter(folders["both"])
    assert torch.allclose(states(pipe), states(theirs), atol=1e-5)
    assert not torch.allclose(states(theirs), states(stock), atol=1e-2)
    wanted = draw(theirs, WORDS, **pipe.adapter.sampling)
    assert torch.allclose(draw(pipe, **ONE), wanted, atol=1e-3)
    assert not torch.allclose(draw(stock, WORDS, **pipe.adapter.sampling), wanted, atol=1e-2)


def test_both_text_encoders_of_xl_are_changed_and_stock_diffusers_loads_them(xl, draw):
    theirs = quiet(StableDiffusionXLPipeline.from_pretrained(xl / "model", use_safetensors=True))
    plain = draw(theirs, WORDS, guidance_scale=5.0)
    keys = load_file(xl / "adapter" / "pytorch_lora_weights.safetensors")
    assert {key.partition(".")[0] for key in keys} == {"unet", "text_encoder", "text_encoder_2"}
    ours = quiet(RiCPipeline.from_pretrained(xl / "model"))
    ours.load_adapter(xl / "adapter")
    drawn = draw(ours, guidance_scale=5.0, **ONE)
    for given in ("adapter", "diffusers", *(("kohya", "comfyui") if READS_KOHYA else ())):
        file = xl / given
        if given != "adapter":
            file = xl / f"{given}.safetensors"
            weights = sdxl.FAMILY.read_adapter(xl / "adapter")
            exports.export(*weights, sdxl.FAMILY.format, file, given)
        theirs.load_lora_weights(file)
        assert torch.allclose(draw(theirs, WORDS, guidance_scale=5.0), drawn, atol=1e-3), given
        theirs.unload_lora_weights()
    assert not torch.allclose(plain, drawn, atol=1e-2)


def test_kohyas_names_are_those_of_sd_scripts(folders, xl, model, pipe, draw, tmp_path):
    """One text encoder is te, of two the first is te1."""
    file = tmp_path / "a.safetensors"
    exports.export(*sd.FAMILY.read_adapter(folders["both"]), sd.FAMILY.format, file, "kohya")
    found = load_file(file)
    layer = "text_model_encoder_layers_0"
    for name in ("self_attn_q_proj", "self_attn_out_proj", "mlp_fc1", "mlp_fc2"):
        assert found[f"lora_te_{layer}_{name}.lora_down.weight"].shape[0] == 4
        assert found[f"lora_te_{layer}_{name}.alpha"].item() == 8
    if READS_KOHYA:
        theirs = quiet(StableDiffusionPipeline.from_pretrained(model, use_safetensors=True))
        theirs.load_lora_weights(str(file))
        pipe.load_adapter(folders["both"])
        wanted = draw(pipe, **ONE)
        assert torch.allclose(draw(theirs, WORDS, **pipe.adapter.sampling), wanted, atol=1e-3)
    state = sdxl.FAMILY.format.kohya.state(sdxl.FAMILY.read_adapter(xl / "adapter")[1])
    for encoder in ("te1", "te2"):
        assert f"lora_{encoder}_{layer}_self_attn_k_proj.lora_up.weight" in state


@pytest.mark.parametrize(
    ("family", "support", "encoders"),
    [(sd3.FAMILY, small_sd3, 2), (flux.FAMILY, small_flux, 1)],
    ids=["sd3", "flux"],
)
def test_families_with_t5_have_it_in_their_clips(family, support, encoders, space, stir, tmp_path):
    parts = support.parts()
    ours = family.pipelines[TEXT_TO_IMAGE](**copy.deepcopy(parts))
    config = DiffusionConfig(mode="text", lora=ALONE, sampling={"num_inference_steps": 1})
    stir(DiffusionBackend.create(ours, "x", space, config)).save(tmp_path / "a")
    weights = family.read_adapter(tmp_path / "a")[1]
    assert len(weights.beside) == encoders and MAIN not in weights.parts
    fresh = family.pipelines[TEXT_TO_IMAGE](**copy.deepcopy(parts))
    fresh.load_adapter(tmp_path / "a")
    stock = stock_class(type(ours))(**parts)
    stock.load_lora_weights(tmp_path / "a")
    given = dict.fromkeys(family.prompts, WORDS)
    wanted = stock.encode_prompt(**given, device="cpu")
    found = fresh.encode_prompt(**given, device="cpu")
    pooled = 2 if family is sd3.FAMILY else 1
    assert torch.allclose(found[pooled], wanted[pooled], atol=1e-4)
    with fresh.without_adapter():
        plain = fresh.encode_prompt(**given, device="cpu")
    assert not torch.allclose(found[pooled], plain[pooled], atol=1e-2)
    kohya = family.format.kohya.state(weights)
    assert {key.partition("_text_model_")[0] for key in kohya} == {
        f"lora_te{i + 1}" for i in range(encoders)
    }
    comfyui = exports.comfyui_state(weights, family.format)
    assert all(".text_model.encoder.layers." in key for key in comfyui)


def test_it_is_taken_out_bit_for_bit_and_several_add_up(pipe, folders, model, watch, draw):
    unchanged = watch(pipe.text_encoder), watch(pipe.unet)
    plain = states(pipe)
    for name, folder in folders.items():
        pipe.load_adapter(folder, name=name)
    changed = pipe.text_encoder.state_dict()
    fresh = quiet(RiCStableDiffusionPipeline.from_pretrained(model))
    weights = [
        sd.FAMILY.read_adapter(folder)[1].beside["text_encoder"] for folder in folders.values()
    ]
    for module in weights[0].modules:
        original = fresh.text_encoder.get_submodule(module).weight
        wanted = original + sum(one.delta(module) for one in weights)
        assert torch.allclose(changed[f"{module}.weight"], wanted, atol=1e-6)
    pipe.set_adapter_scale("alone", 0.5)
    module = weights[0].modules[0]
    half = pipe.text_encoder.get_submodule(module).weight
    original = fresh.text_encoder.get_submodule(module).weight
    wanted = original + weights[0].delta(module) + 0.5 * weights[1].delta(module)
    assert torch.allclose(half, wanted, atol=1e-6)
    with pipe.without_adapter():
        assert torch.equal(states(pipe), plain)
    assert not torch.allclose(states(pipe), plain, atol=1e-2)
    pipe.unload_adapter("both")
    fresh.load_adapter(folders["alone"], name="alone")
    fresh.set_adapter_scale("alone", 0.5)
    now, then = pipe.text_encoder.state_dict(), fresh.text_encoder.state_dict()
    assert all(torch.equal(now[key], then[key]) for key in then)
    pipe.unload_adapter()
    assert all(same() for same in unchanged) and torch.equal(states(pipe), plain)


def test_a_model_is_saved_without_it_and_loaded_with_it(pipe, folders, model, draw, tmp_path):
    pipe.load_adapter(folders["both"])
    wanted = draw(pipe, **ONE)
    pipe.save_pretrained(tmp_path / "saved")
    assert torch.equal(draw(pipe, **ONE), wanted)
    file = "text_encoder/model.safetensors"
    stored, base = load_file(tmp_path / "saved" / file), load_file(model / file)
    assert all(torch.equal(stored[key], base[key]) for key in base)
    again = quiet(RiCPipeline.from_pretrained(tmp_path / "saved"))
    assert torch.equal(draw(again, **ONE), wanted)


def test_what_is_kept_of_texts_is_not_served_under_other_adapters(pipe, folders, draw):
    pipe.load_adapter(folders["both"])
    asked = {"guidance_scale": 3.0, **ONE}
    wanted = draw(pipe, **asked)
    pipe.text_cache = Recent(8)
    assert torch.equal(draw(pipe, **asked), wanted)
    pipe.set_adapter_scale("default", 0.5)
    cached = draw(pipe, **asked)
    pipe.text_cache = None
    assert torch.equal(draw(pipe, **asked), cached)
    assert not torch.allclose(cached, wanted, atol=1e-3)
    pipe.text_cache = Recent(8)
    draw(pipe, **asked)
    pipe.set_adapter_scale("default", 1)
    assert torch.equal(draw(pipe, **asked), wanted)
    kept = len(pipe.text_cache.made)
    assert torch.equal(draw(pipe, **asked), wanted) and len(pipe.text_cache.made) == kept


def test_another_text_encoder_than_the_one_that_was_changed_is_refused(pipe, model, folders, draw):
    pipe.load_adapter(folders["both"])
    other = quiet(RiCStableDiffusionPipeline.from_pretrained(model, unet=pipe.unet))
    with pytest.raises(InputError, match="text_encoder: adapters on this pipeline's denoiser"):
        draw(other, **ONE)
    with pytest.raises(InputError, match="text_encoder: adapters on this pipeline's denoiser"):
        other.load_adapter(folders["alone"], name="alone")
    assert list(pipe._held.loaded) == ["default"]
    without = RiCStableDiffusionPipeline.from_pretrained(model, text_encoder=None, tokenizer=None)
    with pytest.raises(InputError, match="changes text_encoder, which this model lacks"):
        without.load_adapter(folders["both"])
    pipe.unload_adapter()
    assert draw(other).isfinite().all()


def test_a_file_that_changes_other_parts_is_refused(pipe, folders, tmp_path):
    weights = sd.FAMILY.read_adapter(folders["both"])[1]
    adapter = sd.FAMILY.read_adapter(folders["both"])[0]
    wrong = copy.copy(weights)
    object.__setattr__(wrong, "beside", {"vae": weights.beside["text_encoder"]})
    sd.FAMILY.save_adapter(adapter, wrong, tmp_path / "wrong")
    with pytest.raises(InputError, match="changes vae, which this model lacks"):
        pipe.load_adapter(tmp_path / "wrong")


def test_a_step_trains_the_text_encoder_by_the_words(make_backend, pictures):
    folder, records = pictures
    backend = make_backend("text", lora=BOTH, base_precision="fp32")
    backend.prepare(records, folder, folder / "cache-text")
    named = backend.named_parameters()
    first = {name: p for name, p in named.items() if name.startswith("text_encoder.")}
    assert first and any(name.startswith("network.") for name in named)
    assert all(p.dtype == torch.float32 for p in first.values())
    batch = Batch(indices=(0, 1, 2, 3), generator=torch.Generator().manual_seed(0))
    backend.loss(batch).backward()
    moved = [p.grad.abs().max() for name, p in first.items() if "lora_B" in name]
    assert len(moved) == len(first) // 2 and all(moved)
    assert backend.contexts.rows == {}  # nothing is kept of what changes
    assert all(
        p.grad is None for p in backend.pipe.text_encoder.parameters() if not p.requires_grad
    )


def test_training_goes_on_from_what_was_saved(make_backend, folders, stir, tmp_path):
    backend = make_backend("text", lora=BOTH)
    backend.load(folders["both"])
    backend.save(tmp_path / "again")
    file = "pytorch_lora_weights.safetensors"
    stored, again = load_file(folders["both"] / file), load_file(tmp_path / "again" / file)
    assert stored.keys() == again.keys()
    assert all(torch.equal(again[key], tensor) for key, tensor in stored.items())
    with pytest.raises(InputError, match="has LoRA for other layers than this run trains"):
        make_backend("text", lora=LoraConfig(rank=4, alpha=8)).load(folders["both"])


def test_in_training_the_base_model_is_there_as_well(make_backend, stir, stock, draw):
    backend = stir(make_backend("text", lora=BOTH))
    pipe, same = backend.pipe, {"guidance_scale": 3.0}
    assert not torch.allclose(draw(pipe, WORDS, **same), draw(stock, WORDS, **same), atol=1e-2)
    with pipe.without_adapter():
        drawn = draw(pipe, WORDS, **same)
    assert torch.allclose(drawn, draw(stock, WORDS, **same), atol=1e-5)
    pipe.text_cache = Recent(8)
    first = draw(pipe, **same)
    stir(backend, 5)
    assert not torch.allclose(draw(pipe, **same), first, atol=1e-3) and not pipe.text_cache.made


def test_families_without_a_clip_have_no_such_layers():
    config = DiffusionConfig(lora=ALONE)
    with pytest.raises(InputError, match="Z-Image has no text_encoder layers; it has attention"):
        z_image.FAMILY.check_settings(config)
    sdxl.FAMILY.check_settings(config)
