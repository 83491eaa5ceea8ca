"""Text to image, image to image, inpainting and ControlNet of every family: stock without an
adapter, steered with one, and from one door to the next over the same parts."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import (
    AutoPipelineForImage2Image,
    AutoPipelineForInpainting,
    AutoPipelineForText2Image,
    ControlNetModel,
    FluxControlNetModel,
    SD3ControlNetModel,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from PIL import Image

import ric_diffusion
from ric_diffusion import RiCPipeline
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.diffusion.backend import LoraConfig
from ric_diffusion.models.diffusion.family import (
    CONTROLNET,
    IMAGE_TO_IMAGE,
    INPAINTING,
    TEXT_TO_IMAGE,
)
from ric_diffusion.models.diffusion.pipeline import stock_class
from ric_diffusion.models.family import family_named, family_of
from ric_diffusion.rewards import Curve
from support import flux, sd3, sdxl
from support import model as small
from support.passes import recorded, same
from support.prompts import knowing

NAMES = ["stable-diffusion", "stable-diffusion-xl", "stable-diffusion-3", "flux"]
DOORS = [IMAGE_TO_IMAGE, INPAINTING, CONTROLNET]
LOW, HIGH = {"colorfulness": -2.0}, {"colorfulness": 2.0}
SHAPES = (16, 16, 16, 16)  # three strides of two: pixels to latents
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
MASK = Image.fromarray(np.pad(np.full((32, 32), 255, np.uint8), 16))


@pytest.fixture(scope="module")
def folders(model, tmp_path_factory):
    root = tmp_path_factory.mktemp("doors")
    return {
        "stable-diffusion": model,
        "stable-diffusion-xl": sdxl.write(root / "sdxl"),
        "stable-diffusion-3": sd3.write(root / "sd3"),
        "flux": flux.write(root / "flux"),
    }


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def adapter(name, folders, space, stir, tmp_path_factory):
    family = family_named(name)
    settings = family.settings(
        lora=LoraConfig(rank=4, alpha=8, targets=("attention", "feed_forward")),
        sampling={"num_inference_steps": 2, "guidance_scale": 3.0},
    )
    folder = tmp_path_factory.mktemp("adapter") / name
    stir(family.create_backend(str(folders[name]), space, settings)).save(folder)
    return folder


@pytest.fixture
def pipe_of(name, folders):
    made = RiCPipeline.from_pretrained(folders[name])
    made.set_progress_bar_config(disable=True)
    return made


def control(pipe):
    """A ControlNet that does something, as a fresh one does not."""
    torch.manual_seed(1)
    if pipe.family.denoiser == "unet":
        net = ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=SHAPES)
    elif pipe.family.name == "flux":
        config = {**pipe.transformer.config, "num_layers": 1, "num_single_layers": 0}
        net = FluxControlNetModel.from_config(config)
    else:
        net = SD3ControlNetModel.from_transformer(
            pipe.transformer, num_layers=1, num_extra_conditioning_channels=0
        )
    for name, parameter in net.named_parameters():
        if "controlnet" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return net.eval()


def through(cls, pipe, door):
    if door == TEXT_TO_IMAGE:
        return pipe
    more = {"controlnet": control(pipe)} if door == CONTROLNET else {}
    found = cls.from_pipe(pipe, **more)
    found.set_progress_bar_config(disable=True)
    return found


def draw(pipe, door, **given):
    own = "control_image" if "control_image" in call(pipe) else "image"
    more = {own: PICTURE} if door != TEXT_TO_IMAGE else {}
    if door == INPAINTING:
        more["mask_image"] = MASK
    if door in (IMAGE_TO_IMAGE, INPAINTING):
        more["strength"] = 1.0
    given = {"num_inference_steps": 2, "guidance_scale": 3.0, "output_type": "latent", **given}
    if "height" in call(pipe):
        given |= {"height": 64, "width": 64}
    generator = torch.Generator().manual_seed(0)
    return pipe("red apple", generator=generator, **more, **given).images


def call(pipe):
    cls = stock_class(type(pipe)) if hasattr(pipe, "family") else type(pipe)
    return inspect.signature(cls.__call__).parameters


@pytest.mark.parametrize("door", DOORS)
def test_stock_to_the_bit_without_an_adapter_and_steered_with_one(pipe_of, adapter, door):
    cls = pipe_of.family.pipelines[door]
    ours, theirs = through(cls, pipe_of, door), through(stock_class(cls), pipe_of, door)
    guided = {ours.family.guidance: 3.0}
    steered = {**guided, "negative_prompt": "blue"}
    assert torch.equal(draw(ours, door, **steered), draw(theirs, door, **steered))
    ours.load_adapter(adapter)
    low, high = (draw(ours, door, targets=targets, **guided) for targets in (LOW, HIGH))
    assert low.isfinite().all() and not torch.allclose(low, high, atol=1e-3)
    contrasted = draw(ours, door, targets=HIGH, contrast=1.0, **guided)
    assert not torch.allclose(contrasted, high, atol=1e-4)
    ours.unload_adapter()
    assert torch.equal(draw(ours, door), draw(theirs, door))


@pytest.mark.parametrize("door", [TEXT_TO_IMAGE, *DOORS])
def test_rewards_speak_from_a_share_of_the_steps_on(pipe_of, adapter, door):
    pipe = through(pipe_of.family.pipelines[door], pipe_of, door)
    pipe.load_adapter(adapter)
    guided = {pipe.family.guidance: 3.0, "num_inference_steps": 4, "num_images_per_prompt": 2}
    asked = {"targets": HIGH, "contrast": 1.0, "prompt_guidance": 2.0}

    def read(**given):
        with recorded(pipe.denoiser) as passes:
            draw(pipe, door, **guided, **given)
        return passes

    auto, spoken, found = read(), read(**asked), read(**asked, reward_start=0.5)
    assert len(found) == len(auto) == len(spoken) and len(found) % 4 == 0
    middle = len(found) // 2
    if pipe.family.name == "stable-diffusion-3" and door != TEXT_TO_IMAGE:
        # Its other loops take no other pooled text, which is that of the steps with rewards.
        auto = [[states, pooled] for (states, _), (_, pooled) in zip(auto, spoken, strict=True)]
    assert same(found[:middle], auto[:middle]) and same(found[middle:], spoken[middle:])
    assert not same(auto[middle:], spoken[middle:])


def test_auto_pipelines_find_what_goes_with_ours(pipe_of, adapter):
    pipe_of.load_adapter(adapter)
    pipelines = pipe_of.family.pipelines
    painter = AutoPipelineForImage2Image.from_pipe(pipe_of)
    assert type(painter) is pipelines[IMAGE_TO_IMAGE] and painter.adapter is pipe_of.adapter
    assert type(AutoPipelineForInpainting.from_pipe(pipe_of)) is pipelines[INPAINTING]
    assert type(AutoPipelineForText2Image.from_pipe(painter)) is type(pipe_of)


def test_from_a_stock_pipeline_and_to_one(model, stock):
    ours = ric_diffusion.RiCStableDiffusionPipeline.from_pipe(stock)
    assert ours.unet is stock.unet and ours.config.requires_safety_checker is False
    ours.set_progress_bar_config(disable=True)
    drawn = [
        pipe("red apple", generator=torch.Generator().manual_seed(0), num_inference_steps=2).images
        for pipe in (ours, stock)
    ]
    assert np.array_equal(*map(np.asarray, drawn))
    there = StableDiffusionImg2ImgPipeline.from_pipe(ours)
    assert there.unet is stock.unet and str(there.config._name_or_path) == str(model)


def test_the_precision_of_shared_parts_stays(model):
    half = StableDiffusionPipeline.from_pretrained(model, dtype=torch.bfloat16)
    half.vae.to(torch.float32)
    ours = ric_diffusion.RiCStableDiffusionPipeline.from_pipe(half)
    assert (ours.unet.dtype, ours.vae.dtype) == (torch.bfloat16, torch.float32)
    cast = ric_diffusion.RiCStableDiffusionPipeline.from_pipe(half, dtype=torch.float32)
    assert cast.unet.dtype == half.unet.dtype == torch.float32


def test_what_a_door_lacks_is_one_line(pipe):
    cls = ric_diffusion.RiCStableDiffusionControlNetPipeline
    with pytest.raises(InputError, match=r"needs controlnet, which RiCStableDiffusionPipeline"):
        cls.from_pipe(pipe)
    with pytest.raises(InputError, match="has no controlnett; it takes vae"):
        cls.from_pipe(pipe, controlnett=None)


def test_every_class_has_its_name_in_the_package(name):
    for cls in family_named(name).pipelines.values():
        assert getattr(ric_diffusion, cls.__name__) is cls
    with pytest.raises(AttributeError):
        ric_diffusion.RiCNothingPipeline  # noqa: B018


# A network for inpainting reads the mask and the masked picture beside the noise.


@pytest.fixture(scope="module")
def inpainting(stock, tmp_path_factory):
    folder = tmp_path_factory.mktemp("inpainting") / "model"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UNet2DConditionModel(**small.UNET | {"in_channels": 9}).eval()
    parts = {**stock.components, "unet": unet}
    StableDiffusionInpaintPipeline(**parts, requires_safety_checker=False).save_pretrained(folder)
    return folder


def test_a_checkpoint_for_inpainting_draws_through_its_door(inpainting, adapters):
    pipe = RiCPipeline.from_pretrained(inpainting)
    assert type(pipe) is ric_diffusion.RiCStableDiffusionInpaintPipeline
    pipe.set_progress_bar_config(disable=True)
    plain = draw(pipe, INPAINTING)
    pipe.load_adapter(adapters["embedding"])
    assert not torch.allclose(draw(pipe, INPAINTING, targets=HIGH), plain, atol=1e-3)


def test_it_is_neither_trained_nor_drawn_from_text_alone(inpainting, space):
    family = family_of(inpainting)
    with pytest.raises(InputError) as error:
        family.create_backend(str(inpainting), space, family.settings())
    line = str(error.value)
    assert "\n" not in line
    assert line.startswith("its unet reads 9 channels where latents have 4: a model for inpainting")


def test_calibration_knows_the_prompt_through_every_door(pipe_of, adapter, name):
    """From what this family's denoiser expects; two prompts in one call each have their own."""
    pipe_of.load_adapter(adapter)
    features = pipe_of.prompt_features(["blue car", "red apple"])
    channels = pipe_of.family.channels(pipe_of.denoiser)
    assert features.shape == (2, 2 * channels) and np.isfinite(features).all()
    curve = knowing(Curve(requested=(-2, 2), obtained=(-0.5, 0.5)), features, offset=1.0)
    pipe_of.adapter = replace(pipe_of.adapter, calibration={"colorfulness": curve})
    given = {"num_inference_steps": 1, "output_type": "latent", "height": 64, "width": 64}
    out = pipe_of(["blue car", "red apple"], targets={"colorfulness": 2.0}, **given)
    assert [one["colorfulness"] for one in out.targets] == pytest.approx([0.5, 1.5])
    image = pipe_of.family.pipelines[IMAGE_TO_IMAGE].from_pipe(pipe_of)
    moved = image("red apple", image=PICTURE, targets={"colorfulness": 2.0}, strength=1.0,
                  num_inference_steps=1, output_type="latent")  # fmt: skip
    assert moved.targets[0]["colorfulness"] == pytest.approx(1.5)
