"""Who calls a denoiser that holds an adapter: our pipelines, however they are run, and nobody who
knows nothing of its rewards."""

import accelerate
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline

from ric_diffusion import RiCStableDiffusionImg2ImgPipeline, RiCStableDiffusionPipeline
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.diffusion.backend import DiffusionConfig
from ric_diffusion.models.known import FAMILIES
from support import toy_family

ONE = {"targets": {"colorfulness": 1.5}}
STRANGERS = {
    "from_pipe": StableDiffusionPipeline.from_pipe,
    "components": lambda pipe: StableDiffusionPipeline(
        **pipe.components, requires_safety_checker=False
    ),
}


@pytest.mark.parametrize("mode", ["embedding", "text"])
@pytest.mark.parametrize("stranger", STRANGERS.values(), ids=STRANGERS)
def test_a_stock_pipeline_does_not_draw_with_an_adapter_in_silence(
    mode, stranger, adapters, pipe, draw, stock
):
    other = stranger(pipe)
    other.set_progress_bar_config(disable=True)
    pipe.load_adapter(adapters[mode])
    first = draw(pipe, **ONE)
    with pytest.raises(InputError, match="a stock pipeline calls a denoiser that holds") as error:
        draw(other)
    assert "\n" not in str(error.value) and "unload_adapter" in str(error.value)
    assert torch.equal(draw(pipe, **ONE), first)
    ours = RiCStableDiffusionPipeline.from_pipe(other)
    ours.set_progress_bar_config(disable=True)
    assert torch.equal(draw(ours, **ONE), first)
    with pipe.without_adapter():
        assert torch.equal(draw(other), draw(stock))
    pipe.set_adapter_scale("default", 0)  # nothing of it is left to be drawn with
    assert torch.equal(draw(other), draw(stock))
    pipe.unload_adapter()
    assert torch.equal(draw(other), draw(stock))


def test_an_adapter_in_training_is_not_drawn_with_either(make_backend, pictures, tmp_path):
    backend = make_backend("text")
    other = StableDiffusionImg2ImgPipeline(**backend.pipe.components, requires_safety_checker=False)
    with pytest.raises(InputError, match="a stock pipeline calls"):
        other("red apple", image=torch.zeros(1, 3, 64, 64), num_inference_steps=2)
    assert len(backend.sample(["red apple"], [{"colorfulness": 1.0}], [0])) == 1


def test_a_stock_pipeline_that_is_given_contexts_draws_the_same(adapters, pipe, draw):
    """As one of another kind may be run: perturbed attention, a community pipeline."""
    pipe.load_adapter(adapters["embedding"])
    states = pipe.encode_context(["red apple", ""], [ONE["targets"], {}]).states
    given = dict(zip(("prompt_embeds", "negative_prompt_embeds"), states.chunk(2), strict=True))
    with pipe.with_adapter():
        other = draw(STRANGERS["components"](pipe), None, guidance_scale=3.0, **given)
    assert torch.allclose(other, draw(pipe, guidance_scale=3.0, **ONE), atol=1e-5)


def test_a_denoiser_may_be_trained_by_others(adapters, pipe):
    """They see the LoRA, and reward tokens only where they say that there are some."""
    pipe.load_adapter(adapters["embedding"])
    context = pipe.encode_context(["red apple"], [ONE["targets"]]).states
    noisy, t = torch.ones(1, pipe.unet.config.in_channels, 8, 8), torch.tensor([500])
    by_hand = pipe.unet(noisy, t, encoder_hidden_states=context).sample
    with pipe.with_adapter():
        read = pipe.unet(noisy, t, encoder_hidden_states=context).sample
    assert by_hand.requires_grad and not torch.allclose(by_hand, read, atol=1e-3)
    with torch.no_grad(), pytest.raises(InputError, match="a stock pipeline calls"):
        pipe.unet(noisy, t, encoder_hidden_states=context)


def test_nothing_of_ours_is_left_open_by_an_error(adapters, pipe, draw):
    pipe.load_adapter(adapters["embedding"])

    def fail(*_):
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        draw(pipe, callback_on_step_end=fail)
    with pytest.raises(InputError, match="a stock pipeline calls"):
        draw(StableDiffusionPipeline(**pipe.components, requires_safety_checker=False))


@pytest.fixture
def toys(monkeypatch, tmp_path, space, stir):
    """Two pipelines of a small transformer, quick to trace, and an adapter for it."""
    monkeypatch.setitem(FAMILIES, "toy", "support.toy_family")
    model = str(toy_family.write(tmp_path / "toy"))
    backend = toy_family.FAMILY.create_backend(model, space, DiffusionConfig())
    stir(backend).save(tmp_path / "adapter")
    pipes = [toy_family.FAMILY.load(model, "cpu", torch.float32) for _ in range(2)]
    yield *pipes, tmp_path / "adapter"
    torch.compiler.reset()


@pytest.mark.parametrize("when", ["loaded first", "loaded after a call", "in place"])
def test_compiled_denoisers(when, toys, draw):
    """Traced as torch.compile does it, and run by Python: what a compiler makes of it is its own
    matter."""
    pipe, uncompiled, adapter = toys
    plain = draw(uncompiled)
    uncompiled.load_adapter(adapter)
    wanted = draw(uncompiled, **ONE)
    if when == "loaded first":
        pipe.load_adapter(adapter)
    if when == "in place":
        pipe.transformer.compile(backend="eager", fullgraph=True)
    else:
        pipe.transformer = torch.compile(pipe.transformer, backend="eager", fullgraph=True)
    if when != "loaded first":
        assert torch.equal(draw(pipe), plain)
        pipe.load_adapter(adapter)
    for targets in ({"colorfulness": 1.5}, {"colorfulness": -1.5}):
        assert torch.equal(draw(pipe, targets=targets), draw(uncompiled, targets=targets))
    pipe.set_adapter_scale("default", 0.5)
    assert not torch.allclose(draw(pipe, **ONE), wanted, atol=1e-3)
    pipe.set_adapter_scale("default", 1)
    assert torch.equal(draw(pipe, **ONE), wanted)
    with pytest.raises(Exception, match="a stock pipeline calls"):
        draw(toy_family.ToyPipeline(**pipe.components))
    pipe.unload_adapter()
    assert torch.equal(draw(pipe), plain)


OFFLOADS = {
    "model": lambda pipe: pipe.enable_model_cpu_offload(device="cpu"),
    "sequential": lambda pipe: accelerate.cpu_offload(pipe.unet, torch.device("cpu")),
    "group": lambda pipe: pipe.unet.enable_group_offload(
        onload_device=torch.device("cpu"), offload_type="leaf_level"
    ),
}


@pytest.mark.parametrize("name", OFFLOADS)
def test_offloaded_denoisers(name, adapters, pipe, draw, stock):
    pipe.load_adapter(adapters["embedding"])
    wanted = draw(pipe, **ONE)
    OFFLOADS[name](pipe)
    assert torch.equal(draw(pipe, **ONE), wanted)
    stranger = StableDiffusionPipeline(**pipe.components, requires_safety_checker=False)
    with pytest.raises(InputError, match="a stock pipeline calls"):
        draw(stranger)
    if name == "sequential":
        with pytest.raises(InputError, match="offload"):
            pipe.set_adapter_scale("default", 0.5)
        assert torch.equal(draw(pipe, **ONE), wanted)
    else:
        pipe.set_adapter_scale("default", 0.5)
        assert not torch.allclose(draw(pipe, **ONE), wanted, atol=1e-3)
        pipe.unload_adapter()
        assert torch.equal(draw(pipe), draw(stock))


def test_a_twin_of_another_door_draws_with_it(adapters, pipe, draw):
    pipe.load_adapter(adapters["embedding"])
    twin = RiCStableDiffusionImg2ImgPipeline.from_pipe(pipe)
    twin.set_progress_bar_config(disable=True)
    given = {"image": torch.zeros(1, 3, 64, 64), "strength": 1.0}
    low, high = (draw(twin, **given, targets={"colorfulness": z}) for z in (-1.5, 1.5))
    assert not torch.allclose(low, high, atol=1e-3)
