"""Stable Diffusion 1.5 and 2.1: fewer layers, but their widths, shapes, tokens and schedulers."""

import shutil

import numpy as np
import pytest
import torch
from accelerate import init_empty_weights
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from peft.utils import get_peft_model_state_dict
from transformers import CLIPTextConfig, CLIPTextModel

from ric_diffusion import RiCStableDiffusionPipeline
from ric_diffusion.adapters import lora
from ric_diffusion.adapters.lora import Lora
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.diffusion.backend import (
    DiffusionConfig,
    LoraConfig,
    _add_lora,
)
from ric_diffusion.models.diffusion.families.sd import FAMILY, UNET_LAYERS
from ric_diffusion.models.protocol import Batch
from scratch import clip_bpe, clip_tokenizer

# From runwayml/stable-diffusion-v1-5 and stabilityai/stable-diffusion-2-1, unet/config.json.
FULL = {
    "sample_size": 64,
    "down_block_types": (*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
}
KINDS = {
    "sd15": {"cross_attention_dim": 768, "attention_head_dim": 8},
    "sd21": {
        "cross_attention_dim": 1024,
        "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True,
    },
}
TEXT = {
    "sd15": {"hidden_size": 768, "num_attention_heads": 12, "hidden_act": "quick_gelu"},
    "sd21": {"hidden_size": 1024, "num_attention_heads": 16, "hidden_act": "gelu"},
}
BETAS = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "steps_offset": 1,
    "set_alpha_to_one": False,
}


def unet_settings(kind):
    heads = KINDS[kind]["attention_head_dim"]
    return (
        FULL
        | KINDS[kind]
        | {
            "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
            "block_out_channels": (320, 640),
            "layers_per_block": 1,
            "attention_head_dim": heads if isinstance(heads, int) else heads[:2],
        }
    )


@pytest.fixture(scope="module", params=["sd15", "sd21"])
def real(request, tmp_path_factory):
    """(kind, folder) of a stock pipeline folder."""
    kind = request.param
    folder = tmp_path_factory.mktemp(kind)
    torch.manual_seed(0)
    tokenizer = clip_tokenizer(*clip_bpe(), 77)
    if kind == "sd21":
        tokenizer.pad_token = "!"
        scheduler = DDIMScheduler(prediction_type="v_prediction", clip_sample=False, **BETAS)
    else:
        scheduler = PNDMScheduler(skip_prk_steps=True, **BETAS)
    text = CLIPTextConfig(
        vocab_size=49408,
        max_position_embeddings=77,
        num_hidden_layers=1,
        intermediate_size=256,
        bos_token_id=49406,
        eos_token_id=49407,
        **TEXT[kind],
    )
    vae = AutoencoderKL(
        block_out_channels=(32, 32, 32, 32),
        layers_per_block=1,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        sample_size=512,
    )
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(**unet_settings(kind)),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    yield kind, folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("mode", ["embedding", "text"])
def test_train_save_load_and_draw(real, mode, space, pictures, tmp_path):
    kind, folder = real
    pixels, records = pictures
    config = DiffusionConfig(
        mode=mode,
        lora=LoraConfig(rank=4, alpha=8, targets=("attention", "feed_forward", "convolution")),
        min_snr_gamma=5.0,
        resolution=64,
        sampling={"guidance_scale": 4.0, "num_inference_steps": 1, "height": 64, "width": 64},
    )
    backend = FAMILY.create_backend(str(folder), space, config)
    backend.prepare(records[:2], pixels, tmp_path / "cache")
    optimizer = torch.optim.AdamW(backend.named_parameters().values(), lr=1e-2)
    batch = Batch(indices=(0, 1), generator=torch.Generator().manual_seed(0))
    loss = backend.loss(batch)
    loss.backward()
    optimizer.step()
    assert loss.isfinite() and len(list(backend.named_parameters().values())) > 50
    backend.save(tmp_path / "adapter")
    targets = [{"colorfulness": 1.5}]
    (wanted,) = backend.sample(["a red apple"], targets, [0])
    del backend, optimizer

    pipe = RiCStableDiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_adapter(tmp_path / "adapter")
    width = KINDS[kind]["cross_attention_dim"]
    long = pipe.encode_context(["a red apple, " * 60], targets).states
    assert long.shape == (1, 77 + (2 if mode == "embedding" else 0), width)

    def draw(targets, **given):
        generator = torch.Generator().manual_seed(0)
        return pipe("a red apple", targets=targets, generator=generator, **given)

    found = draw(targets[0], **pipe.adapter.sampling)
    assert np.abs(np.asarray(found.images[0], int) - np.asarray(wanted, int)).max() <= 2
    given = {"height": 64, "width": 128, "num_inference_steps": 1, "output_type": "latent"}
    low, high = (draw({"colorfulness": z}, **given).images for z in (-1.5, 1.5))
    assert low.shape == (1, 4, 8, 16) and low.isfinite().all()
    assert not torch.equal(low, high)


@pytest.fixture(scope="module")
def full_size():
    """U-Nets of full size by kind, without memory for their weights."""
    with init_empty_weights():
        return {kind: UNet2DConditionModel(**FULL, **KINDS[kind]) for kind in KINDS}


def empty_lora(unet, targets):
    """LoRA as peft makes it for a U-Net, shapes alone; the U-Net is plain again afterwards."""
    _add_lora(unet, LoraConfig(rank=16, alpha=16, targets=targets), UNET_LAYERS)
    config = unet.peft_config["ric"].to_dict()
    tensors = get_peft_model_state_dict(unet, adapter_name="ric")
    unet.unload_lora()
    return Lora(tensors=tensors, config=config)


def ending(unet, name):
    return {module for module, _ in unet.named_modules() if module.endswith(f".{name}")}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_layer_of_the_full_unet_is_found(full_size, kind):
    """16 transformer blocks of two attentions each; 22 residual blocks of two convolutions.

    Neither model pools its context, so of the modulation only the blocks' own layers are there.
    """
    counts = {"attention": 16 * 2 * 4, "feed_forward": 16 * 2, "convolution": 22 * 2}
    counts["modulation"] = 22
    unet = full_size[kind]
    for name, count in counts.items():
        modules = set(empty_lora(unet, (name,)).modules)
        assert len(modules) == count
        layers = [layer for layer in UNET_LAYERS[name] if not layer.startswith("pool.")]
        for layer in layers:
            assert ending(unet, layer) <= modules
            assert len(ending(unet, layer)) == count / len(layers)


@pytest.mark.parametrize("kind", KINDS)
def test_the_fit_is_checked_layer_by_layer(full_size, kind):
    other = next(name for name in KINDS if name != kind)
    weights = empty_lora(full_size[kind], tuple(UNET_LAYERS))
    assert all(tensor.is_meta for tensor in weights.tensors.values())
    lora.check_fit(full_size[kind], weights)
    with pytest.raises(InputError, match=r"attn2\.to_k is .* another architecture") as error:
        lora.check_fit(full_size[other], weights)
    assert "\n" not in str(error.value)
