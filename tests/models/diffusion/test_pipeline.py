"""Rewards in the call: what is asked for, what is used, what is refused."""

import dataclasses

import numpy as np
import pytest
import torch
from diffusers.callbacks import SDCFGCutoffCallback
from PIL import Image

from ric_diffusion import RiCStableDiffusionImg2ImgPipeline, RiCStableDiffusionPipeline
from ric_diffusion.io.errors import InputError
from ric_diffusion.rewards import MAPPINGS, to_targets

MODES = ("embedding", "text")
ONE, OTHER = {"colorfulness": 1.5}, {"colorfulness": -0.5, "compressibility": 2.0}


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


def calls(pipe, run):
    """What the U-Net was given while ``run`` ran: (samples, context) for each pass."""
    seen = []

    def look(module, args, kwargs):
        seen.append((args[0].shape, kwargs["encoder_hidden_states"].clone()))

    hook = pipe.unet.register_forward_pre_hook(look, with_kwargs=True)
    try:
        run()
    finally:
        hook.remove()
    return seen


def far(a, b):
    return not torch.allclose(a, b, atol=1e-3)


def test_targets_change_the_picture_and_every_value_another_way(ready, draw):
    outputs = [draw(ready, targets=t) for t in ({}, ONE, OTHER, {"colorfulness": -1.5})]
    assert all(far(a, b) for i, a in enumerate(outputs) for b in outputs[:i])
    assert torch.equal(outputs[0], draw(ready))  # nothing asked for: auto
    assert torch.equal(outputs[1], draw(ready, targets=ONE))


def test_auto_is_not_zero(ready, draw):
    assert far(draw(ready), draw(ready, targets={"colorfulness": 0.0, "compressibility": 0.0}))


def test_the_context_of_a_call(ready, draw):
    """Both halves of guidance, to the bit: what the conditioner makes of prompt and targets."""
    seen = calls(
        ready,
        lambda: draw(
            ready, "red apple", targets=ONE, negative_prompt="blue", negative_targets=OTHER
        ),
    )
    wanted = ready.encode_context(["red apple", "blue"], [ONE, OTHER]).states.flip(0)
    assert len(seen) == 2
    for _, context in seen:
        assert torch.equal(context, wanted)
    extra = 2 if ready.adapter.conditioner.mode == "embedding" else 0
    assert wanted.shape == (2, 32 + extra, 32)


def test_text_mode_writes_the_words_behind_the_prompt(pipes, stock):
    pipe = pipes["text"]
    found = pipe.encode_context(["red <colorfulness> 9.9"], [OTHER]).states
    text = "red <_colorfulness> 9.9 <colorfulness> -0.5 <compressibility> 2.0"
    assert torch.equal(found, stock.encode_prompt(text, "cpu", 1, False)[0])


@pytest.mark.parametrize("given", [{"targets": ONE}, {"preference": {"colorfulness": 1}}])
def test_one_for_all_prompts(ready, draw, given):
    output = ready(
        ["red apple", "blue car"], num_inference_steps=1, num_images_per_prompt=2, **given
    )
    assert len(output.images) == len(output.targets) == 4
    assert output.targets[0] and all(t == output.targets[0] for t in output.targets)
    output.targets[0].clear()  # each image has a dict of its own
    assert output.targets[1]


def test_one_for_each_prompt_and_targets_for_every_image(ready, draw):
    generators = [torch.Generator().manual_seed(seed) for seed in range(4)]
    output = ready(
        ["red apple", "blue car"],
        targets=[ONE, OTHER],
        num_images_per_prompt=2,
        generator=generators,
        num_inference_steps=2,
        output_type="latent",
    )
    assert output.targets == [ONE, ONE, OTHER, OTHER]
    wanted = [("red apple", ONE), ("red apple", ONE), ("blue car", OTHER), ("blue car", OTHER)]
    for seed, (image, (prompt, targets)) in enumerate(zip(output.images, wanted, strict=True)):
        alone = draw(ready, prompt, seed=seed, targets=targets)[0]
        assert torch.allclose(image, alone, atol=1e-4)


@pytest.mark.parametrize("mapping", [None, *MAPPINGS])
def test_a_preference_becomes_targets_by_the_mapping(ready, space, mapping):
    preference = {"colorfulness": 0.7, "compressibility": 0.3}
    output = ready("apple", preference=preference, mapping=mapping, num_inference_steps=1)
    wanted = to_targets(preference, space, mapping or "front")
    digits = 1 if ready.adapter.conditioner.mode == "text" else 12
    assert output.targets == [pytest.approx({k: round(v, digits) for k, v in wanted.items()})]


def test_text_mode_tells_the_values_it_wrote(pipes):
    targets = {"colorfulness": 1.26, "compressibility": -0.04}
    used = {m: pipes[m]("x", targets=targets, num_inference_steps=1).targets[0] for m in MODES}
    assert used["text"] == {"colorfulness": 1.3, "compressibility": 0.0}
    assert used["embedding"] == targets


def test_negative_targets_steer_without_another_pass(ready, stock, draw):
    plain = draw(ready, targets=ONE)
    steered = draw(ready, targets=ONE, negative_targets={"colorfulness": -1.5})
    assert far(plain, steered)
    assert far(steered, draw(ready, targets=ONE, negative_targets={"colorfulness": 1.5}))

    given = {"targets": ONE, "negative_targets": OTHER}
    for guidance in ({"guidance_scale": 4.0}, {"guidance_scale": 1.0}):
        ours = calls(ready, lambda g=guidance: draw(ready, targets=ONE, **g))
        theirs = calls(stock, lambda g=guidance: draw(stock, **g))
        assert [shape for shape, _ in ours] == [shape for shape, _ in theirs]
    ours = calls(ready, lambda: draw(ready, num_images_per_prompt=2, **given))
    theirs = calls(stock, lambda: draw(stock, num_images_per_prompt=2))
    assert [shape for shape, _ in ours] == [shape for shape, _ in theirs]
    assert [len(context) for _, context in ours] == [4, 4]


def test_contrast_asks_the_other_branch_for_the_opposite(ready, draw):
    both = {"colorfulness": 0.2, "compressibility": -0.5}
    opposite = {"colorfulness": -0.4, "compressibility": 1.0}
    contrasted = draw(ready, targets=both, contrast=2)
    assert torch.equal(contrasted, draw(ready, targets=both, negative_targets=opposite))
    assert far(contrasted, draw(ready, targets=both))
    assert torch.equal(draw(ready, contrast=2.0), draw(ready))
    with pytest.raises(InputError, match=r"^contrast: give guidance_scale above 1, not 1\.0$"):
        draw(ready, targets=ONE, guidance_scale=1.0, contrast=2.0)
    preference = {"colorfulness": 1.0}
    assert far(draw(ready, preference=preference, contrast=1.0), draw(ready, preference=preference))


def test_contrast_and_negative_targets_are_not_both_given(ready, draw):
    given = {"targets": ONE, "negative_targets": OTHER}
    with pytest.raises(InputError, match=r"^contrast and negative_targets: .*; give one"):
        draw(ready, **given, contrast=2.0)
    own = dataclasses.replace(ready.adapter, sampling={"contrast": 2.0})
    plain = draw(ready, **given, guidance_scale=3.0)
    before, ready.adapter = ready.adapter, own
    try:  # an adapter's own contrast makes room for what the call says
        assert torch.equal(draw(ready, **given, guidance_scale=3.0), plain)
        contrasted = draw(ready, targets=ONE, guidance_scale=3.0)
    finally:
        ready.adapter = before
    assert torch.equal(contrasted, draw(ready, targets=ONE, guidance_scale=3.0, contrast=2.0))


def test_what_a_call_leaves_out_comes_from_the_adapter(ready, draw):
    settings = {"guidance_scale": 2.0, "num_inference_steps": 3, "prompt_guidance": 1.5}
    before = ready.adapter
    whole = draw(ready, targets=ONE, **settings)
    ready.adapter = dataclasses.replace(before, sampling=settings)
    try:
        generator = torch.Generator().manual_seed(0)
        left_out = ready("red apple", targets=ONE, generator=generator, output_type="latent")
        assert torch.equal(left_out.images, whole)
        own_scale = draw(ready, targets=ONE, guidance_scale=1.0, num_inference_steps=2)
        image = ready("red apple", None, None, 2, targets=ONE, output_type="latent",
                      generator=torch.Generator().manual_seed(0)).images  # fmt: skip
    finally:
        ready.adapter = before
    # A scale below the adapter's own prompt_guidance, which nobody gave, is no mistake.
    assert torch.equal(own_scale, draw(ready, targets=ONE, guidance_scale=1.0))
    steps = {**settings, "num_inference_steps": 2}
    assert torch.equal(image, draw(ready, targets=ONE, **steps))  # steps by position


def test_guidance_can_pull_towards_the_rewards_alone(ready, draw):
    both = {"targets": ONE, "negative_targets": OTHER, "guidance_scale": 4.0}
    alone = draw(ready, **both, prompt_guidance=1)
    assert torch.equal(alone, draw(ready, **both, negative_prompt="red apple"))
    assert torch.equal(draw(ready, **both, prompt_guidance=4.0), draw(ready, **both))
    between = draw(ready, **both, prompt_guidance=2.5)
    assert far(between, alone) and far(between, draw(ready, **both))
    contrasted = {"targets": ONE, "contrast": 1.0, "guidance_scale": 4.0}
    assert far(draw(ready, **contrasted, prompt_guidance=1), draw(ready, **contrasted))
    unguided = {"targets": ONE, "guidance_scale": 1.0}
    assert torch.equal(draw(ready, **unguided, prompt_guidance=1), draw(ready, **unguided))


def test_rewards_speak_from_a_share_of_the_steps_on(ready, draw):
    given = {"targets": ONE, "contrast": 1.0, "prompt_guidance": 1.5, "guidance_scale": 3.0}
    given["num_inference_steps"] = 5
    plain = draw(ready, **given)
    assert torch.equal(draw(ready, **given, reward_start=0), plain)
    # The first step is a step on auto, and begins with the step that reaches the share.
    late = draw(ready, **given, reward_start=0.2)
    assert far(late, plain) and torch.equal(draw(ready, **given, reward_start=0.01), late)
    assert far(draw(ready, **given, reward_start=0.21), late)
    auto = draw(ready, guidance_scale=3.0, num_inference_steps=5)
    last = draw(ready, **given, reward_start=0.8)
    assert far(last, auto) and torch.equal(draw(ready, **given, reward_start=0.99), last)
    given["num_inference_steps"] = 1  # which is the last
    assert torch.equal(draw(ready, **given, reward_start=0.2), draw(ready, **given))
    given["num_inference_steps"] = 5
    before = ready.adapter
    ready.adapter = dataclasses.replace(before, sampling={"reward_start": 0.2})
    try:
        assert torch.equal(draw(ready, **given), late)
        assert torch.equal(draw(ready, **given, reward_start=0), plain)
    finally:
        ready.adapter = before


def test_callbacks_are_called_as_well(ready, draw):
    given = {"targets": ONE, "num_inference_steps": 4, "reward_start": 0.5}
    seen = []

    def watch(pipe, i, t, tensors):
        seen.append((i, sorted(tensors)))
        return {}

    names = {"callback_on_step_end_tensor_inputs": ["latents", "prompt_embeds"]}
    watched = draw(ready, **given, callback_on_step_end=watch, **names)
    assert torch.equal(watched, draw(ready, **given))
    assert seen == [(i, ["latents", "prompt_embeds"]) for i in range(4)]
    cut = SDCFGCutoffCallback(cutoff_step_ratio=0.5)  # names its tensors itself
    latents = draw(ready, **given, callback_on_step_end=cut)
    assert latents.isfinite().all() and far(latents, watched)


def test_without_an_adapter_there_is_only_the_prompt_to_be_guided_by(pipe, stock, draw):
    both = {"guidance_scale": 4.0, "prompt_guidance": 2.5}
    assert torch.equal(draw(pipe, **both), draw(stock, guidance_scale=2.5))


def test_states_are_shared_as_prompts_are(pipes, draw):
    ready = pipes["embedding"]
    states = ready.encode_prompt(["red apple", ""], "cpu", 1, False)[0].detach()
    given = {"targets": ONE, "contrast": 1.0, "guidance_scale": 4.0, "prompt_guidance": 2.0}
    embeds = {"prompt_embeds": states[:1], "negative_prompt_embeds": states[1:]}
    assert not far(draw(ready, None, **given, **embeds), draw(ready, **given))


def test_without_guidance_there_is_no_negative_branch(ready, draw):
    for scale in (1.0, 0.0):
        with pytest.raises(InputError, match=f"guidance_scale above 1, not {scale}"):
            draw(ready, negative_targets=ONE, guidance_scale=scale)
    unguided = draw(ready, targets=ONE, guidance_scale=1.0)
    assert torch.equal(
        unguided, draw(ready, targets=ONE, guidance_scale=1.0, negative_prompt="blue")
    )


BAD = [
    ({"targets": ONE, "preference": ONE}, "preference and targets: give one of them"),
    ({"targets": {"colourfulness": 1.0}}, "colourfulness.*did you mean 'colorfulness'"),
    ({"preference": {"sharpness": 1.0}}, "sharpness"),
    ({"negative_targets": {"sharpness": 1.0}}, "^negative_targets: .*sharpness"),
    ({"targets": {"colorfulness": float("nan")}}, "colorfulness must be finite"),
    ({"targets": {"colorfulness": float("inf")}}, "colorfulness must be finite"),
    ({"targets": {"colorfulness": "1.5"}}, "colorfulness must be a number"),
    ({"targets": {"colorfulness": None}}, "colorfulness must be a number"),
    ({"targets": [ONE, ONE, ONE]}, "^targets: 3 for 2 prompts"),
    ({"targets": [ONE]}, "^targets: 1 for 2 prompts"),
    ({"negative_targets": [ONE]}, "^negative_targets: 1 for 2 prompts"),
    ({"preference": [ONE]}, "^preference: 1 for 2 prompts"),
    ({"targets": []}, "^targets: 0 for 2 prompts"),
    ({"targets": ["colorfulness", "compressibility"]}, "must map names to values"),
    ({"targets": 1.5}, "targets"),
    ({"targets": ONE, "contrast": -1.0}, r"^contrast -1\.0: give a number from 0"),
    ({"targets": ONE, "contrast": float("nan")}, "^contrast nan: give a number"),
    ({"targets": ONE, "contrast": "strong"}, "^contrast 'strong': give a number"),
    ({"targets": ONE, "prompt_guidance": 0.5}, r"^prompt_guidance 0\.5: give a number from 1 to"),
    ({"targets": ONE, "prompt_guidance": 9}, r"^prompt_guidance 9: .* to guidance_scale, 3\.0"),
    ({"targets": ONE, "prompt_guidance": float("nan")}, "^prompt_guidance nan: give a number"),
    (
        {"targets": ONE, "reward_start": -0.1},
        r"^reward_start -0\.1: give a number from 0 to 0\.99$",
    ),
    ({"targets": ONE, "reward_start": 1.0}, r"^reward_start 1\.0: give a number from 0 to 0\.99$"),
    ({"preference": {"colorfulness": -1.0}}, "0 or above"),
    ({"preference": {}}, "no weights given"),
    ({"preference": {"colorfulness": 0}}, "every weight is 0"),
    ({"preference": ONE, "mapping": "frontt"}, "did you mean 'front'"),
    ({"negative_prompt": ["a", "b", "c"]}, "negative_prompt: give one text, or one for each of"),
    ({"negative_prompt": "a", "negative_prompt_embeds": torch.ones(2, 32, 32)}, "not both"),
    ({"prompt_embeds": torch.ones(2, 32, 32)}, "not both"),
]


@pytest.mark.parametrize(("given", "message"), BAD)
def test_wrong_input_is_refused_in_one_line(ready, draw, given, message):
    with pytest.raises(InputError, match=message) as error:
        draw(ready, ["red apple", "blue car"], **given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["targets", "preference", "negative_targets"])
def test_rewards_need_an_adapter(pipe, draw, key):
    with pytest.raises(InputError, match="no adapter is loaded; call load_adapter first") as error:
        draw(pipe, **{key: ONE})
    assert "\n" not in str(error.value)


def test_prompt_embeds_take_reward_tokens_but_no_words(pipes, draw):
    embeds, negative = torch.randn(2, 1, 40, 32, generator=torch.Generator().manual_seed(0))
    given = {"prompt_embeds": embeds, "negative_prompt_embeds": negative}
    pipe = pipes["embedding"]
    seen = calls(pipe, lambda: draw(pipe, None, targets=ONE, **given))
    assert seen[0][1].shape == (2, 42, 32)
    assert torch.equal(seen[0][1][:, :40], torch.cat([negative, embeds]))
    assert far(draw(pipe, None, targets=ONE, **given), draw(pipe, None, targets=OTHER, **given))

    with pytest.raises(InputError, match="prompt_embeds: this adapter reads rewards") as error:
        draw(pipes["text"], None, targets=ONE, **given)
    assert "\n" not in str(error.value)
    assert draw(pipes["text"], None, **given).shape == (1, 4, 8, 8)


def test_nothing_given_is_changed_in_the_call(ready, draw):
    prompts, targets = ["red apple", "blue car"], [dict(ONE), dict(OTHER)]
    before = {k: v.clone() for k, v in ready.unet.state_dict().items()}
    draw(ready, prompts, targets=targets, negative_targets=ONE)
    assert prompts == ["red apple", "blue car"] and targets == [ONE, OTHER]
    after = ready.unet.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_standard_arguments_go_on_working(ready):
    steps = []
    output = ready(
        "red apple",
        targets=ONE,
        height=32,
        width=96,
        num_inference_steps=3,
        output_type="np",
        callback_on_step_end=lambda p, step, t, tensors: steps.append(step) or tensors,
        callback_on_step_end_tensor_inputs=["prompt_embeds"],
    )
    assert output.images.shape == (1, 32, 96, 3) and steps == [0, 1, 2]
    images, nsfw = ready("red apple", targets=ONE, num_inference_steps=1, return_dict=False)
    assert images[0].size == (64, 64) and nsfw is None


def test_a_seed_repeats_and_a_batch_does_not_matter(ready):
    generators = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    both = ready(["apple", "car"], targets=ONE, num_inference_steps=2, generator=generators).images
    generator = torch.Generator().manual_seed(4)
    one = ready("car", targets=ONE, num_inference_steps=2, generator=generator).images[0]
    assert np.abs(np.asarray(both[1], int) - np.asarray(one, int)).max() <= 1


def test_image_to_image_by_the_same_words(ready):
    pipe = RiCStableDiffusionImg2ImgPipeline.from_pipe(ready)
    pipe.set_progress_bar_config(disable=True)
    assert pipe.adapter is ready.adapter and pipe.reward_space.names == tuple(OTHER)
    images = {}
    for name, value in (("low", -2.0), ("high", 2.0)):
        output = pipe(
            "apple",
            Image.new("RGB", (64, 64), "red"),
            0.7,
            targets={"colorfulness": value},
            negative_targets={"colorfulness": -value},
            num_inference_steps=4,
            generator=torch.Generator().manual_seed(0),
            output_type="latent",
        )
        assert output.targets == [{"colorfulness": value}]
        images[name] = output.images
    assert far(images["low"], images["high"])
