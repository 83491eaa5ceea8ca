"""Without an adapter and without rewards, ours is the stock pipeline to the last bit."""

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
    UniPCMultistepScheduler,
)
from diffusers.pipelines.stable_diffusion import StableDiffusionPipelineOutput
from PIL import Image

from ric_diffusion import RiCStableDiffusionImg2ImgPipeline, RiCStableDiffusionPipeline

SCHEDULERS = [
    DDIMScheduler,
    PNDMScheduler,
    EulerDiscreteScheduler,
    EulerAncestralDiscreteScheduler,
    DPMSolverMultistepScheduler,
    UniPCMultistepScheduler,
]
CALLS = {
    "plain": {"prompt": "red apple"},
    "negative": {"prompt": "red apple", "negative_prompt": "blue"},
    "several": {"prompt": "red apple", "num_images_per_prompt": 2},
    "list": {"prompt": ["red apple", "blue car"], "negative_prompt": ["blue", "red"]},
    "unguided": {"prompt": "red apple", "guidance_scale": 1.0},
    "eta": {"prompt": "red apple", "eta": 1.0},
    "numpy": {"prompt": "red apple", "output_type": "np"},
    "latent": {"prompt": "red apple", "output_type": "latent"},
    "steps of one's own": {"prompt": "red apple", "timesteps": None, "num_inference_steps": 3},
}
TEXT_ONLY = {
    "rescaled": {"prompt": "red apple", "guidance_scale": 9.0, "guidance_rescale": 0.7},
    "size": {"prompt": "red apple", "height": 32, "width": 96},
    "latents": {"prompt": "red apple", "latents": torch.ones(1, 4, 8, 8)},
}


@pytest.fixture(scope="module")
def ours(model):
    made = RiCStableDiffusionPipeline.from_pretrained(model)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def both_img2img(stock, ours):
    pair = StableDiffusionImg2ImgPipeline(**stock.components, requires_safety_checker=False)
    mine = RiCStableDiffusionImg2ImgPipeline(**ours.components, requires_safety_checker=False)
    for each in (pair, mine):
        each.set_progress_bar_config(disable=True)
    return pair, mine


def run(pipe, scheduler=None, **given):
    before = pipe.scheduler
    if scheduler is not None:
        pipe.scheduler = scheduler.from_config(before.config)
    generator = torch.Generator().manual_seed(5)
    try:
        return pipe(generator=generator, **{"num_inference_steps": 2, **given})
    finally:
        pipe.scheduler = before


def arrays(output):
    return [np.asarray(image) for image in output.images]


def check_same(ours, stock):
    assert isinstance(ours, StableDiffusionPipelineOutput) and ours.targets
    mine, theirs = arrays(ours), arrays(stock)
    assert len(mine) == len(theirs) == len(ours.targets)
    assert all(np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True))
    assert ours.nsfw_content_detected == stock.nsfw_content_detected
    assert all(target == {} for target in ours.targets)


@pytest.mark.parametrize("given", [*CALLS.values(), *TEXT_ONLY.values()], ids=[*CALLS, *TEXT_ONLY])
def test_text_to_image(ours, stock, given):
    check_same(run(ours, **given), run(stock, **given))


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_scheduler(ours, stock, scheduler):
    given = {"prompt": "red apple", "num_inference_steps": 4}
    check_same(run(ours, scheduler, **given), run(stock, scheduler, **given))


@pytest.mark.parametrize("given", CALLS.values(), ids=CALLS)
def test_image_to_image(both_img2img, given):
    stock, ours = both_img2img
    given = {**given, "image": Image.new("RGB", (64, 64), "red"), "strength": 0.8}
    given["num_inference_steps"] = 3
    check_same(run(ours, **given), run(stock, **given))


def test_arguments_by_position(ours, stock):
    outputs = [
        pipe("red apple", 32, 96, 2, generator=torch.Generator().manual_seed(0))
        for pipe in (ours, stock)
    ]
    assert outputs[0].images[0].size == (96, 32)
    check_same(*outputs)


def test_prompt_embeds(ours, stock):
    embeds, negative = torch.randn(2, 1, 40, 32, generator=torch.Generator().manual_seed(0))
    given = {"prompt_embeds": embeds, "negative_prompt_embeds": negative}
    check_same(run(ours, **given), run(stock, **given))


def test_a_tuple_on_request(ours, stock):
    mine, theirs = (run(p, prompt="red apple", return_dict=False) for p in (ours, stock))
    assert type(mine) is tuple and len(mine) == len(theirs) == 2
    assert np.array_equal(mine[0][0], theirs[0][0])


def test_callbacks_are_called_and_heeded(ours, stock):
    seen = {}

    def outputs(pipe):
        def callback(called, step, timestep, tensors):
            assert called is pipe
            seen.setdefault(pipe, []).append((step, int(timestep), sorted(tensors)))
            return {"latents": tensors["latents"] * 0.5}

        return run(
            pipe,
            prompt="red apple",
            num_inference_steps=3,
            callback_on_step_end=callback,
            callback_on_step_end_tensor_inputs=["latents", "prompt_embeds"],
        )

    check_same(outputs(ours), outputs(stock))
    assert seen[ours] == seen[stock]
    assert [step for step, *_ in seen[ours]] == [0, 1, 2]
    assert not np.array_equal(
        arrays(outputs(ours))[0], arrays(run(ours, prompt="red apple", num_inference_steps=3))[0]
    )


def test_stock_refusals_stay(ours, stock):
    for given in ({"prompt": "x", "height": 30, "width": 64}, {"prompt": None}, {"prompt": 7}):
        for pipe in (ours, stock):
            with pytest.raises(ValueError):
                run(pipe, **given)


def test_the_reward_space_is_none(ours):
    assert ours.reward_space is None and ours.adapter is None


def test_components_are_the_stock_ones(ours, stock):
    assert ours.components.keys() == stock.components.keys()
    # Saving or printing a pipeline makes diffusers add these two to its config.
    added = {"_class_name", "_diffusers_version"}
    assert ours.config.keys() - added == stock.config.keys() - added
