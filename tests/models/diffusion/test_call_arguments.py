"""The arguments of a call: values for each image, prompt embeddings of any length, and what is
refused before anything is drawn."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler
from PIL import Image

from ric_diffusion import RiCStableDiffusionImg2ImgPipeline, RiCStableDiffusionPipeline
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.diffusion.families.sdxl import FAMILY as SDXL
from ric_diffusion.rewards import to_targets
from support import sdxl

MODES = ("embedding", "text")
ONE, OTHER = {"colorfulness": 1.5}, {"colorfulness": -0.5, "compressibility": 2.0}
FOUR = [ONE, OTHER, {}, {"compressibility": -1.0}]
AGAINST = [{"compressibility": 1.0}, {}, ONE, OTHER]


@pytest.fixture(scope="module")
def pipes(model, adapters):
    """A pipeline with an adapter, by mode."""
    made = {mode: RiCStableDiffusionPipeline.from_pretrained(model) for mode in MODES}
    for mode, pipe in made.items():
        pipe.set_progress_bar_config(disable=True)
        pipe.load_adapter(adapters[mode])
    return made


@pytest.fixture(params=MODES)
def ready(request, pipes):
    return pipes[request.param]


def context_of(pipe, run):
    """What the denoiser read in the first pass of ``run``."""
    seen = []
    hook = pipe.denoiser.register_forward_pre_hook(
        lambda _module, _args, kwargs: seen.append(kwargs["encoder_hidden_states"].clone()),
        with_kwargs=True,
    )
    try:
        run()
    finally:
        hook.remove()
    return seen[0]


def generators(count):
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


# Targets for each image of a prompt.


def test_each_image_of_a_prompt_its_own_targets(ready, draw):
    output = ready(
        "red apple",
        targets=FOUR,
        negative_targets=AGAINST,
        num_images_per_prompt=4,
        generator=generators(4),
        num_inference_steps=2,
        output_type="latent",
    )
    assert output.targets == FOUR and len(output.images) == 4
    for seed, image in enumerate(output.images):
        given = {"targets": FOUR[seed], "negative_targets": AGAINST[seed]}
        alone = draw(ready, "red apple", seed=seed, **given)[0]
        assert torch.allclose(image, alone, atol=1e-4)


def test_each_image_of_each_prompt_its_own_preference(ready, space, draw):
    preferences = [{"colorfulness": 1 - i / 4, "compressibility": i / 4} for i in range(4)]
    output = ready(
        ["red apple", "blue car"],
        preference=preferences,
        negative_prompt=["blue", "red"],
        negative_targets=[ONE, {}],  # one for each prompt
        num_images_per_prompt=2,
        generator=generators(4),
        num_inference_steps=2,
        output_type="latent",
    )
    wanted = [ready.adapter.used(to_targets(p, space, "front")) for p in preferences]
    assert output.targets == wanted
    for i, image in enumerate(output.images):
        prompt, negative, against = [("red apple", "blue", ONE), ("blue car", "red", {})][i // 2]
        given = {"negative_prompt": negative, "negative_targets": against}
        alone = draw(ready, prompt, seed=i, preference=preferences[i], **given)[0]
        assert torch.allclose(image, alone, atol=1e-4)


def test_each_image_of_given_states_its_own_targets(pipes, draw):
    pipe = pipes["embedding"]
    prompts = ["red apple", "blue car"]
    states = pipe.encode_prompt(prompts, "cpu", 1, False)[0]
    given = {"num_images_per_prompt": 2, "targets": FOUR, "contrast": 1.0, "prompt_guidance": 2.0}
    of_states = draw(pipe, None, prompt_embeds=states, **given)
    assert torch.allclose(of_states, draw(pipe, prompts, **given), atol=1e-4)
    assert not torch.allclose(of_states[0], of_states[1], atol=1e-3)


def test_equal_targets_for_each_image_are_targets_for_all(ready, draw):
    listed = draw(ready, targets=[ONE] * 3, num_images_per_prompt=3)
    assert torch.equal(listed, draw(ready, targets=ONE, num_images_per_prompt=3))


def test_each_image_made_of_one_picture_its_own_targets(pipes):
    pipe = RiCStableDiffusionImg2ImgPipeline.from_pipe(pipes["embedding"])
    pipe.set_progress_bar_config(disable=True)
    given = {"image": Image.new("RGB", (64, 64), "red"), "strength": 0.7, "output_type": "latent"}
    given["num_inference_steps"] = 3
    several = pipe(
        "car", targets=FOUR, num_images_per_prompt=4, generator=generators(4), **given
    ).images
    for image, targets, generator in zip(several, FOUR, generators(4), strict=True):
        alone = pipe("car", targets=targets, generator=[generator], **given).images[0]
        assert torch.allclose(image, alone, atol=1e-4)


def test_rewards_that_no_step_is_left_for_are_told_so(pipes):
    pipe = RiCStableDiffusionImg2ImgPipeline.from_pipe(pipes["embedding"])
    pipe.set_progress_bar_config(disable=True)
    given = {"image": Image.new("RGB", (64, 64), "red"), "strength": 0.3, "targets": ONE}
    given |= {"num_inference_steps": 4, "reward_start": 0.5}
    with pytest.raises(InputError, match=r"^reward_start 0\.5: strength leaves one step; give 0$"):
        pipe("car", **given)


@pytest.mark.parametrize("key", ["targets", "preference", "negative_targets"])
def test_any_other_number_of_values_is_refused(ready, draw, key):
    message = f"^{key}: 3 for 2 prompts of 2 images each; give one, or one for each$"
    with pytest.raises(InputError, match=message):
        draw(ready, ["a", "b"], num_images_per_prompt=2, **{key: [ONE] * 3})


# Prompt embeddings that are longer on one side.


@pytest.mark.parametrize("longer", ["", "negative_"])
@pytest.mark.parametrize("length", [64, 80])
def test_the_shorter_side_goes_on_with_empty_text(pipes, draw, longer, length):
    pipe = pipes["embedding"]
    states = torch.randn(1, length, 32, generator=torch.Generator().manual_seed(0))
    targets = {"targets": ONE, "negative_targets": OTHER}
    given = {f"{longer}prompt_embeds": states}
    given |= {"prompt": None, "negative_prompt": "blue"} if not longer else {"prompt": "blue"}
    context = context_of(pipe, lambda: draw(pipe, **given, **targets))
    assert context.shape == (2, length + 2, 32)
    long, short = (1, 0) if not longer else (0, 1)
    text, empty = pipe.encode_prompt(["blue", ""], "cpu", 1, False)[0].split(1)
    filled = torch.cat([text, empty, empty], dim=1)[:, :length]
    assert torch.equal(context[long, :length], states[0])
    assert torch.allclose(context[short, :length], filled[0], atol=1e-6)
    tokens = pipe.encode_context(["", ""], [OTHER, ONE]).states[:, -2:]
    assert torch.allclose(context[:, -2:], tokens, atol=1e-6)
    assert draw(pipe, **given, **targets, prompt_guidance=2.0).isfinite().all()


def test_text_mode_takes_them_without_targets(pipes, draw):
    states = torch.randn(1, 64, 32, generator=torch.Generator().manual_seed(0))
    context = context_of(pipes["text"], lambda: draw(pipes["text"], None, prompt_embeds=states))
    empty = pipes["text"].encode_prompt([""], "cpu", 1, False)[0][0]
    assert torch.equal(context[1], states[0])
    assert torch.allclose(context[0], torch.cat([empty, empty]), atol=1e-6)


def test_unguided_nothing_is_compared(pipes, draw):
    long, short = torch.randn(2, 1, 64, 32, generator=torch.Generator().manual_seed(0))
    unguided = {"targets": ONE, "guidance_scale": 1.0, "prompt_embeds": long}
    plain = draw(pipes["embedding"], None, **unguided)
    given = {**unguided, "negative_prompt_embeds": short[:, :32]}
    assert torch.equal(draw(pipes["embedding"], None, **given), plain)


def test_states_of_another_precision(pipes, draw):
    """Those that are read from a file, beside text that the pipeline encodes."""
    pipe = pipes["embedding"]
    states = pipe.encode_prompt(["red apple"], "cpu", 1, False)[0]
    given = {"targets": ONE, "contrast": 1.0, "prompt_guidance": 2.0}
    found = draw(pipe, None, prompt_embeds=states.double(), **given)
    assert torch.allclose(found, draw(pipe, "red apple", **given), atol=1e-4)


def test_nothing_goes_on_with_nothing(tmp_path, space, draw):
    """Where Stable Diffusion XL guides away from zeros, and where it has a text to guide from."""
    folder = sdxl.write(tmp_path / "model")
    pipe = SDXL.create_backend(str(folder), space, SDXL.settings()).pipe
    generator = torch.Generator().manual_seed(0)
    given = {
        "prompt_embeds": torch.randn(1, 64, 80, generator=generator),
        "pooled_prompt_embeds": torch.randn(1, 48, generator=generator),
        "targets": ONE,
        "guidance_scale": 3.0,
    }
    context = context_of(pipe, lambda: draw(pipe, None, **given))
    assert context.shape == (2, 66, 80)
    assert context[0, :64].count_nonzero() == 0 and context[0, 64:].count_nonzero() > 0
    context = context_of(pipe, lambda: draw(pipe, None, negative_prompt="blue", **given))
    texts = pipe.encode_prompt(["blue", ""], None, "cpu", 1, False)[0]
    assert torch.allclose(context[0, :64], texts.flatten(0, 1), atol=1e-6)


# What is refused.

EMBEDS = torch.ones(2, 32, 32)
REFUSED = [
    ({"strengh": 0.5}, "^strengh: this pipeline's call has no such argument"),
    ({"guidance_scal": 3.0}, "^guidance_scal: .*; did you mean 'guidance_scale'"),
    ({"target": ONE}, "^target: .*; did you mean 'targets'"),
    ({"guidance_scale": None}, "^guidance_scale None: give a number$"),
    ({"guidance_scale": "7.5"}, r"^guidance_scale '7\.5': give a number$"),
    ({"guidance_scale": True}, "^guidance_scale True: give a number$"),
    ({"guidance_scale": float("nan")}, "^guidance_scale nan: give a number$"),
    ({"guidance_rescale": "a"}, "^guidance_rescale 'a': give a number$"),
    ({"height": "64"}, "^height '64': give a number$"),
    (
        {"num_inference_steps": None},
        "^num_inference_steps None: give a whole number",
    ),
    (
        {"num_inference_steps": 2.0},
        r"^num_inference_steps 2\.0: give a whole number",
    ),
    ({"num_inference_steps": 0}, "^num_inference_steps 0: give a whole number from 1 to 1000$"),
    ({"num_inference_steps": 1001}, "^num_inference_steps 1001: give a whole number from 1 to"),
    ({"guidance_scale": 1e30}, r"^guidance_scale 1e\+30: give a number from -1000 to 1000$"),
    ({"width": 10**9}, "^width 1000000000: give a number from -8192 to 8192$"),
    ({"contrast": 1e30}, r"^contrast 1e\+30: give a number from 0 to 1000$"),
    ({"num_images_per_prompt": None}, "^num_images_per_prompt None: give a whole number"),
    ({"num_images_per_prompt": "2"}, "^num_images_per_prompt '2': give a whole number"),
    ({"generator": 0}, r"^generator 0: give torch\.Generator\(\)\.manual_seed\(0\), or a list"),
    ({"generator": [1, 2]}, "^generator 1: give"),
    ({"mapping": "frontt"}, "^mapping: unknown 'frontt'; did you mean 'front'"),
    ({"mapping": 3}, "^mapping: unknown 3; one of: "),
    ({"mapping": ["front"]}, "^mapping: unknown"),
    ({"contrast": True}, "^contrast True: give a number from 0 to"),
    ({"prompt_guidance": True}, "^prompt_guidance True: give a number from 1"),
    ({"reward_start": True}, "^reward_start True: give a number from 0 to 0.99"),
]
WITH_ADAPTER = [
    ({"targets": "colorfulness=1"}, "^targets 'colorfulness=1': map rewards to values"),
    ({"targets": [None, ONE]}, "^targets must map names to values, not None"),
    ({"preference": 3}, "^preference 3: map rewards to values"),
    ({"negative_targets": True}, "^negative_targets True: map rewards to values"),
    ({"negative_prompt": 3}, "^negative_prompt: give one text, or one for each of the 2"),
    ({"prompt": []}, r"^prompt \[\]: give a text or a list of texts"),
    ({"prompt": ["a", None]}, "^prompt: give one text, or one for each of the 2 prompts"),
    ({"prompt": None, "prompt_embeds": [EMBEDS]}, "^prompt_embeds: give a tensor, not list"),
    ({"prompt": None, "prompt_embeds": EMBEDS[0]}, r"^prompt_embeds: of shape \(32, 32\); give"),
    ({"prompt": None, "prompt_embeds": EMBEDS[..., :16]}, r"of shape \(2, 32, 16\); give \(prompt"),
    ({"negative_prompt_embeds": EMBEDS[:1]}, r"^negative_prompt_embeds: of shape \(1, 32, 32\)"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED)
def test_refused_with_an_adapter_and_without(ready, stock, model, draw, given, message):
    plain = RiCStableDiffusionPipeline(**stock.components, requires_safety_checker=False)
    for pipe in (ready, plain):
        with pytest.raises(InputError, match=message) as error:
            pipe(["red apple", "blue car"], **given)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(("given", "message"), WITH_ADAPTER)
def test_refused_with_an_adapter(ready, given, message):
    with pytest.raises(InputError, match=message) as error:
        ready(**{"prompt": ["red apple", "blue car"], **given})
    assert "\n" not in str(error.value)


def test_a_door_is_told_what_another_takes(pipes):
    pipe = RiCStableDiffusionImg2ImgPipeline.from_pipe(pipes["text"])
    image = Image.new("RGB", (64, 64), "red")
    for given, message in (
        ({"strengh": 0.5}, "^strengh: .*; did you mean 'strength'"),
        ({"strength": "0.5"}, r"^strength '0\.5': give a number$"),
    ):
        with pytest.raises(InputError, match=message):
            pipe("car", image, **given)


# What looks wrong and is not.


def test_numbers_of_numpy(ready, draw):
    given = {"targets": ONE, "contrast": 1.0, "prompt_guidance": 2.0, "guidance_scale": 3.0}
    plain = draw(ready, num_inference_steps=2, **given)
    theirs = {key: np.float64(x) for key, x in given.items() if key != "targets"}
    assert torch.equal(draw(ready, targets=ONE, num_inference_steps=np.int64(2), **theirs), plain)


def test_deprecated_callbacks_are_called(ready, stock, draw):
    seen = {}
    for pipe in (ready, stock):
        steps = seen.setdefault(pipe, [])
        draw(pipe, callback=lambda step, *_, s=steps: s.append(step), callback_steps=1)
    assert seen[ready] == seen[stock] == [0, 1]


def test_timesteps_of_ones_own_need_no_number_of_steps(ready, monkeypatch, draw):
    scheduler = EulerDiscreteScheduler.from_config(ready.scheduler.config)
    monkeypatch.setattr(ready, "scheduler", scheduler)
    given = {"targets": ONE, "timesteps": [900, 500]}
    plain = draw(ready, **given, num_inference_steps=2)
    assert torch.equal(draw(ready, **given, num_inference_steps=None), plain)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 8, 10])
def test_all_of_the_noise_from_a_schedule_without_signal(pipes, steps):
    """Stock DDIM takes the root of -6e-8 at 4 of them, whatever the prediction."""
    pipe = pipes["embedding"]
    before = pipe.scheduler
    pipe.scheduler = DDIMScheduler(
        beta_schedule="scaled_linear",
        clip_sample=False,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
    )
    try:
        output = pipe("red apple", targets=ONE, eta=1.0, num_inference_steps=steps)
    finally:
        pipe.scheduler = before
    assert output.finite == [True]


@pytest.mark.parametrize("eta", [1.5, -2.0, float("nan")])
def test_more_than_all_of_the_noise_is_refused(pipes, eta):
    with pytest.raises(InputError, match=r"eta .*: give a number"):
        pipes["embedding"]("red apple", eta=eta)
