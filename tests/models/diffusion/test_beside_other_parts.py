"""An adapter beside what diffusers and its users bring: schedulers, precisions, offload, image
prompts, textual inversion, LoRA, FreeU, PAG, safety checkers, compilation."""

import inspect
import logging

import accelerate
import diffusers
import numpy as np
import peft
import pytest
import torch
from diffusers import StableDiffusionPAGPipeline, StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from peft.utils import get_peft_model_state_dict
from PIL import Image
from safetensors.torch import save_file
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from ric_diffusion import RiCPipeline, RiCStableDiffusionPipeline, api
from ric_diffusion.models.diffusion.backend import DiffusionBackend, DiffusionConfig
from ric_diffusion.models.diffusion.families.sd import FAMILY
from ric_diffusion.models.diffusion.families.sdxl import FAMILY as SDXL
from ric_diffusion.models.diffusion.pipeline import RiCMixin
from ric_diffusion.models.diffusion.sampler import DiffusionSampler
from support import sdxl

MODES = ("embedding", "text")
ONE, OTHER = {"colorfulness": 1.5}, {"colorfulness": -1.5, "compressibility": 2.0}
SCALE = 3.0  # of guidance, in the adapters' own sampling


@pytest.fixture(params=MODES)
def mode(request):
    return request.param


@pytest.fixture
def ready(pipe, adapters, mode):
    """A fresh pipeline with an adapter."""
    pipe.load_adapter(adapters[mode])
    return pipe


@pytest.fixture(scope="module")
def plain(model, adapters):
    """The same with nothing beside it, by mode, for all tests."""
    made = {mode: RiCStableDiffusionPipeline.from_pretrained(model) for mode in MODES}
    for mode, pipe in made.items():
        pipe.set_progress_bar_config(disable=True)
        pipe.load_adapter(adapters[mode])
    return made


@torch.no_grad()
def by_hand(pipe, *, steps=2, targets=ONE, prompt="red apple"):
    """Latents (1, 4, 8, 8) of guided denoising as a textbook has it, from seed 0; ``targets`` may
    be a list with those of each pass."""
    generator, scheduler = torch.Generator().manual_seed(0), pipe.scheduler
    scheduler.set_timesteps(steps)
    extra = {"generator": generator}
    extra = {k: v for k, v in extra.items() if k in inspect.signature(scheduler.step).parameters}
    dtype = pipe.unet.dtype
    x = torch.randn(1, 4, 8, 8, generator=generator, dtype=dtype) * scheduler.init_noise_sigma
    for number, t in enumerate(scheduler.timesteps):
        z = targets[number] if isinstance(targets, list) else targets
        context = pipe.encode_context(["", prompt], [{}, z]).states.to(dtype)
        both = scheduler.scale_model_input(torch.cat([x, x]), t)
        with pipe.with_adapter():
            other, wanted = pipe.unet(both, t, encoder_hidden_states=context).sample.chunk(2)
        x = scheduler.step(other + SCALE * (wanted - other), t, x, **extra).prev_sample
    return x


def far(a, b):
    return not torch.allclose(a.float(), b.float(), atol=1e-2)


def near(a, b):
    return torch.allclose(a, b, atol=1e-5)


SCHEDULERS = [
    "DDIMScheduler",
    "PNDMScheduler",
    "LMSDiscreteScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "UniPCMultistepScheduler",
    "DEISMultistepScheduler",
    "KDPM2DiscreteScheduler",
    "LCMScheduler",
]


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler(plain, monkeypatch, draw, name):
    pipe = plain["embedding"]
    scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config)
    monkeypatch.setattr(pipe, "scheduler", scheduler)
    one = draw(pipe, targets=ONE, num_inference_steps=4)
    assert near(one, by_hand(pipe, steps=4))
    assert far(one, draw(pipe, targets=OTHER, num_inference_steps=4))


def test_half_precision(model, adapters, plain, mode, draw):
    pipe = RiCStableDiffusionPipeline.from_pretrained(model, dtype=torch.bfloat16)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_adapter(adapters[mode])
    one = draw(pipe, targets=ONE)
    assert one.dtype is torch.bfloat16 and torch.equal(one, by_hand(pipe))
    whole, other = (draw(plain[mode], targets=targets) for targets in (ONE, OTHER))
    assert (one - whole).square().mean() < 0.05 * (whole - other).square().mean()


@pytest.mark.parametrize("kind", ["model", "leaf_level", "block_level"])
def test_offload_before_the_adapter_and_after(pipe, adapters, plain, stock, mode, draw, kind):
    """To where the weights are already: what moves them is in place all the same."""

    def offload():
        if kind == "model":
            pipe.enable_model_cpu_offload(device="cpu")
        else:
            cpu = torch.device("cpu")
            pipe.enable_group_offload(cpu, cpu, offload_type=kind, num_blocks_per_group=1)

    wanted = draw(plain[mode], targets=ONE)
    pipe.load_adapter(adapters[mode])
    offload()
    assert torch.equal(draw(pipe, targets=ONE), wanted)
    pipe.unload_adapter()
    assert torch.equal(draw(pipe), draw(stock))
    pipe.load_adapter(adapters[mode])
    assert torch.equal(draw(pipe, targets=ONE), wanted)


def test_sequential_offload_after_the_adapter(ready, plain, mode, draw):
    """The hooks of enable_sequential_cpu_offload, which itself wants an accelerator."""
    accelerate.cpu_offload(ready.unet, torch.device("cpu"))
    assert next(ready.unet.parameters()).is_meta
    assert torch.equal(draw(ready, targets=ONE), draw(plain[mode], targets=ONE))


def test_slicing_and_tiling(ready, plain, mode, draw):
    ready.enable_attention_slicing(1)
    latents = draw(ready, targets=ONE)
    assert near(latents, draw(plain[mode], targets=ONE))
    ready.vae.enable_slicing()
    ready.vae.enable_tiling()
    ready.vae.tile_sample_min_size, ready.vae.tile_latent_min_size = 32, 4
    with torch.no_grad():
        pixels = ready.vae.decode(latents / ready.vae.config.scaling_factor).sample
    whole = draw(plain[mode], targets=ONE, output_type="pt")
    tiled = draw(ready, targets=ONE, output_type="pt")
    assert near(tiled, (pixels / 2 + 0.5).clamp(0, 1)) and not near(tiled, whole)


def test_a_callback_that_moves_the_sliders_half_way(plain, mode, draw):
    ready = plain[mode]
    later = ready.encode_context(["", "red apple"], [{}, OTHER]).states

    def move(pipe, step, timestep, tensors):
        assert tensors["prompt_embeds"].shape == later.shape
        return {"prompt_embeds": later}

    moved = draw(
        ready,
        targets=ONE,
        callback_on_step_end=move,
        callback_on_step_end_tensor_inputs=["prompt_embeds"],
    )
    assert near(moved, by_hand(ready, targets=[ONE, OTHER])) and far(moved, by_hand(ready))


def image_prompt(unet):
    """Weights of an IP-Adapter for a U-Net (Ye et al. 2023, arXiv 2308.06721), and the encoder and
    processor of its pictures; random."""
    generator = torch.Generator().manual_seed(0)
    weights, number = {}, 1
    for name in unet.attn_processors:
        if "attn2" in name:  # every other attention, which the file numbers among all of them
            shape = unet.get_submodule(name.removesuffix(".processor")).to_k.weight.shape
            for way in ("to_k_ip", "to_v_ip"):
                weights[f"{number}.{way}.weight"] = torch.randn(shape, generator=generator)
            number += 2
    projection = {
        "proj.weight": torch.randn(4 * 32, 24, generator=generator),
        "proj.bias": torch.zeros(4 * 32),
        "norm.weight": torch.ones(32),
        "norm.bias": torch.zeros(32),
    }
    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=32,
        patch_size=16,
        projection_dim=24,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = CLIPVisionModelWithProjection(config).eval()
    processor = CLIPImageProcessor(size=32, crop_size=32)
    return {"image_proj": projection, "ip_adapter": weights}, encoder, processor


@pytest.fixture(scope="module")
def with_image_prompt(stock):
    """An IP-Adapter into a pipeline."""
    weights, encoder, processor = image_prompt(stock.unet)

    def load(pipe):
        pipe.image_encoder, pipe.feature_extractor = encoder, processor
        pipe.load_ip_adapter(weights, subfolder="", weight_name="", image_encoder_folder=None)

    return load


def test_an_image_prompt_loaded_before_and_after(
    model, adapters, plain, mode, with_image_prompt, draw
):
    picture = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    )
    before, after, alone = (RiCStableDiffusionPipeline.from_pretrained(model) for _ in range(3))
    with_image_prompt(before)
    for pipe in (before, after):
        pipe.load_adapter(adapters[mode])
    for pipe in (after, alone):
        with_image_prompt(pipe)
    for pipe in (before, after, alone):
        pipe.set_progress_bar_config(disable=True)
    given = {"ip_adapter_image": picture}
    both = draw(before, targets=ONE, **given)
    assert torch.equal(draw(after, targets=ONE, **given), both)
    wanted = draw(plain[mode], targets=ONE)
    assert far(both, wanted) and far(both, draw(before, targets=OTHER, **given))
    before.set_ip_adapter_scale(0.0)
    assert near(draw(before, targets=ONE, **given), wanted)
    before.unload_ip_adapter()
    assert torch.equal(draw(before, targets=ONE), wanted)
    after.unload_adapter()
    assert torch.equal(draw(after, **given), draw(alone, **given))
    alone.load_adapter(adapters[mode])
    four = draw(alone, targets=[ONE, {}, OTHER, {}], num_images_per_prompt=4, **given)
    assert torch.allclose(four[0], draw(alone, targets=ONE, num_images_per_prompt=4, **given)[0],
                          atol=1e-4)  # fmt: skip


Z, MORE = ({"colorfulness": 1.5, "compressibility": z} for z in (-2.0, -2.1))
WORDS = " <colorfulness> 1.5 <compressibility> -2.0"  # 16 of 30 tokens
STYLE = " ".join(["<style>", *(f"<style>_{i}" for i in range(1, 8))])
FITTED = {
    "<style>": STYLE,
    "red <style> apple": f"red {STYLE} apple",
    "<style> " * 5: STYLE,
    "<style>" * 5: STYLE,
    "red " * 40: "red " * 14,
    "red " * 6 + "<style> apple": "red " * 6 + STYLE,
    "red " * 7 + "<style> apple": "red " * 7,  # and not a part of it
}


@pytest.fixture(scope="module")
def inverted(model, adapters, tmp_path_factory):
    """A pipeline in text mode with a textual inversion of eight vectors."""
    path = tmp_path_factory.mktemp("inversion") / "style.safetensors"
    generator = torch.Generator().manual_seed(0)
    save_file({"emb_params": torch.randn(8, 32, generator=generator)}, path)
    pipe = RiCStableDiffusionPipeline.from_pretrained(model)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_adapter(adapters["text"])
    pipe.load_textual_inversion(path, token="<style>")
    return pipe


def states_of(pipe, text):
    """What the text encoder says of a text whose inversions are written out."""
    tokens = pipe.tokenizer(text, padding="max_length", return_tensors="pt").input_ids
    assert tokens.shape == (1, 32)  # nothing is cut here
    return pipe.text_encoder(tokens).last_hidden_state.detach()


@pytest.mark.parametrize("prompt", FITTED)
def test_words_have_room_beside_a_textual_inversion(inverted, prompt):
    wanted = states_of(inverted, FITTED[prompt].rstrip() + WORDS)
    assert near(inverted.encode_context([prompt], [Z]).states, wanted)


def test_close_values_are_told_apart_beside_a_textual_inversion(inverted, draw):
    prompt = "red " * 7 + "<style> apple"
    one, other = (draw(inverted, prompt, targets=z) for z in (Z, MORE))
    assert not torch.allclose(one, other, atol=1e-3)
    assert near(one, by_hand(inverted, targets=Z, prompt=prompt))


def test_training_reads_the_same_beside_a_textual_inversion(inverted):
    backend = DiffusionBackend(inverted)
    wanted = states_of(inverted, FITTED["<style> " * 5] + WORDS)
    assert near(backend.context(["<style> " * 5], [Z]).states, wanted)


def test_tokens_follow_a_textual_inversion(inverted, adapters, draw):
    """In embedding mode, where a prompt has all the room there is."""
    inverted.load_adapter(adapters["embedding"])
    prompt = "red " * 7 + "<style> apple"
    try:
        found = inverted.encode_context([prompt], [ONE]).states
        assert near(found[:, :32], states_of(inverted, "red " * 7 + STYLE + " apple"))
        assert near(draw(inverted, prompt, targets=ONE), by_hand(inverted, prompt=prompt))
    finally:
        inverted.load_adapter(adapters["text"])


def test_a_prompt_that_is_cut_is_not_called_too_long(inverted, caplog):
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)  # it does not propagate
    inverted.tokenizer.deprecation_warnings.clear()  # said once for each tokenizer
    try:
        inverted.encode_context(["red " * 40], [Z])
    finally:
        logger.removeHandler(caplog.handler)
    assert not caplog.messages


def test_another_lora_by_half(ready, model, adapters, mode, tmp_path, draw):
    """Its scale does to it what half the weights would."""
    made = RiCStableDiffusionPipeline.from_pretrained(model)
    made.unet.add_adapter(peft.LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "conv1"]))
    generator = torch.Generator().manual_seed(9)
    state = get_peft_model_state_dict(made.unet)
    state = {k: 0.3 * torch.randn(v.shape, generator=generator) for k, v in state.items()}
    halved = {k: v / 2 if "lora_B" in k else v for k, v in state.items()}
    for name, tensors in (("style", state), ("faint", halved)):
        made.save_lora_weights(tmp_path / name, unet_lora_layers=tensors)
        ready.load_lora_weights(tmp_path / name, adapter_name=name)
    ready.set_adapters(["style"], [0.5])
    scaled = draw(ready, targets=ONE)
    assert near(scaled, by_hand(ready)) and far(scaled, draw(ready, targets=OTHER))
    ready.set_adapters(["faint"], [1.0])
    assert near(scaled, draw(ready, targets=ONE))
    ready.set_adapters(["style"], [1.0])
    assert far(scaled, draw(ready, targets=ONE))


def test_freeu(ready, plain, mode, draw):
    wanted = draw(plain[mode], targets=ONE)
    ready.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
    freed = draw(ready, targets=ONE)
    assert near(freed, by_hand(ready)) and far(freed, wanted)
    assert far(freed, draw(ready, targets=OTHER))
    ready.disable_freeu()
    assert torch.equal(draw(ready, targets=ONE), wanted)


class Perturbed(RiCMixin, StableDiffusionPAGPipeline):
    """Guidance by perturbed attention (Ahn et al. 2024, arXiv 2403.17377), a class of a user's."""

    family_name = "stable-diffusion"


def test_perturbed_attention_guidance(ready, plain, mode, draw):
    pipe = Perturbed.from_pipe(ready, pag_applied_layers=["mid"])
    pipe.set_progress_bar_config(disable=True)
    wanted = draw(plain[mode], targets=ONE)
    assert near(draw(pipe, targets=ONE, pag_scale=0.0), wanted)
    perturbed = draw(pipe, targets=ONE, pag_scale=3.0)
    assert far(perturbed, wanted) and far(perturbed, draw(pipe, targets=OTHER, pag_scale=3.0))
    output = pipe("car", targets=[ONE, OTHER], num_images_per_prompt=2, num_inference_steps=1)
    assert output.targets == [ONE, OTHER]


def test_a_compiled_denoiser(pipe, adapters, plain, draw):
    """Traced whole, with what reward tokens do to the time embedding."""
    pipe.load_adapter(adapters["embedding"])
    pipe.unet.compile(backend="eager")
    for targets in (ONE, OTHER):
        assert near(draw(pipe, targets=targets), draw(plain["embedding"], targets=targets))


# Pictures that a safety checker flags.


class Checker(torch.nn.Module):
    """Flags the pictures that ``flagged`` says, one after the other, and draws half of them over:
    blank they are not."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, flagged):
        super().__init__()
        self.flagged = iter(flagged)

    def forward(self, clip_input, images):
        assert clip_input.shape == (len(images), 3, 32, 32)
        flags = [next(self.flagged) for _ in images]
        for image, flag in zip(images, flags, strict=True):
            if flag:
                image[:, 32:] = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
        return images, flags


@pytest.fixture
def checked(plain, monkeypatch):
    """A pipeline whose safety checker flags these pictures."""
    pipe = plain["embedding"]

    def flag(flagged):
        processor = CLIPImageProcessor(size=32, crop_size=32)
        monkeypatch.setattr(pipe, "feature_extractor", processor)
        monkeypatch.setattr(pipe, "safety_checker", Checker(flagged))
        return pipe

    return flag


@pytest.fixture(scope="module")
def guarded(make_parts, tmp_path_factory):
    """The folder of a model that has a safety checker, as Stable Diffusion 1.x do."""
    layers = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    layers |= {"num_attention_heads": 1}
    clip = CLIPConfig(
        text_config=layers,
        vision_config=layers | {"image_size": 32, "patch_size": 16},
        projection_dim=8,
    )
    folder = tmp_path_factory.mktemp("guarded")
    parts = make_parts() | {
        "safety_checker": StableDiffusionSafetyChecker(clip),
        "feature_extractor": CLIPImageProcessor(size=32, crop_size=32),
        "requires_safety_checker": True,
    }
    StableDiffusionPipeline(**parts).save_pretrained(folder)
    return folder


def test_training_loads_no_safety_checker_unless_samples_are_used(guarded, space, caplog):
    with caplog.at_level(logging.WARNING):
        backend = FAMILY.create_backend(str(guarded), space, DiffusionConfig())
    assert backend.pipe.safety_checker is None
    assert not [m for m in caplog.messages if "safety" in m]  # diffusers warns where it is dropped
    online = FAMILY.create_backend(str(guarded), space, DiffusionConfig(), sampled=True)
    assert isinstance(online.pipe.safety_checker, StableDiffusionSafetyChecker)
    online.pipe.safety_checker.forward = lambda clip_input, images: (images, [True] * len(images))
    [picture] = online.sample(["red apple"], [{}], [0])
    assert online.medium.reject_reason(picture) == "blank"


def test_a_model_that_is_written_again_keeps_its_safety_checker(guarded, space, tmp_path):
    settings = DiffusionConfig(train="full", mode="text")
    FAMILY.create_backend(str(guarded), space, settings).save(tmp_path / "model")
    written = StableDiffusionPipeline.from_pretrained(tmp_path / "model")
    assert written.safety_checker is not None and written.config.requires_safety_checker


def test_a_call_tells_what_was_flagged(checked):
    pipe = checked([False, True])
    output = pipe("car", targets=[ONE, OTHER], num_images_per_prompt=2, num_inference_steps=1)
    assert output.nsfw_content_detected == [False, True] and output.targets == [ONE, OTHER]
    assert output.images[1].getpixel((0, 63)) == (255, 0, 0)


def test_a_flagged_picture_is_rejected(checked):
    sampler = DiffusionSampler(checked([False, True, False]))
    pictures = sampler.sample(["red apple"] * 3, [ONE, OTHER, {}], [0, 1, 2])
    reasons = [sampler.medium.reject_reason(picture) for picture in pictures]
    assert reasons == [None, "blank", None]
    assert pictures[1].size == (64, 64) and pictures[1].getextrema() == ((0, 0),) * 3


def test_generate_scores_no_flagged_picture(checked, caplog):
    with caplog.at_level(logging.WARNING, "ric_diffusion"):
        found = api.generate(
            checked([True, False, False, True]),
            "red apple",
            targets=ONE,
            seed=3,
            count=4,
            sampling={"steps": 1},
        )
    for sample, flagged in zip(found, (True, False, False, True), strict=True):
        values = [*sample.scores.values(), *sample.obtained.values()]
        assert len(values) == 4 and all((value is None) is flagged for value in values)
        assert sample.metadata["scores"] == sample.scores
    lines = [message for message in caplog.messages if "so without scores" in message]
    assert lines == ["seeds 3, 6: 2 of 4 pictures blank, so without scores"]


def test_a_sweep_scores_no_flagged_picture(checked, caplog, tmp_path):
    with caplog.at_level(logging.WARNING, "ric_diffusion"):
        swept = api.sweep(
            checked([False, True, False]),
            "red apple",
            points=3,
            seed=7,
            sampling={"steps": 1},
            out=tmp_path,
        )
    for point, flagged in zip(swept.points, (False, True, False), strict=True):
        values = [*point.scores.values(), *point.obtained.values()]
        assert len(values) == 4 and all((value is None) is flagged for value in values)
    lines = [message for message in caplog.messages if "so without scores" in message]
    assert lines == ["seed 7: 1 of 3 pictures blank, so without scores"]


# Stable Diffusion XL, where it differs.


@pytest.fixture(scope="module")
def folder_xl(tmp_path_factory):
    return sdxl.write(tmp_path_factory.mktemp("sdxl") / "model")


def test_a_textual_inversion_for_two_text_encoders(folder_xl, tmp_path, space, draw):
    settings = SDXL.settings(mode="text", sampling={"guidance_scale": SCALE})
    pipe = SDXL.create_backend(str(folder_xl), space, settings).pipe
    generator = torch.Generator().manual_seed(0)
    for part, width, count in (("", 32, 8), ("_2", 48, 3)):
        path = tmp_path / f"style{part}.safetensors"
        save_file({"emb_params": torch.randn(count, width, generator=generator)}, path)
        encoder, tokenizer = getattr(pipe, f"text_encoder{part}"), getattr(pipe, f"tokenizer{part}")
        pipe.load_textual_inversion(path, "<style>", text_encoder=encoder, tokenizer=tokenizer)
    prompt = "red " * 7 + "<style> apple"  # too long for the first tokenizer, not for the second
    texts = pipe.texts([prompt], [Z])
    assert texts == [("red " * 6 + "red" + WORDS, prompt + WORDS)]
    close = (draw(pipe, prompt, targets=z) for z in (Z, MORE))
    assert not torch.equal(*close)


def test_stable_diffusion_xl_in_half_precision(folder_xl, tmp_path, space, stir, draw):
    backend = stir(SDXL.create_backend(str(folder_xl), space, SDXL.settings()))
    backend.save(tmp_path / "adapter")
    given = {"num_images_per_prompt": 2, "guidance_scale": SCALE}
    whole = draw(backend.pipe, targets=[ONE, OTHER], **given)
    pipe = RiCPipeline.from_pretrained(folder_xl, dtype=torch.bfloat16)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_adapter(tmp_path / "adapter")
    pipe.enable_model_cpu_offload(device="cpu")
    found = draw(pipe, targets=[ONE, OTHER], **given)
    assert found.dtype is torch.bfloat16
    error, apart = (found - whole).square().mean(), (whole[0] - whole[1]).square().mean()
    assert error < 0.05 * apart
