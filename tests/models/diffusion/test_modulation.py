"""Reward tokens shift the time embedding: of the adapter's own U-Net, while it is loaded."""

import copy

import pytest
import torch
from safetensors.torch import load_file

from ric_diffusion import RiCStableDiffusionImg2ImgPipeline, RiCStableDiffusionPipeline
from ric_diffusion.adapters.adapter import ENCODER_FILE
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.diffusion.backend import DiffusionBackend
from ric_diffusion.models.diffusion.families.sd import FAMILY


@pytest.fixture
def backend(make_backend) -> DiffusionBackend:
    """With a shift that is not nothing, as after training; LoRA still does nothing."""
    backend = make_backend("embedding")
    torch.manual_seed(0)
    torch.nn.init.normal_(backend.adapter.encoder.to_time.weight, std=0.1)
    return backend


def denoised(pipe, context, unet=None):
    unet = unet or pipe.unet
    torch.manual_seed(1)
    with torch.no_grad(), pipe.with_adapter():
        return unet(torch.randn(2, unet.config.in_channels, 8, 8), 500, context).sample


def test_the_time_embedding_is_shifted_by_what_the_tokens_say(backend):
    unet, encoder = backend.pipe.unet, backend.adapter.encoder
    context = backend.context(["red apple"] * 2, [{"colorfulness": 2.0}, {}]).states
    seen = []
    hook = unet.time_embedding.register_forward_hook(lambda _m, _i, out: seen.append(out))
    denoised(backend.pipe, context)
    backend.pipe.adapter = None
    denoised(backend.pipe, context)
    hook.remove()
    assert torch.allclose(seen[0] - seen[1], encoder.time_shift(context), atol=1e-5)
    assert not torch.allclose(seen[0][0], seen[0][1], atol=0.1)


def test_the_context_may_be_given_by_name_or_by_place(backend):
    unet = backend.pipe.unet
    context = backend.context(["red apple"] * 2, [{"colorfulness": 2.0}, {}]).states
    torch.manual_seed(1)
    noise = torch.randn(2, unet.config.in_channels, 8, 8)
    with torch.no_grad(), backend.pipe.with_adapter():
        named = unet(noise, 500, encoder_hidden_states=context).sample
    assert torch.equal(named, denoised(backend.pipe, context))


def test_a_fresh_shift_changes_nothing_and_learns(make_backend):
    backend = make_backend("embedding")
    context = backend.context(["red apple"] * 2, [{"colorfulness": 2.0}, {}]).states
    fresh = denoised(backend.pipe, context)
    weight = backend.adapter.encoder.to_time.weight
    noise = torch.randn(2, backend.pipe.unet.config.in_channels, 8, 8)
    with backend.pipe.with_adapter():
        backend.pipe.unet(noise, 500, context).sample.square().sum().backward()
    assert weight.grad is not None and weight.grad.abs().max() > 0
    assert any(p is weight for p in backend.named_parameters().values())
    backend.pipe.adapter = None
    assert torch.equal(denoised(backend.pipe, context), fresh)


@pytest.mark.parametrize("inference", [False, True])
def test_a_context_that_is_changed_in_place_has_another_shift(backend, inference):
    """As a callback of the pipeline may do it, which in the app runs in inference mode."""
    context = backend.context(["red apple"] * 2, [{"colorfulness": 2.0}, {}]).states
    wanted = denoised(backend.pipe, context.flip(0))
    with torch.inference_mode(inference):
        context = context.clone()
        before = denoised(backend.pipe, context)
        context.copy_(context.flip(0))
        assert torch.equal(denoised(backend.pipe, context), wanted)
    assert not torch.equal(before, wanted)


def test_the_shift_is_of_one_pass(backend):
    """A ControlNet may have the layer in it too, and was trained without rewards."""
    layer = backend.pipe.unet.time_embedding
    width = backend.pipe.unet.config.block_out_channels[0]
    with torch.no_grad():
        alone = layer(torch.ones(2, width))
        denoised(backend.pipe, backend.context(["red"] * 2, [{"colorfulness": 2.0}, {}]).states)
        assert torch.equal(layer(torch.ones(2, width)), alone)


def test_without_modulation_only_the_context_speaks(make_backend):
    backend = make_backend("embedding", modulation=False)
    assert backend.adapter.encoder.time_width == 0
    assert not backend.pipe.unet.time_embedding._forward_hooks


def test_saved_loaded_and_taken_out_again(backend, model, tmp_path):
    backend.save(tmp_path / "adapter")
    assert "to_time.weight" in load_file(tmp_path / "adapter" / ENCODER_FILE)
    pipe = RiCStableDiffusionPipeline.from_pretrained(model)
    context = backend.context(["red apple"] * 2, [{"colorfulness": 2.0}, {}]).states
    plain = denoised(pipe, context)
    for _ in range(2):  # the second replaces the first
        pipe.load_adapter(tmp_path / "adapter")
        assert len(pipe.unet.time_embedding._forward_hooks) == 1
    backend.pipe.unet.eval()
    assert torch.allclose(denoised(pipe, context), denoised(backend.pipe, context), atol=1e-4)
    assert not torch.allclose(denoised(pipe, context), plain, atol=1e-2)
    pipe.unload_adapter()
    assert torch.equal(denoised(pipe, context), plain)
    assert not pipe.unet._forward_pre_hooks and not pipe.unet.time_embedding._forward_hooks


def test_pipelines_that_share_a_unet_share_the_shift(backend, model, tmp_path):
    backend.save(tmp_path / "adapter")
    pipe = RiCStableDiffusionPipeline.from_pretrained(model)
    pipe.load_adapter(tmp_path / "adapter")
    other = RiCStableDiffusionImg2ImgPipeline.from_pipe(pipe)
    assert len(other.unet.time_embedding._forward_hooks) == 1
    other.unload_adapter()
    assert not pipe.unet._forward_pre_hooks and pipe.adapter is None


def test_a_copy_of_the_unet_reads_its_own_context(backend):
    """Exponential averages and evaluation copy models with all their hooks."""
    context = backend.context(["red apple"] * 2, [{"colorfulness": 2.0}, {}]).states
    twin = copy.deepcopy(backend.pipe.unet)
    expected = denoised(backend.pipe, context)
    assert torch.equal(denoised(backend.pipe, context, twin), expected)
    assert not torch.equal(denoised(backend.pipe, context.flip(0), twin), expected)


def test_a_time_embedding_of_another_width_is_refused(backend, make_parts, tmp_path):
    backend.adapter.encoder.time_width = FAMILY.modulated_width(backend.pipe.unet) + 64
    backend.adapter.encoder.to_time = torch.nn.Linear(2 * 32, backend.adapter.encoder.time_width)
    backend.save(tmp_path / "adapter")
    pipe = RiCStableDiffusionPipeline(**make_parts())
    with pytest.raises(InputError, match=r"shifts a time embedding \d+ wide, this model has"):
        pipe.load_adapter(tmp_path / "adapter")
    assert pipe.adapter is None
