"""Stable Diffusion XL: stock without an adapter, and with one all that Stable Diffusion has."""

import json

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLImg2ImgPipeline, StableDiffusionXLPipeline
from PIL import Image

from ric_diffusion import (
    RiCPipeline,
    RiCStableDiffusionPipeline,
    RiCStableDiffusionXLImg2ImgPipeline,
    RiCStableDiffusionXLPipeline,
)
from ric_diffusion.adapters.adapter import Adapter
from ric_diffusion.adapters.export import export
from ric_diffusion.conditioning.dropout import Dropout
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.diffusion.backend import DiffusionConfig, LoraConfig
from ric_diffusion.models.diffusion.families.sdxl import FAMILY
from ric_diffusion.models.protocol import Batch
from support import sdxl

ONE, OTHER = {"colorfulness": 1.5}, {"colorfulness": -0.5, "compressibility": 2.0}
SAMPLING = {"guidance_scale": 4.0, "num_inference_steps": 2}
LORA = LoraConfig(rank=4, alpha=8, targets=("attention", "feed_forward", "convolution"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return sdxl.write(tmp_path_factory.mktemp("sdxl") / "model")


def loaded(cls, folder):
    pipe = cls.from_pretrained(folder, use_safetensors=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def stock_xl(folder):
    return loaded(StableDiffusionXLPipeline, folder)


@pytest.fixture
def pipe_xl(folder):
    return loaded(RiCPipeline, folder)


@pytest.fixture(scope="module")
def make(folder, space):
    def backend(mode="embedding", seed=0, **changes):
        settings = {"lora": LORA, "sampling": SAMPLING, "mode": mode, **changes}
        return FAMILY.create_backend(str(folder), space, DiffusionConfig(**settings), seed=seed)

    return backend


@pytest.fixture(scope="module")
def adapters_xl(make, stir, tmp_path_factory):
    root = tmp_path_factory.mktemp("adapters-xl")
    for mode in ("embedding", "text"):
        stir(make(mode)).save(root / mode)
    return {mode: root / mode for mode in ("embedding", "text")}


@pytest.fixture(params=["embedding", "text"])
def ready(request, pipe_xl, adapters_xl):
    pipe_xl.load_adapter(adapters_xl[request.param])
    return pipe_xl


CALLS = {
    "plain": {"prompt": "red apple"},
    "negative": {"prompt": "red apple", "negative_prompt": "blue"},
    "two prompts": {"prompt": "red apple", "prompt_2": "car", "negative_prompt_2": "blue"},
    "list": {"prompt": ["red apple", "blue car"], "num_images_per_prompt": 2},
    "unguided": {"prompt": "red apple", "guidance_scale": 1.0},
    "size ids": {"prompt": "red apple", "original_size": (32, 96), "crops_coords_top_left": (3, 4)},
    "size": {"prompt": "red apple", "height": 32, "width": 96},
}


@pytest.mark.parametrize("given", CALLS.values(), ids=CALLS)
def test_without_an_adapter_it_is_the_stock_pipeline_to_the_bit(pipe_xl, stock_xl, given, draw):
    given = dict(given)
    prompt = given.pop("prompt")
    assert torch.equal(draw(pipe_xl, prompt, **given), draw(stock_xl, prompt, **given))


def test_image_to_image(folder, stock_xl, adapters_xl):
    stock = StableDiffusionXLImg2ImgPipeline(**stock_xl.components)
    ours = RiCStableDiffusionXLImg2ImgPipeline(**loaded(RiCPipeline, folder).components)
    picture = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    )

    def run(pipe, **given):
        pipe.set_progress_bar_config(disable=True)
        generator = torch.Generator().manual_seed(0)
        return np.asarray(
            pipe("red apple", image=picture, generator=generator, num_inference_steps=4, **given)
            .images[0]
        )  # fmt: skip

    assert np.array_equal(run(ours), run(stock))
    ours.load_adapter(adapters_xl["embedding"])
    assert not np.array_equal(run(ours, targets=ONE), run(ours, targets=OTHER))


def test_the_class_is_found_from_the_folder(folder, model):
    assert type(RiCPipeline.from_pretrained(folder)) is RiCStableDiffusionXLPipeline
    assert type(RiCPipeline.from_pretrained(model)) is RiCStableDiffusionPipeline
    with pytest.raises(InputError, match=r"Stable Diffusion XL; RiCPipeline\.from_pretrained"):
        RiCStableDiffusionPipeline.from_pretrained(folder)
    with pytest.raises(InputError, match=r"a model of Stable Diffusion 1\.x and 2\.x"):
        RiCStableDiffusionXLPipeline.from_pretrained(model)


@pytest.mark.parametrize("index", [
    {"_class_name": "StableDiffusionXLImg2ImgPipeline", "text_encoder": [None, None],
     "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"]},
])  # fmt: skip
def test_the_refiner_is_refused_by_name(tmp_path, index):
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"^.*: the refiner of Stable Diffusion XL.*base"):
        RiCPipeline.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["SanaPipeline", "QwenImagePipeline", "PixArtSigmaPipeline"])
def test_a_model_of_no_family_is_one_line_that_lists_those_there_are(tmp_path, name):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": name}))
    with pytest.raises(InputError) as error:
        RiCPipeline.from_pretrained(tmp_path)
    line = str(error.value)
    assert "\n" not in line and name in line
    assert all(word in line for word in ("1.x and 2.x", "XL", "causal language models"))


def test_the_context_has_reward_tokens_behind_both_encoders_states(ready, stock_xl):
    found = ready.encode_context(["red apple", "blue car"], [ONE, OTHER])
    mode = ready.adapter.conditioner.mode
    assert found.states.shape == (2, 32 + (2 if mode == "embedding" else 0), 80)
    assert found.pooled.shape == (2, 48)
    if mode == "embedding":
        states, _, pooled, _ = stock_xl.encode_prompt("red apple", None, "cpu", 1, False)
        assert torch.allclose(found.states[0, :32], states[0], atol=1e-5)
        assert torch.allclose(found.pooled[0], pooled[0], atol=1e-5)


def test_words_are_kept_by_both_tokenizers_however_long_the_prompt(ready):
    if ready.adapter.conditioner.mode == "embedding":
        pytest.skip("tokens need no room")
    texts = ready.adapter.conditioner.texts(
        ["red apple " * 40], [OTHER], [ready.tokenizer, ready.tokenizer_2]
    )
    assert texts[0].endswith("apple <colorfulness> -0.5 <compressibility> 2.0")
    assert all(len(t(texts[0]).input_ids) <= 32 for t in (ready.tokenizer, ready.tokenizer_2))
    low = ready.encode_context(["red apple " * 40], [{"compressibility": 1.5}])
    high = ready.encode_context(["red apple " * 40], [{"compressibility": 1.6}])
    assert not torch.equal(low.states, high.states)


def test_an_empty_prompt_is_what_the_stock_pipeline_guides_away_from(ready, folder):
    mode = ready.adapter.conditioner.mode
    empty = ready.encode_context([""], [{}])
    assert not empty.states[:, :32].any() and not empty.pooled.any()
    if mode == "text":  # words are a text, with nothing before them
        assert ready.encode_context([""], [ONE]).states.any()
    ready.register_to_config(force_zeros_for_empty_prompt=False)
    assert ready.encode_context([""], [{}]).pooled.any()


def test_targets_change_the_picture_and_the_call_says_which(ready, draw):
    output = ready(["red apple", "blue car"], targets=[ONE, OTHER], num_images_per_prompt=2)
    assert output.targets == [ONE, ONE, OTHER, OTHER] and len(output.images) == 4
    assert not torch.allclose(draw(ready, targets=ONE), draw(ready, targets=OTHER), atol=1e-3)
    steered = draw(ready, targets=ONE, negative_targets=OTHER)
    assert not torch.allclose(steered, draw(ready, targets=ONE), atol=1e-4)
    softer = draw(ready, targets=ONE, prompt_guidance=2.0)
    assert not torch.allclose(softer, draw(ready, targets=ONE), atol=1e-4)


def test_the_second_prompt_is_read_by_the_second_encoder(ready, draw):
    one, other = (draw(ready, "red apple", prompt_2=p, targets=ONE) for p in ("car", "blue"))
    assert not torch.allclose(one, other, atol=1e-4)
    same = draw(ready, "red apple", prompt_2="red apple", targets=ONE)
    assert torch.equal(same, draw(ready, "red apple", targets=ONE))


def test_prompt_embeds_are_taken_with_what_is_pooled_of_them(adapters_xl, pipe_xl, stock_xl, draw):
    pipe_xl.load_adapter(adapters_xl["embedding"])
    states, _, pooled, _ = stock_xl.encode_prompt("red apple", None, "cpu", 1, False)
    found = draw(pipe_xl, None, prompt_embeds=states, pooled_prompt_embeds=pooled, targets=ONE)
    assert torch.allclose(found, draw(pipe_xl, "red apple", targets=ONE), atol=1e-3)
    with pytest.raises(InputError, match="pooled_prompt_embeds: goes with prompt_embeds"):
        draw(pipe_xl, None, prompt_embeds=states, targets=ONE)


def test_taken_out_again_bit_for_bit(pipe_xl, adapters_xl, stock_xl, draw, watch):
    unchanged = watch(pipe_xl.unet)
    pipe_xl.load_adapter(adapters_xl["embedding"])
    assert not unchanged()
    pipe_xl.unload_adapter()
    assert unchanged() and torch.equal(draw(pipe_xl), draw(stock_xl))


def test_an_adapter_of_another_family_is_refused_and_changes_nothing(
    pipe_xl, adapters, adapters_xl, pipe, watch
):
    unchanged = watch(pipe_xl.unet)
    with pytest.raises(InputError, match=r"an adapter for stable-diffusion models.* XL$"):
        pipe_xl.load_adapter(adapters["embedding"])
    assert unchanged() and pipe_xl.adapter is None
    with pytest.raises(InputError, match="an adapter for stable-diffusion-xl models"):
        pipe.load_adapter(adapters_xl["embedding"])


@pytest.mark.parametrize("mode", ["embedding", "text"])
def test_trained_saved_loaded_and_drawn_alike(make, mode, pictures, folder, tmp_path):
    pixels, records = pictures
    backend = make(mode, dropout=Dropout(prompt=0.0, everything=0.0, reward=0.0))
    backend.prepare(records[:4], pixels, tmp_path / "cache")
    optimizer = torch.optim.AdamW(backend.named_parameters().values(), lr=1e-2)
    losses = []
    for step in range(3):
        batch = Batch(indices=(0, 1, 2, 3), generator=torch.Generator().manual_seed(step))
        loss = backend.loss(batch)
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
        optimizer.zero_grad()
    assert np.isfinite(losses).all()
    backend.save(tmp_path / "adapter")
    (wanted,) = backend.sample(["red apple"], [ONE], [0])
    assert Adapter.load(tmp_path / "adapter").family == "stable-diffusion-xl"
    pipe = loaded(RiCPipeline, folder)
    pipe.load_adapter(tmp_path / "adapter")
    (found,) = FAMILY.sampler(pipe).sample(["red apple"], [ONE], [0])
    assert np.abs(np.asarray(wanted, int) - np.asarray(found, int)).max() <= 1
    again = make(mode)
    again.load(tmp_path / "adapter")
    for name, parameter in backend.named_parameters().items():
        assert torch.equal(parameter, again.named_parameters()[name]), name


def test_training_sees_the_context_that_inference_sees(make):
    backend = make("embedding")
    with torch.no_grad():
        found = backend.context(["red apple", ""], [ONE, {}])
        wanted = backend.pipe.encode_context(["red apple", ""], [ONE, {}])
        assert torch.equal(found.states, wanted.states)
        # One by one, as training encodes texts: in a batch PyTorch 2.6 rounds otherwise.
        alone = [backend.pipe.encode_context([text], [{}]).pooled for text in ("red apple", "")]
        assert torch.equal(found.pooled, torch.cat(alone))


def test_a_training_step_is_told_the_size_of_the_picture(make, monkeypatch):
    backend, seen = make("embedding"), []
    forward = backend.pipe.unet.forward

    def look(*args, **kwargs):
        seen.append(kwargs["added_cond_kwargs"])
        return forward(*args, **kwargs)

    monkeypatch.setattr(backend.pipe.unet, "forward", look)
    noisy, t = torch.zeros(2, 4, 4, 12), torch.tensor([10, 20])
    context = backend.context(["red", "blue"], [ONE, {}])
    with backend.pipe.with_adapter():
        FAMILY.predict(backend.pipe, noisy, t, context)
    (added,) = seen
    assert added["time_ids"].tolist() == [[32.0, 96.0, 0.0, 0.0, 32.0, 96.0]] * 2
    stock_ids = backend.pipe._get_add_time_ids(
        (32, 96), (0, 0), (32, 96), torch.float32, text_encoder_projection_dim=48
    )
    assert torch.equal(added["time_ids"][:1], stock_ids)


def test_judged_by_its_own_prompts(pipe_xl, adapters_xl):
    pipe_xl.load_adapter(adapters_xl["embedding"])
    sampler = FAMILY.sampler(pipe_xl)
    prompts = ["red apple", "blue car"]
    samples = sampler.sample(prompts, [ONE, {}], [0, 1])
    assert sampler.features(samples).shape[0] == 2
    found = sampler.prompt_r_precision(prompts, samples)
    assert found.shape == (2,) and ((found >= 0) & (found <= 1)).all()


@pytest.mark.parametrize("kohya", [False, True], ids=["diffusers", "kohya"])
def test_the_stock_pipeline_loads_the_lora(adapters_xl, folder, pipe_xl, draw, tmp_path, kohya):
    """With the words of text mode in its prompt it then draws what ours draws."""
    path = adapters_xl["text"]
    if kohya:
        path = tmp_path / "sliders.safetensors"
        export(*FAMILY.read_adapter(adapters_xl["text"]), FAMILY.format, path, "kohya")
    stock = loaded(StableDiffusionXLPipeline, folder)
    stock.load_lora_weights(path)
    pipe_xl.load_adapter(adapters_xl["text"])
    ours = draw(pipe_xl, "red apple", targets=ONE, negative_prompt="blue", **SAMPLING)
    theirs = draw(stock, "red apple <colorfulness> 1.5", negative_prompt="blue", **SAMPLING)
    assert torch.allclose(ours, theirs, atol=2e-3)
    stock.unload_lora_weights()
    assert not torch.allclose(
        ours, draw(stock, "red apple <colorfulness> 1.5", **SAMPLING), atol=0.01
    )


def test_saved_as_a_stock_folder_with_its_adapter(ready, tmp_path, draw, stock_xl):
    ready.save_pretrained(tmp_path / "saved")
    index = json.loads((tmp_path / "saved" / "model_index.json").read_text())
    assert index["_class_name"] == "StableDiffusionXLPipeline"
    plain = loaded(StableDiffusionXLPipeline, tmp_path / "saved")
    assert torch.equal(draw(plain), draw(stock_xl))
    again = loaded(RiCPipeline, tmp_path / "saved")
    assert torch.equal(draw(again, targets=ONE), draw(ready, targets=ONE))


def test_unguided_the_negative_states_are_dropped(ready, draw):
    generator = torch.Generator().manual_seed(0)
    long, short = torch.randn(2, 1, 64, 80, generator=generator)
    pooled, other = torch.randn(2, 1, 48, generator=generator)
    given = {"prompt_embeds": long, "pooled_prompt_embeds": pooled, "guidance_scale": 1.0}
    against = {"negative_prompt_embeds": short[:, :32], "negative_pooled_prompt_embeds": other}
    assert torch.equal(draw(ready, None, **given, **against), draw(ready, None, **given))
