"""Stable Diffusion 3: tokens in joint attention, modulation through what embeds time and text,
flow matching, and a room for words in each of three tokenizers."""

from functools import partial

import numpy as np
import pytest
import torch
from diffusers import StableDiffusion3Pipeline

from ric_diffusion import RiCPipeline
from ric_diffusion.conditioning.dropout import Dropout
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.diffusion.backend import DiffusionConfig, LoraConfig
from ric_diffusion.models.diffusion.families.sd3 import FAMILY
from ric_diffusion.models.protocol import Batch
from support import sd3

ONE, OTHER = {"colorfulness": 1.5}, {"colorfulness": -0.5, "compressibility": 2.0}
SAMPLING = {"guidance_scale": 4.0, "num_inference_steps": 2}
LORA = LoraConfig(rank=4, alpha=8, targets=("attention", "feed_forward", "modulation"))
TOKENS = 32 + 256  # CLIP's, then T5's


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return sd3.write(tmp_path_factory.mktemp("sd3") / "model")


def loaded(cls, folder):
    pipe = cls.from_pretrained(folder, use_safetensors=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def stock_3(folder):
    return loaded(StableDiffusion3Pipeline, folder)


@pytest.fixture
def pipe_3(folder):
    return loaded(RiCPipeline, folder)


@pytest.fixture(scope="module")
def make(folder, space):
    def backend(mode="embedding", seed=0, **changes):
        settings = {"lora": LORA, "sampling": SAMPLING, "mode": mode, **changes}
        return FAMILY.create_backend(str(folder), space, DiffusionConfig(**settings), seed=seed)

    return backend


@pytest.fixture(scope="module")
def adapters_3(make, stir, tmp_path_factory):
    root = tmp_path_factory.mktemp("adapters-3")
    for mode in ("embedding", "text"):
        stir(make(mode)).save(root / mode)
    return {mode: root / mode for mode in ("embedding", "text")}


@pytest.fixture(params=["embedding", "text"])
def ready(request, pipe_3, adapters_3):
    pipe_3.load_adapter(adapters_3[request.param])
    return pipe_3


CALLS = {
    "plain": {"prompt": "red apple"},
    "negative": {"prompt": "red apple", "negative_prompt": "blue"},
    "three prompts": {"prompt": "red", "prompt_2": "car", "prompt_3": "apple"},
    "list": {"prompt": ["red apple", "blue car"], "num_images_per_prompt": 2},
    "unguided": {"prompt": "red apple", "guidance_scale": 1.0},
    "size": {"prompt": "red apple", "height": 32, "width": 96},
    "skipped layers": {"prompt": "red apple", "skip_guidance_layers": [0]},
}


@pytest.mark.parametrize("given", CALLS.values(), ids=CALLS)
def test_without_an_adapter_it_is_the_stock_pipeline_to_the_bit(pipe_3, stock_3, given, draw):
    given = dict(given)
    prompt = given.pop("prompt")
    assert torch.equal(draw(pipe_3, prompt, **given), draw(stock_3, prompt, **given))


def test_the_context_has_reward_tokens_behind_all_encoders_states(ready, stock_3):
    found = ready.encode_context(["red apple", "blue car"], [ONE, OTHER])
    tokens = 2 if ready.adapter.conditioner.mode == "embedding" else 0
    assert found.states.shape == (2, TOKENS + tokens, 96)
    assert found.pooled.shape == (2, 64)
    if tokens:
        states, _, pooled, _ = stock_3.encode_prompt("red apple", None, None, "cpu")
        assert torch.allclose(found.states[0, :-2], states[0], atol=1e-5)
        assert torch.allclose(found.pooled[0], pooled[0], atol=1e-5)


def test_every_tokenizer_has_room_for_the_words_and_keeps_what_it_can_of_the_prompt(
    pipe_3, adapters_3
):
    pipe_3.load_adapter(adapters_3["text"])
    ((first, second, third),) = pipe_3.texts(["red apple " * 60], [OTHER])
    words = " <colorfulness> -0.5 <compressibility> 2.0"
    assert all(
        text.startswith("red apple") and text.endswith(words) for text in (first, second, third)
    )
    assert len(pipe_3.tokenizer(first).input_ids) <= 32
    assert len(first) == len(second) < len(third)
    assert len(pipe_3.tokenizer_3(third).input_ids) <= 256
    ((*_, short),) = pipe_3.texts(["red apple " * 60], [OTHER], 64)
    assert short.endswith(words) and len(pipe_3.tokenizer_3(short).input_ids) <= 64
    low, high = (
        pipe_3.encode_context(["red apple " * 60], [{"compressibility": z}]) for z in (1.5, 1.6)
    )
    assert not torch.equal(low.states[:, :32], high.states[:, :32])
    assert not torch.equal(low.states[:, 32:], high.states[:, 32:])


def test_targets_change_the_picture_and_the_call_says_which(ready, draw):
    output = ready(["red apple", "blue car"], targets=[ONE, OTHER], num_images_per_prompt=2)
    assert output.targets == [ONE, ONE, OTHER, OTHER] and len(output.images) == 4
    plain = draw(ready, targets=ONE)
    assert not torch.allclose(plain, draw(ready, targets=OTHER), atol=1e-3)
    for more in ({"negative_targets": OTHER}, {"prompt_guidance": 2.0}, {"contrast": 1.0}):
        assert not torch.allclose(plain, draw(ready, targets=ONE, **more), atol=1e-4)
    with pytest.raises(
        InputError, match=r"negative_targets: give guidance_scale above 1, not 1\.0"
    ):
        draw(ready, targets=ONE, negative_targets=OTHER, guidance_scale=1.0)


def test_tokens_alone_and_their_shift_alone_move_the_picture(pipe_3, adapters_3, draw):
    """Both ways in: without the shift what is left is attention, and the other way round."""
    pipe_3.load_adapter(adapters_3["embedding"])
    encoder = pipe_3.adapter.encoder
    for hook in pipe_3._held.hooks:
        hook.remove()
    low, high = (draw(pipe_3, targets={"colorfulness": z}) for z in (-2.0, 2.0))
    assert not torch.allclose(low, high, atol=1e-4)
    context = pipe_3.encode_context(["red"] * 2, [ONE, OTHER]).states
    shift = encoder.time_shift(context)
    assert shift.shape == (2, 32) and not torch.allclose(shift[0], shift[1])


@pytest.mark.parametrize("mode", ["embedding", "text"])
def test_trained_saved_loaded_and_drawn_alike(make, mode, pictures, folder, tmp_path):
    pixels, records = pictures
    backend = make(mode, dropout=Dropout(prompt=0.0, everything=0.0, reward=0.0))
    backend.prepare(records[:4], pixels, tmp_path / "cache")
    optimizer = torch.optim.AdamW(backend.named_parameters().values(), lr=1e-2)
    for step in range(3):
        batch = Batch(indices=(0, 1, 2, 3), generator=torch.Generator().manual_seed(step))
        loss = backend.loss(batch)
        loss.backward()
        assert loss.isfinite()
        assert all(p.grad is not None for p in backend.named_parameters().values())
        optimizer.step()
        optimizer.zero_grad()
    backend.save(tmp_path / "adapter")
    (wanted,) = backend.sample(["red apple"], [ONE], [0])
    pipe = loaded(RiCPipeline, folder)
    pipe.load_adapter(tmp_path / "adapter")
    (found,) = FAMILY.sampler(pipe).sample(["red apple"], [ONE], [0])
    assert np.abs(np.asarray(wanted, int) - np.asarray(found, int)).max() <= 1
    again = make(mode)
    again.load(tmp_path / "adapter")
    for name, parameter in backend.named_parameters().items():
        assert torch.equal(parameter, again.named_parameters()[name]), name


def test_what_it_predicts_is_what_a_sampler_integrates(pipe_3):
    """One step of the scheduler along the prediction, from the noise level of its first time."""
    pipe_3.scheduler.set_timesteps(4)
    t, sigma, after = (
        pipe_3.scheduler.timesteps[1], pipe_3.scheduler.sigmas[1], pipe_3.scheduler.sigmas[2]
    )  # fmt: skip
    context = FAMILY.encode(pipe_3, [["red apple"]] * 3)
    noisy = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        velocity = FAMILY.predict(pipe_3, noisy, sigma.view(1), context)
        theirs = pipe_3.transformer(
            noisy, context.states, context.pooled, t.view(1), return_dict=False
        )[0]
    pipe_3.scheduler.set_begin_index(1)
    stepped = pipe_3.scheduler.step(theirs, t, noisy).prev_sample
    assert torch.allclose(stepped, noisy + (after - sigma) * velocity, atol=1e-5)


def test_latents_are_shifted_as_its_autoencoder_says(pipe_3):
    images = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.manual_seed(0))
    moments = FAMILY.latents(pipe_3).encode(images.to(torch.uint8))
    pixels = images.float() / 127.5 - 1
    with torch.no_grad():
        mean = pipe_3.vae.encode(pixels).latent_dist.mean
    assert torch.allclose(moments[:, 0], (mean - 0.0609) * 1.5305, atol=1e-5)


def test_min_snr_is_refused_where_there_are_no_such_weights(pipe_3, make):
    with pytest.raises(InputError, match=r"^diffusion\.min_snr_gamma: .* flow matching"):
        make(min_snr_gamma=5.0)


def test_judged_by_its_own_prompts(pipe_3, adapters_3):
    pipe_3.load_adapter(adapters_3["embedding"])
    sampler = FAMILY.sampler(pipe_3)
    samples = sampler.sample(["red apple", "blue car"], [ONE, {}], [0, 1])
    found = sampler.prompt_r_precision(["red apple", "blue car"], samples)
    assert found.shape == (2,) and ((found >= 0) & (found <= 1)).all()


def test_the_stock_pipeline_loads_the_lora(adapters_3, folder, pipe_3, draw):
    """With the words of text mode in its prompt it then draws what ours draws."""
    stock = loaded(StableDiffusion3Pipeline, folder)
    stock.load_lora_weights(adapters_3["text"])
    pipe_3.load_adapter(adapters_3["text"])
    ours = partial(draw, pipe_3, "red apple", targets=ONE, **SAMPLING)()
    theirs = draw(stock, "red apple <colorfulness> 1.5", **SAMPLING)
    assert torch.allclose(ours, theirs, atol=2e-3)
    stock.unload_lora_weights()
    assert not torch.allclose(
        ours, draw(stock, "red apple <colorfulness> 1.5", **SAMPLING), atol=0.01
    )
