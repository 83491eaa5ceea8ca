"""Z-Image: stock without an adapter through every door, and with one all that the others have."""

import json
import re

import numpy as np
import pytest
import torch
from diffusers import (
    AutoPipelineForImage2Image,
    AutoPipelineForInpainting,
    ZImageControlNetPipeline,
    ZImageImg2ImgPipeline,
    ZImageInpaintPipeline,
    ZImagePipeline,
)
from PIL import Image

from ric_diffusion import RiCPipeline
from ric_diffusion.conditioning.dropout import Dropout
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.cost import Meter
from ric_diffusion.models.diffusion.backend import DiffusionBackend, DiffusionConfig, LoraConfig
from ric_diffusion.models.diffusion.families.z_image import FAMILY
from ric_diffusion.models.protocol import Batch
from support import z_image
from support.passes import recorded, same

ONE, OTHER = {"colorfulness": 1.5}, {"colorfulness": -0.5, "compressibility": 2.0}
SIZE = {"height": 64, "width": 64}
SAMPLING = {"guidance_scale": 3.0, "num_inference_steps": 2, **SIZE}
LORA = LoraConfig(rank=4, alpha=8, targets=("attention", "feed_forward", "modulation"))
PROMPTS = ["red apple", "a blue car that is by far the longer one of these prompts"]
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
CHAT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
STOCK = {
    "text-to-image": ZImagePipeline,
    "image-to-image": ZImageImg2ImgPipeline,
    "inpainting": ZImageInpaintPipeline,
    "controlnet": ZImageControlNetPipeline,
}
GIVEN = {
    "text-to-image": {},
    "image-to-image": {"image": PICTURE, "strength": 0.7},
    "inpainting": {"image": PICTURE, "mask_image": Image.new("L", (64, 64), 255)},
    "controlnet": {"control_image": PICTURE, "controlnet_conditioning_scale": 0.9},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return z_image.write(tmp_path_factory.mktemp("z-image") / "model")


def loaded(cls, folder):
    pipe = cls.from_pretrained(folder, use_safetensors=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def stock_z(folder):
    return loaded(ZImagePipeline, folder)


@pytest.fixture
def pipe_z(folder):
    return loaded(RiCPipeline, folder)


@pytest.fixture(scope="module")
def make(folder, space):
    def backend(mode="embedding", seed=0, **changes):
        settings = {"lora": LORA, "sampling": SAMPLING, "mode": mode, "resolution": 64, **changes}
        return FAMILY.create_backend(str(folder), space, DiffusionConfig(**settings), seed=seed)

    return backend


@pytest.fixture(scope="module")
def adapters_z(make, stir, tmp_path_factory):
    root = tmp_path_factory.mktemp("adapters-z")
    for mode in ("embedding", "text"):
        stir(make(mode)).save(root / mode)
    return {mode: root / mode for mode in ("embedding", "text")}


@pytest.fixture(params=["embedding", "text"])
def ready(request, pipe_z, adapters_z):
    pipe_z.load_adapter(adapters_z[request.param])
    return pipe_z


def door(cls, pipe, name):
    """The pipeline of one door over another's parts."""
    more = {"controlnet": z_image.controlnet()} if name == "controlnet" else {}
    made = cls(**pipe.components, **more)
    made.set_progress_bar_config(disable=True)
    return made


CALLS = {
    "plain": {"prompt": "red apple"},
    "negative": {"prompt": "red apple", "negative_prompt": "blue"},
    "list": {"prompt": PROMPTS, "num_images_per_prompt": 2},
    "unguided": {"prompt": "red apple", "guidance_scale": 0.0},
    "normalized": {"prompt": "red apple", "cfg_normalization": True},
    "truncated": {"prompt": "red apple", "cfg_truncation": 0.1},
    "short": {"prompt": "red apple " * 40, "max_sequence_length": 40},
    "size": {"prompt": "red apple", "width": 96},
}


@pytest.mark.parametrize("given", CALLS.values(), ids=CALLS)
def test_without_an_adapter_it_is_the_stock_pipeline_to_the_bit(pipe_z, stock_z, given, draw):
    def drawn(pipe):
        copies = {k: list(v) if isinstance(v, list) else v for k, v in given.items()}
        return draw(pipe, copies.pop("prompt"), **{**SIZE, **copies})

    assert torch.equal(drawn(pipe_z), drawn(stock_z))


def test_prompts_are_not_written_to(pipe_z, draw):
    prompts = list(PROMPTS)
    first = draw(pipe_z, prompts, **SIZE)
    assert prompts == PROMPTS and torch.equal(draw(pipe_z, prompts, **SIZE), first)


@pytest.mark.parametrize("name", STOCK)
def test_every_door_is_stock_without_an_adapter_and_is_moved_by_targets_with_one(
    name, pipe_z, stock_z, adapters_z, draw
):
    ours, stock = door(FAMILY.pipelines[name], pipe_z, name), door(STOCK[name], stock_z, name)
    given = {**GIVEN[name], "num_inference_steps": 4, **SIZE}
    assert torch.equal(draw(ours, **given), draw(stock, **given))
    pipe_z.load_adapter(adapters_z["embedding"])
    one, other = (draw(ours, targets=targets, **given) for targets in (ONE, OTHER))
    assert one.isfinite().all() and not torch.allclose(one, other, atol=1e-2)


def test_what_a_controlnet_shares_with_the_transformer_is_not_modulated_in_it(
    pipe_z, adapters_z, draw
):
    pipe_z.load_adapter(adapters_z["embedding"])
    controlled = door(FAMILY.pipelines["controlnet"], pipe_z, "controlnet")
    seen = []
    layer = controlled.transformer.t_embedder
    hook = layer.register_forward_hook(lambda _m, _i, out: seen.append(out))
    given = {**GIVEN["controlnet"], **SAMPLING, "guidance_scale": 0.0}
    draw(controlled, targets=ONE, **given)
    hook.remove()
    context = pipe_z.encode_context(["red apple"], [ONE]).states
    shift = pipe_z.adapter.encoder.time_shift(context)
    assert len(seen) == 4 and shift.abs().max() > 0.1
    for without, shifted in zip(seen[::2], seen[1::2], strict=True):
        assert torch.allclose(shifted - without, shift, atol=1e-4)


def test_the_class_is_found_from_the_folder_and_from_other_pipelines(folder, stock_z, model):
    assert type(RiCPipeline.from_pretrained(folder)) is FAMILY.pipelines["text-to-image"]
    ours = FAMILY.pipelines["text-to-image"].from_pipe(stock_z)
    assert ours.transformer is stock_z.transformer
    for auto, name in (
        (AutoPipelineForImage2Image, "image-to-image"),
        (AutoPipelineForInpainting, "inpainting"),
    ):
        assert type(auto.from_pipe(ours)) is FAMILY.pipelines[name]
        assert type(FAMILY.sibling(ours, name)) is FAMILY.pipelines[name]
    with pytest.raises(InputError, match=r"a model of Stable Diffusion 1\.x and 2\.x"):
        FAMILY.pipelines["text-to-image"].from_pretrained(model)


def test_the_omni_model_is_refused_by_name(tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "ZImageOmniPipeline"}))
    with pytest.raises(
        InputError, match=r"^[^\n]*: Z-Image Omni, [^\n]*ZImagePipeline draws with$"
    ):
        RiCPipeline.from_pretrained(tmp_path)


def test_reward_tokens_follow_each_captions_own(ready, stock_z):
    embedding = ready.adapter.conditioner.mode == "embedding"
    rows = ready.encode_context(PROMPTS, [{}, OTHER]).rows()
    stock, _ = stock_z.encode_prompt(list(PROMPTS), "cpu", False)
    assert len(stock[0]) + 10 < len(stock[1])
    tokens = 2 if embedding else 0
    assert len(rows[0]) == len(stock[0]) + tokens
    assert torch.allclose(rows[0][: len(stock[0])], stock[0], atol=1e-5)
    if embedding:
        assert len(rows[1]) == len(stock[1]) + 2
        assert not torch.allclose(rows[0][-2:], rows[1][-2:], atol=1e-2)
    else:
        assert len(rows[1]) > len(stock[1]) + 2


@pytest.mark.parametrize("length", [None, 64])
def test_words_are_kept_in_the_chat_template_however_long_the_prompt(pipe_z, adapters_z, length):
    pipe_z.load_adapter(adapters_z["text"])
    given = {} if length is None else {"max_sequence_length": length}
    asked = {"colorfulness": -0.5, "compressibility": 1.5}
    ((text,),) = pipe_z.texts(["red apple " * 500], [asked], length)
    assert re.search("(red|apple) <colorfulness> -0.5 <compressibility> 1.5$", text)
    low, high = (
        pipe_z.encode_context(["red apple " * 500], [{"compressibility": z}], **given)
        for z in (1.5, 1.6)
    )
    assert low.states.shape == high.states.shape and not torch.equal(low.states, high.states)
    # To the end of the template all of it is read, and there would have been no room for a word.
    read = pipe_z.tokenizer(CHAT.format(text)).input_ids
    assert (length or 512) - 5 < len(read) <= (length or 512)
    ((fitted,),) = pipe_z.texts(["red apple " * 500], [{"compressibility": 1.5}], length)
    assert low.states.shape[1] == len(pipe_z.tokenizer(CHAT.format(fitted)).input_ids)


def test_the_command_lines_tokenizer_has_the_same_room(folder, pipe_z, adapters_z):
    pipe_z.load_adapter(adapters_z["text"])
    tokenizer = FAMILY.tokenizer(str(folder), pipe_z.adapter)
    text, cut = pipe_z.adapter.text("red apple " * 500, ONE, tokenizer)
    ((wanted,),) = pipe_z.texts(["red apple " * 500], [ONE])
    assert cut and text == wanted and tokenizer.model_max_length == 512


def test_targets_change_the_picture_and_the_call_says_which(ready, draw):
    output = ready(PROMPTS, targets=[ONE, OTHER], num_images_per_prompt=2)
    assert output.targets == [ONE, ONE, OTHER, OTHER] and len(output.images) == 4
    assert output.images[0].size == (64, 64)
    assert not torch.allclose(draw(ready, targets=ONE), draw(ready, targets=OTHER), atol=1e-3)
    steered = draw(ready, targets=ONE, negative_targets=OTHER)
    assert not torch.allclose(steered, draw(ready, targets=ONE), atol=1e-4)
    assert not torch.allclose(draw(ready, targets=ONE, contrast=1.0), draw(ready, targets=ONE))


def test_a_prompt_is_drawn_alike_alone_and_beside_longer_ones(ready, draw):
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    given = {"num_inference_steps": 2, "output_type": "latent"}
    both = ready(PROMPTS, targets=[ONE, {}], generator=generators, **given).images
    assert torch.allclose(both[:1], draw(ready, targets=ONE), atol=1e-4)


def test_guidance_counts_from_nothing(pipe_z, adapters_z, draw):
    """The stock call's scale s is that of e(p) + s·(e(p) - e(q))."""
    pipe_z.load_adapter(adapters_z["embedding"])
    with pytest.raises(InputError) as error:
        draw(pipe_z, targets=ONE, negative_targets=OTHER, guidance_scale=0.0)
    assert str(error.value) == "negative_targets: give guidance_scale above 0, not 0.0"
    low = draw(pipe_z, targets=ONE, negative_targets=OTHER, guidance_scale=0.5)
    assert not torch.allclose(low, draw(pipe_z, targets=ONE, guidance_scale=0.5), atol=1e-4)
    plain = draw(pipe_z, targets=ONE, guidance_scale=0.0)
    assert torch.equal(draw(pipe_z, targets=ONE, guidance_scale=0.0, prompt_guidance=0.0), plain)


@pytest.mark.parametrize("mode", ["embedding", "text"])
def test_rewards_speak_from_a_share_of_the_steps_on(pipe_z, adapters_z, mode):
    pipe_z.load_adapter(adapters_z[mode])

    def read(**given):
        with recorded(pipe_z.transformer) as passes:
            generator = torch.Generator().manual_seed(0)
            pipe_z(PROMPTS, guidance_scale=2.0, num_inference_steps=4, generator=generator,
                   num_images_per_prompt=2, output_type="latent", **given)  # fmt: skip
        return passes

    asked = {"targets": ONE, "contrast": 1.0}
    auto, spoken, found = read(), read(**asked), read(**asked, reward_start=0.7)
    assert [len(each) for each in found] == [8] * 4
    assert same(found[:3], auto[:3]) and same(found[3:], spoken[3:])
    assert not same(auto[3:], spoken[3:])


def test_prompt_guidance_needs_prompts_of_one_length(pipe_z, adapters_z, draw):
    pipe_z.load_adapter(adapters_z["embedding"])
    one = {"targets": ONE, "negative_targets": ONE, "guidance_scale": 1.0}
    same = draw(pipe_z, "red apple", negative_prompt="apple red", **one)
    softer = draw(pipe_z, "red apple", negative_prompt="apple red", prompt_guidance=0.0, **one)
    # With the same targets and all of the prompt on both sides guidance pulls nowhere.
    assert torch.allclose(softer, draw(pipe_z, targets=ONE, guidance_scale=0.0), atol=1e-5)
    assert not torch.allclose(softer, same, atol=1e-3)
    with pytest.raises(InputError, match=r"^prompt_guidance: contexts [^\n]*differ; leave it out$"):
        draw(pipe_z, "red apple", prompt_guidance=1.0, **one | {"guidance_scale": 2.0})
    with pytest.raises(InputError, match=r"give a number from 0 to guidance_scale, 2\.0"):
        draw(pipe_z, "red apple", prompt_guidance=-1.0, **one | {"guidance_scale": 2.0})


def test_prompt_embeds_are_taken(pipe_z, adapters_z, stock_z, draw):
    states, negative = stock_z.encode_prompt(list(PROMPTS), "cpu")
    given = {"prompt_embeds": states, "negative_prompt_embeds": negative, **SIZE}
    assert torch.equal(draw(pipe_z, None, **given), draw(stock_z, None, **given))
    pipe_z.load_adapter(adapters_z["embedding"])
    found = draw(pipe_z, None, targets=ONE, **given)
    assert torch.allclose(found, draw(pipe_z, list(PROMPTS), targets=ONE), atol=1e-4)


def test_what_is_predicted_is_what_the_stock_pipeline_steps_with(pipe_z, monkeypatch):
    """Noise - picture, at the time that the schedule is at."""
    steps, step = [], pipe_z.scheduler.step

    def look(predicted, t, latents, **options):
        steps.append((predicted, t, latents))
        return step(predicted, t, latents, **options)

    monkeypatch.setattr(pipe_z.scheduler, "step", look)
    pipe_z("red apple", guidance_scale=0.0, num_inference_steps=3, output_type="latent", **SIZE)
    context = FAMILY.encode(pipe_z, [["red apple"]])
    assert len(steps) == 3
    for predicted, t, latents in steps:
        with torch.no_grad():
            found = FAMILY.predict(pipe_z, latents, t[None] / 1000, context)
        assert torch.allclose(found, predicted, atol=1e-5)


def test_every_picture_is_counted_in_what_a_call_costs(pipe_z):
    """The transformer gives a list of predictions, one for each picture and branch."""
    with Meter().running(pipe_z.transformer) as meter:
        pipe_z(list(PROMPTS), num_inference_steps=2, output_type="latent", **SIZE)
    assert meter.read().forwards == 2 * 2 * 2


def test_taken_out_again_bit_for_bit(pipe_z, adapters_z, stock_z, draw, watch):
    unchanged = watch(pipe_z.transformer)
    pipe_z.load_adapter(adapters_z["embedding"])
    assert not unchanged()
    pipe_z.unload_adapter()
    assert unchanged() and torch.equal(draw(pipe_z, **SIZE), draw(stock_z, **SIZE))


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
    weights = FAMILY.read_adapter(tmp_path / "adapter")[1]
    assert all(weights.delta(module).abs().max() > 0 for module in weights.modules)
    (wanted,) = backend.sample(["red apple"], [ONE], [0])
    pipe = loaded(RiCPipeline, folder)
    pipe.load_adapter(tmp_path / "adapter")
    (found,) = FAMILY.sampler(pipe).sample(["red apple"], [ONE], [0])
    assert np.abs(np.asarray(wanted, int) - np.asarray(found, int)).max() <= 1
    again = make(mode)
    again.load(tmp_path / "adapter")
    for name, parameter in backend.named_parameters().items():
        assert torch.equal(parameter, again.named_parameters()[name]), name


def test_training_sees_the_context_that_inference_sees_and_keeps_only_text(make):
    backend = make("embedding")
    with torch.no_grad():
        found = backend.context(PROMPTS, [ONE, {}])
        wanted = backend.pipe.encode_context(PROMPTS, [ONE, {}])
    for row, other in zip(found.rows(), wanted.rows(), strict=True):
        assert torch.allclose(row, other, atol=1e-5)
    kept = backend.contexts.rows.values()
    assert [len(row.states[0]) + 2 for row in kept] == [len(row) for row in wanted.rows()]


def test_every_kind_of_layer_is_found(make):
    """Four blocks have attention and a feed-forward, all but one and the last layer modulate."""
    counts = {"attention": 4 * 4, "feed_forward": 4 * 3, "modulation": 4}
    for kind, count in counts.items():
        backend = make("text", lora=LoraConfig(rank=1, targets=(kind,)))
        assert len(backend.named_parameters()) == 2 * count


def test_the_stock_pipeline_loads_the_lora(adapters_z, folder, pipe_z, draw):
    """With the words of text mode in its prompt it then draws what ours draws."""
    stock = loaded(ZImagePipeline, folder)
    stock.load_lora_weights(adapters_z["text"])
    pipe_z.load_adapter(adapters_z["text"])
    ours = draw(pipe_z, "red apple", targets=ONE, negative_prompt="blue", **SAMPLING)
    words = "red apple <colorfulness> 1.5"
    theirs = draw(stock, words, negative_prompt="blue", **SAMPLING)
    assert torch.allclose(ours, theirs, atol=2e-3)
    stock.unload_lora_weights()
    assert not torch.allclose(ours, draw(stock, words, **SAMPLING), atol=0.01)


def test_judged_by_its_own_prompts(pipe_z, adapters_z):
    pipe_z.load_adapter(adapters_z["embedding"])
    sampler = FAMILY.sampler(pipe_z)
    samples = sampler.sample(PROMPTS, [ONE, {}], [0, 1])
    assert sampler.features(samples).shape[0] == 2
    found = sampler.prompt_r_precision(PROMPTS, samples)
    assert found.shape == (2,) and ((found >= 0) & (found <= 1)).all()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"resolution": 72}, "c.yaml: diffusion.resolution is 72; give Z-Image a multiple of 16"),
        (
            {"lora": LoraConfig(targets=("convolution",))},
            "c.yaml: diffusion.lora.targets: Z-Image has no convolution layers; it has attention, "
            "feed_forward, modulation",
        ),
    ],
)
def test_settings_that_the_transformer_cannot_take_are_one_line(given, said):
    with pytest.raises(InputError) as error:
        FAMILY.check_settings(DiffusionConfig(**given), "c.yaml: ")
    assert str(error.value) == said


def test_of_true_widths_it_takes_a_step(space, pictures, tmp_path):
    pixels, records = pictures
    pipe = FAMILY.pipelines["text-to-image"](**z_image.parts(wide=True, n_refiner_layers=0))
    settings = DiffusionConfig(lora=LORA, resolution=64, mirror=False, sampling=SAMPLING)
    backend = DiffusionBackend.create(pipe, "z-image", space, settings)
    backend.prepare(records[:1], pixels, tmp_path / "cache")
    loss = backend.loss(Batch(indices=(0,), generator=torch.Generator().manual_seed(0)))
    loss.backward()
    assert loss.isfinite()
    assert backend.adapter.encoder.width == 2560 and backend.adapter.encoder.time_width == 256
    assert all(p.grad.isfinite().all() for p in backend.named_parameters().values())


def test_what_is_expected_of_a_prompt_does_not_depend_on_its_neighbours(ready):
    found = ready.prompt_features(PROMPTS)
    assert found.shape == (2, 2 * ready.vae.config.latent_channels) and np.isfinite(found).all()
    assert (ready.prompt_features(PROMPTS[:1]) == found[:1]).all()
    assert abs(found[0] - found[1]).max() > 1e-5
