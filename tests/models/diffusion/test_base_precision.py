"""Training on frozen weights in half precision, or quantised: what is kept in what, and that all a
backend does works with it."""

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from diffusers.quantizers.bitsandbytes import bnb_quantizer
from diffusers.quantizers.quantization_config import BitsAndBytesConfig
from safetensors.torch import load_file

from ric_diffusion import RiCPipeline
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.diffusion import family as families
from ric_diffusion.models.diffusion.backend import DiffusionConfig, LoraConfig
from ric_diffusion.models.family import family_named
from ric_diffusion.models.protocol import Batch
from ric_diffusion.training.loop import LoopConfig
from ric_diffusion.training.trainer import Trainer
from support import flux, sd3, sdxl, z_image

TARGETS = [{"colorfulness": 1.5}, {"compressibility": -1.0}]
SMALL = {"stable-diffusion-xl": sdxl, "stable-diffusion-3": sd3, "flux": flux, "z-image": z_image}
FAMILIES = ("stable-diffusion", *SMALL)
CONFIG = DiffusionConfig(
    base_precision="bf16",
    lora=LoraConfig(rank=4, alpha=8, targets=("attention", "feed_forward")),
    sampling={"num_inference_steps": 2, "height": 64, "width": 64},
    resolution=64,
)


@pytest.fixture(scope="module")
def folders(model, tmp_path_factory):
    """A small model of each family."""
    root = tmp_path_factory.mktemp("models")
    made = {name: support.write(root / name) for name, support in SMALL.items()}
    return {"stable-diffusion": model, **made}


@pytest.fixture(scope="module")
def create(folders, space, pictures, tmp_path_factory):
    """A backend by family and settings, ready to train on the pictures."""
    cache = tmp_path_factory.mktemp("cache")
    folder, records = pictures

    def make(family, device="cpu", **changes):
        backend = family_named(family).create_backend(
            str(folders[family]), space, replace(CONFIG, **changes), device=device
        )
        backend.prepare(records, folder, cache)
        return backend

    return make


def batch():
    return Batch(indices=(0, 1, 2), generator=torch.Generator().manual_seed(0))


def loss_of(backend):
    with torch.autocast("cpu", torch.bfloat16):
        return backend.loss(batch())


def snapshot(backend):
    return {name: p.detach().clone() for name, p in backend.named_parameters().items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_base_stays_in_half_and_what_learns_is_full(create, family):
    backend = create(family)
    learned = backend.named_parameters()
    assert {p.dtype for p in learned.values()} == {torch.float32}
    network = backend.network()
    frozen = {n: p for n, p in network.named_parameters() if not p.requires_grad}
    assert {p.dtype for p in frozen.values()} == {torch.bfloat16}
    for part in family_named(family).parts[:-1]:
        assert getattr(backend.pipe, part).dtype == torch.bfloat16, part
    loss = loss_of(backend)
    loss.backward()
    assert loss.dtype == torch.float32
    with torch.no_grad():
        exact = create(family, base_precision="fp32").loss(batch())
    assert loss.item() == pytest.approx(exact.item(), rel=0.03)
    for name, p in learned.items():
        assert p.grad is not None and p.grad.isfinite().all(), name
    assert all(learned[name].grad.abs().sum() > 0 for name in learned if "to_time" in name)
    assert sum(learned[n].grad.abs().sum() > 0 for n in learned if "lora_B" in n) > 10


@pytest.mark.parametrize("family", ["stable-diffusion", "stable-diffusion-3"])
def test_a_run_in_half_is_saved_loaded_and_drawn(create, folders, family, tmp_path):
    backend = create(family)
    begun = snapshot(backend)
    loop = LoopConfig(steps=2, batch_size=3, learning_rate=1e-2, precision="bf16", ema=0.0)
    Trainer(backend, 12, loop, tmp_path / "run", digest="x").run()
    assert any(not torch.equal(p, begun[name]) for name, p in snapshot(backend).items())
    backend.save(tmp_path / "adapter")
    for file in (tmp_path / "adapter").glob("*.safetensors"):
        assert {tensor.dtype for tensor in load_file(file).values()} == {torch.float32}

    again = create(family)
    again.load(tmp_path / "adapter")
    ours, theirs = snapshot(backend), snapshot(again)
    assert all(torch.equal(p, theirs[name]) for name, p in ours.items())
    assert torch.equal(loss_of(again), loss_of(backend))

    drawn = backend.sample(["red apple", "blue car"], TARGETS, [0, 1])
    pipe = RiCPipeline.from_pretrained(folders[family], dtype=torch.bfloat16)
    pipe.load_adapter(tmp_path / "adapter")
    pipe.set_progress_bar_config(disable=True)
    merged = family_named(family).sampler(pipe).sample(["red apple", "blue car"], TARGETS, [0, 1])
    for one, other in zip(drawn, merged, strict=True):
        # Added to weights in half precision, an update is rounded with them.
        assert np.abs(np.asarray(one, int) - np.asarray(other, int)).mean() < 8

    features = backend.features(drawn)
    assert features.dtype == np.float32 and np.isfinite(features).all()
    assert np.isfinite(backend.prompt_r_precision(["red apple", "blue car"], drawn)).all()


def test_by_default_a_cpu_keeps_full_precision(create):
    backend = create("stable-diffusion", base_precision="auto")
    assert {p.dtype for p in backend.network().parameters()} == {torch.float32}
    assert backend.pipe.family.resolved(backend.config, "bf16", "cpu") == (
        replace(backend.config, base_precision="fp32"),
        "bf16",
    )


@pytest.mark.parametrize(
    ("family", "precision"),
    [("stable-diffusion", "fp32"), *((family, "bf16") for family in SMALL)],
)
def test_checkpointing_changes_no_bit(create, family, precision, stir):
    """What is computed again sees the same shift of the time embedding."""
    found = []
    for checkpointing in (False, True):
        settings = {"base_precision": precision, "gradient_checkpointing": checkpointing}
        backend = stir(create(family, **settings))
        assert backend.network().is_gradient_checkpointing == checkpointing
        assert backend.adapter.encoder.time_width > 0
        loss = backend.loss(batch()) if precision == "fp32" else loss_of(backend)
        loss.backward()
        assert backend.adapter.encoder.to_time.weight.grad.abs().sum() > 0
        found.append([loss, *(p.grad for p in backend.named_parameters().values())])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize(("precision", "bits"), [("int8", 8), ("nf4", 4)])
def test_only_the_denoiser_is_quantised(precision, bits):
    if bits == 4 and find_spec("bitsandbytes") is None:
        pytest.skip("its settings ask for the release of bitsandbytes")
    mapping = families.quantization("unet", precision, torch.bfloat16).quant_mapping
    [(part, config)] = mapping.items()
    assert part == "unet" and isinstance(config, BitsAndBytesConfig)
    assert (config.load_in_8bit, config.load_in_4bit) == (bits == 8, bits == 4)
    if bits == 4:
        assert config.bnb_4bit_quant_type == "nf4"
        assert config.bnb_4bit_compute_dtype == torch.bfloat16


def test_quantised_weights_take_no_adapter(pipe, adapters, watch):
    pipe.unet.is_quantized = True  # as diffusers marks them
    unchanged = watch(pipe.unet)
    with pytest.raises(InputError, match="weights are quantised") as error:
        pipe.load_adapter(adapters["embedding"])
    assert unchanged() and pipe.adapter is None and "\n" not in str(error.value)


def test_a_single_file_is_not_quantised(space, monkeypatch):
    given = ("int8", "bf16")
    monkeypatch.setattr(families, "resolve_base_precision", lambda *asked: given)
    with pytest.raises(
        InputError, match=r"int8 is read from folders .* x\.safetensors is one file"
    ):
        family_named("flux").create_backend("x.safetensors", space, CONFIG)


@pytest.fixture
def gpu_or_not(monkeypatch):
    """The device to quantise on. bitsandbytes computes on CPUs too; what refuses that is diffusers
    and ours, since it is slow."""
    if torch.cuda.is_available():
        return "cuda"
    for quantizer in (
        bnb_quantizer.BnB4BitDiffusersQuantizer,
        bnb_quantizer.BnB8BitDiffusersQuantizer,
    ):
        monkeypatch.setattr(quantizer, "validate_environment", lambda *args, **kwargs: None)
        monkeypatch.setattr(quantizer, "update_device_map", lambda self, devices: devices)
    monkeypatch.setattr(
        families, "resolve_base_precision", lambda asked, passes, device: (asked, "bf16")
    )
    return "cpu"


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs the extra quantized")
@pytest.mark.parametrize("precision", ["int8", "nf4"])
def test_a_quantised_base_trains(create, precision, gpu_or_not, tmp_path):
    backend = create("stable-diffusion-3", gpu_or_not, base_precision=precision)
    attention = backend.network().transformer_blocks[0].attn.to_q
    assert not attention.base_layer.weight.is_floating_point()
    assert backend.pipe.text_encoder.dtype == torch.bfloat16
    loop = LoopConfig(steps=2, batch_size=3, learning_rate=1e-2, precision="bf16", ema=0.0)
    Trainer(backend, 12, loop, tmp_path / "run", digest="x").run()
    backend.save(tmp_path / "adapter")
    again = create("stable-diffusion-3", gpu_or_not, base_precision=precision)
    again.load(tmp_path / "adapter")
    ours, theirs = snapshot(backend), snapshot(again)
    assert all(torch.equal(p, theirs[name]) for name, p in ours.items())
    assert backend.pipe.family.digests(again.pipe) == backend.pipe.family.digests(backend.pipe)
    if precision == "int8" or gpu_or_not == "cuda":  # on CPUs it wants layers of 64 and more
        [picture] = backend.sample(["red apple"], TARGETS[:1], [0])
        assert np.asarray(picture).std() > 0
    with pytest.raises(InputError, match="weights are quantised"):
        again.pipe.load_adapter(tmp_path / "adapter")
