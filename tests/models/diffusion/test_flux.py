"""FLUX.1: packed latents, guidance that is distilled into the network, and what true guidance
brings."""

import math

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

from ric_diffusion import RiCPipeline
from ric_diffusion.conditioning.dropout import Dropout
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.diffusion.backend import DiffusionBackend, DiffusionConfig, LoraConfig
from ric_diffusion.models.diffusion.context import Context
from ric_diffusion.models.diffusion.families.flux import FAMILY, GUIDANCE
from ric_diffusion.models.protocol import Batch
from ric_diffusion.rewards import opposite
from support import flux

ONE, OTHER = {"colorfulness": 1.5}, {"colorfulness": -0.5, "compressibility": 2.0}
SIZE = {"height": 64, "width": 64}
SAMPLING = {"num_inference_steps": 2, **SIZE}
LORA = LoraConfig(rank=4, alpha=8, targets=("attention", "feed_forward", "modulation"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return flux.write(tmp_path_factory.mktemp("flux") / "model")


def loaded(cls, folder):
    pipe = cls.from_pretrained(folder, use_safetensors=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def stock_flux(folder):
    return loaded(FluxPipeline, folder)


@pytest.fixture
def pipe_flux(folder):
    return loaded(RiCPipeline, folder)


@pytest.fixture(scope="module")
def make(folder, space):
    def backend(mode="embedding", seed=0, **changes):
        settings = {"lora": LORA, "sampling": SAMPLING, "mode": mode, "resolution": 64, **changes}
        return FAMILY.create_backend(str(folder), space, DiffusionConfig(**settings), seed=seed)

    return backend


@pytest.fixture(scope="module")
def adapters_flux(make, stir, tmp_path_factory):
    root = tmp_path_factory.mktemp("adapters-flux")
    for mode in ("embedding", "text"):
        stir(make(mode)).save(root / mode)
    return {mode: root / mode for mode in ("embedding", "text")}


@pytest.fixture(params=["embedding", "text"])
def ready(request, pipe_flux, adapters_flux):
    pipe_flux.load_adapter(adapters_flux[request.param])
    return pipe_flux


CALLS = {
    "plain": {"prompt": "red apple"},
    "two prompts": {"prompt": "red", "prompt_2": "car"},
    "list": {"prompt": ["red apple", "blue car"], "num_images_per_prompt": 2},
    "true guidance": {"prompt": "red apple", "negative_prompt": "blue", "true_cfg_scale": 3.0},
    "guidance": {"prompt": "red apple", "guidance_scale": 1.5},
    "size": {"prompt": "red apple", "height": 32, "width": 96},
}


@pytest.mark.parametrize("given", CALLS.values(), ids=CALLS)
def test_without_an_adapter_it_is_the_stock_pipeline_to_the_bit(pipe_flux, stock_flux, given, draw):
    given = {**SIZE, **given}
    prompt = given.pop("prompt")
    assert torch.equal(draw(pipe_flux, prompt, **given), draw(stock_flux, prompt, **given))


def test_reward_tokens_follow_the_second_encoders_states(ready, stock_flux):
    found = ready.encode_context(["red apple", "blue car"], [ONE, OTHER])
    tokens = 2 if ready.adapter.conditioner.mode == "embedding" else 0
    assert found.states.shape == (2, 512 + tokens, 96) and found.pooled.shape == (2, 32)
    if tokens:
        states, pooled, _ = stock_flux.encode_prompt("red apple", None, "cpu")
        assert torch.allclose(found.states[0, :-2], states[0], atol=1e-5)
        assert torch.allclose(found.pooled[0], pooled[0], atol=1e-5)


def test_a_long_prompt_is_cut_for_each_tokenizer_alone(pipe_flux, adapters_flux):
    pipe_flux.load_adapter(adapters_flux["text"])
    ((first, second),) = pipe_flux.texts(["red apple " * 60], [OTHER])
    words = " <colorfulness> -0.5 <compressibility> 2.0"
    assert len(pipe_flux.tokenizer(first).input_ids) <= 32 and first.endswith(words)
    assert second == "red apple " * 60 + words  # T5 has room for all of it
    ((_, short),) = pipe_flux.texts(["red apple " * 60], [OTHER], 64)
    assert len(pipe_flux.tokenizer_2(short).input_ids) <= 64 and short.endswith(words)


def test_a_call_may_read_fewer_tokens(ready, draw):
    tokens = 2 if ready.adapter.conditioner.mode == "embedding" else 0
    found = ready.encode_context(["red apple"], [OTHER], max_sequence_length=64)
    assert found.states.shape == (1, 64 + tokens, 96)
    given = {"targets": ONE, **SIZE}
    full = draw(ready, **given)
    assert not torch.equal(draw(ready, **given, max_sequence_length=64), full)
    assert torch.equal(draw(ready, **given, max_sequence_length=512), full)


def test_embeddings_in_place_of_a_prompt(pipe_flux, adapters_flux, stock_flux, draw):
    pipe_flux.load_adapter(adapters_flux["embedding"])
    states, pooled, _ = stock_flux.encode_prompt("red apple", None, "cpu")
    given = {"targets": ONE, "true_cfg_scale": 2.0, "contrast": 1.0, **SIZE}
    found = draw(pipe_flux, None, prompt_embeds=states, pooled_prompt_embeds=pooled, **given)
    assert torch.allclose(found, draw(pipe_flux, "red apple", **given), atol=1e-4)


@pytest.mark.parametrize("distilled", [True, False], ids=["dev", "schnell"])
def test_rewards_shift_what_embeds_time_and_text(distilled, adapters_flux, draw):
    pipe = FAMILY.pipelines["text-to-image"](**flux.parts(guidance_embeds=distilled))
    pipe.set_progress_bar_config(disable=True)
    pipe.load_adapter(adapters_flux["embedding"])
    seen = []
    pipe.transformer.time_text_embed.register_forward_hook(lambda *given: seen.append(given[2]))
    for targets in (ONE, OTHER):
        draw(pipe, targets=targets, num_inference_steps=1, **SIZE)
    context = pipe.encode_context(["red apple"] * 2, [ONE, OTHER]).states
    one, other = pipe.adapter.encoder.time_shift(context)
    assert torch.allclose(seen[0][0] - seen[1][0], one - other, atol=1e-5)
    assert (one - other).abs().max() > 1e-3


def test_tokens_alone_move_the_picture(make, stir, draw):
    pipe = stir(make(modulation=False)).pipe
    low, high = (draw(pipe, targets={"colorfulness": z}, **SIZE) for z in (-2.0, 2.0))
    assert not torch.allclose(low, high, atol=1e-4)


def test_targets_change_the_picture_and_the_call_says_which(ready, draw):
    prompts = ["red apple", "blue car"]
    output = ready(prompts, targets=[ONE, OTHER], num_images_per_prompt=2, **SAMPLING)
    assert output.targets == [ONE, ONE, OTHER, OTHER] and len(output.images) == 4
    plain = draw(ready, targets=ONE, **SIZE)
    assert not torch.allclose(plain, draw(ready, targets=OTHER, **SIZE), atol=1e-3)
    both = draw(ready, ["red apple", "red apple"], targets=[ONE, OTHER], **SIZE)
    assert not torch.allclose(both[:1], both[1:], atol=1e-3)


def test_true_guidance_steers_away_from_negative_targets_and_contrast(ready, draw):
    given = {"targets": ONE, "true_cfg_scale": 3.0, **SIZE}
    plain = draw(ready, **given)
    assert not torch.allclose(plain, draw(ready, targets=ONE, **SIZE), atol=1e-3)
    for more in ({"negative_targets": OTHER}, {"contrast": 1.0}, {"prompt_guidance": 2.0}):
        assert not torch.allclose(plain, draw(ready, **given, **more), atol=1e-4), more
    by_hand = opposite(ONE, ready.adapter.space, 1.0)
    assert torch.equal(
        draw(ready, **given, contrast=1.0), draw(ready, **given, negative_targets=by_hand)
    )


@pytest.mark.parametrize("asked", [{"negative_targets": OTHER}, {"contrast": 1.0}])
def test_without_it_there_is_nothing_to_steer_away_from(ready, draw, asked):
    with pytest.raises(InputError) as error:
        draw(ready, targets=ONE, guidance_scale=7.0, **asked, **SIZE)
    (name,) = asked
    assert str(error.value) == (
        f"{name}: give true_cfg_scale above 1, not 1.0, at a second pass a step: FLUX.1's own "
        "guidance is distilled into the network and has no branch to steer away from"
    )


def test_an_adapters_own_contrast_is_unused_without_it(make, stir, draw):
    backend = stir(make(sampling={**SAMPLING, "contrast": 1.0}))
    assert torch.equal(draw(backend.pipe, targets=ONE), draw(backend.pipe, targets=ONE, contrast=0))


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
    lora = FAMILY.read_adapter(tmp_path / "adapter")[1]
    assert "single_transformer_blocks.0.proj_out" in lora.modules
    assert "proj_out" not in lora.modules


@pytest.mark.parametrize("distilled", [True, False], ids=["dev", "schnell"])
def test_what_is_predicted_is_what_the_pipeline_integrates(distilled):
    """One step of Euler's along the prediction, from noise, is the pipeline's one step."""
    pipe = FAMILY.pipelines["text-to-image"](**flux.parts(guidance_embeds=distilled))
    pipe.set_progress_bar_config(disable=True)
    noise = torch.randn(1, 16, 8, 12, generator=torch.Generator().manual_seed(0))
    context = FAMILY.encode(pipe, [["red apple"], ["red apple"]])
    with torch.no_grad():
        velocity = FAMILY.predict(pipe, noise, torch.ones(1), context)
    packed = pipe._pack_latents(noise, 1, 16, 8, 12)
    found = pipe(
        "red apple", latents=packed, num_inference_steps=1, guidance_scale=GUIDANCE, height=64,
        width=96, output_type="latent",
    ).images  # fmt: skip
    found = pipe._unpack_latents(found, 64, 96, pipe.vae_scale_factor)
    assert torch.allclose(found, noise - velocity, atol=1e-4)


def test_training_shifts_its_times_as_sampling_does(pipe_flux):
    """By how many tokens a picture has: in dev at 1024 px more noise than at 256 px."""
    shift = FAMILY.objective(pipe_flux).shift
    assert (shift(256), shift(4096)) == pytest.approx((math.exp(0.5), math.exp(1.15)))
    pipe_flux.scheduler = FlowMatchEulerDiscreteScheduler(**flux.SCHEDULERS[False])
    assert FAMILY.objective(pipe_flux).shift == 1.0


@pytest.mark.parametrize(
    ("distilled", "wanted"),
    [
        (True, {"guidance_scale": 3.5, "num_inference_steps": 28}),
        (False, {"num_inference_steps": 4, "max_sequence_length": 256}),
    ],
    ids=["dev", "schnell"],
)
def test_a_training_that_does_not_say_how_samples_as_the_model_is_meant_to(
    distilled, wanted, space
):
    pipe = FAMILY.pipelines["text-to-image"](**flux.parts(guidance_embeds=distilled))
    backend = DiffusionBackend.create(pipe, "flux", space, DiffusionConfig(sampling=SIZE))
    assert backend.adapter.sampling == backend.sampling == {**wanted, **SIZE}
    length = wanted.get("max_sequence_length", 512)
    assert backend.context(["red apple"], [ONE]).states.shape == (1, length + 2, 96)


def layers_of(kind, names):
    """Those of the names that a LoRA on this kind of layers takes, as peft compares them."""
    ends = tuple(f".{layer}" for layer in FAMILY.lora_layers[kind])
    return [name for name in names if f".{name}".endswith(ends)]


def test_every_kind_of_layer_of_the_full_model_is_found():
    """19 blocks of two streams, 38 of one."""
    with torch.device("meta"):
        network = FluxTransformer2DModel(**flux.WIDE | {"num_layers": 19, "num_single_layers": 38})
    names = [name for name, _ in network.named_modules()]
    found = {kind: layers_of(kind, names) for kind in FAMILY.lora_layers}
    assert {kind: len(layers) for kind, layers in found.items()} == {
        "attention": 19 * 8 + 38 * 3, "feed_forward": 19 * 4 + 38 * 2, "modulation": 19 * 2 + 38
    }  # fmt: skip
    assert all("transformer_blocks." in layer for layers in found.values() for layer in layers)


def test_a_step_at_true_widths(space):
    """Without memory for the weights, in two blocks."""
    with torch.device("meta"):
        network = FluxTransformer2DModel(**flux.WIDE)
    pipe = FAMILY.pipelines["text-to-image"](**flux.parts() | {"transformer": network})
    settings = DiffusionConfig(lora=LORA, sampling=SIZE)
    backend = DiffusionBackend.create(pipe, "flux", space, settings)
    states = torch.empty(2, 512, 4096, device="meta")
    tokens = backend.adapter.conditioner.context(states, [ONE, OTHER])
    context = Context(states=tokens, pooled=torch.empty(2, 768, device="meta"))
    latents = torch.empty(2, 16, 64, 48, device="meta")
    with pipe.with_adapter():
        predicted = FAMILY.predict(pipe, latents, torch.empty(2, device="meta"), context)
    assert predicted.shape == latents.shape
    predicted.mean().backward()
    trained = backend.named_parameters()
    assert all(p.grad.shape == p.shape for p in trained.values())
    lora = [name.partition(".lora_A.")[0] for name in trained if ".lora_A." in name]
    assert [len(layers_of(kind, lora)) for kind in FAMILY.lora_layers] == [8 + 3, 4 + 2, 2 + 1]


@pytest.mark.parametrize("name", ["FluxFillPipeline", "FluxKontextPipeline", "FluxControlPipeline"])
def test_what_reads_more_than_noise_and_text_is_refused_by_name(tmp_path, name):
    (tmp_path / "model_index.json").write_text(f'{{"_class_name": "{name}"}}')
    with pytest.raises(InputError, match=f"{name}.*FLUX.1 dev or schnell") as error:
        RiCPipeline.from_pretrained(tmp_path)
    assert "\n" not in str(error.value)


def test_a_denoiser_that_reads_more_channels_is_not_trained(space, tmp_path):
    folder = flux.write(tmp_path / "model", in_channels=128, out_channels=64)
    (folder / "vae").rename(tmp_path / "gone")
    other = flux.write(tmp_path / "other")
    (other / "vae").rename(folder / "vae")
    with pytest.raises(InputError, match="its transformer reads 32 channels where latents have 16"):
        FAMILY.create_backend(str(folder), space, DiffusionConfig(sampling=SAMPLING))


def test_the_stock_pipeline_loads_the_lora(adapters_flux, folder, pipe_flux, draw):
    """With the words of text mode in its prompt it then draws what ours draws."""
    stock = loaded(FluxPipeline, folder)
    stock.load_lora_weights(adapters_flux["text"])
    pipe_flux.load_adapter(adapters_flux["text"])
    text = "red apple <colorfulness> 1.5"
    ours = draw(pipe_flux, "red apple", targets=ONE, **SAMPLING)
    assert torch.allclose(ours, draw(stock, text, **SAMPLING), atol=2e-3)
    stock.unload_lora_weights()
    assert not torch.allclose(ours, draw(stock, text, **SAMPLING), atol=0.01)
