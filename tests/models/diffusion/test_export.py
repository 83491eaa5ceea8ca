import copy
import importlib
import json
import re
from types import SimpleNamespace

import pytest
import torch
from diffusers import FluxPipeline, StableDiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file

from ric_diffusion.adapters import export as export_module
from ric_diffusion.adapters.lora import Lora
from ric_diffusion.adapters.modelspec import ModelSpec
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.diffusion.backend import DiffusionBackend, DiffusionConfig, LoraConfig
from ric_diffusion.models.diffusion.families import flux
from ric_diffusion.models.diffusion.families.sd import FAMILY
from ric_diffusion.models.diffusion.family import TEXT_TO_IMAGE
from ric_diffusion.models.diffusion.pipeline import stock_class
from ric_diffusion.models.family import family_named

# Names as kohya's sd-scripts gives them to these layers of any Stable Diffusion.
KNOWN = [
    "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q",
    "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_out_0",
    "lora_unet_mid_block_attentions_0_transformer_blocks_0_ff_net_0_proj",
    "lora_unet_mid_block_attentions_0_transformer_blocks_0_ff_net_2",
    "lora_unet_up_blocks_0_resnets_1_conv1",
    "lora_unet_up_blocks_1_resnets_0_conv2",
]


FORMATS = export_module.FORMATS
# The module of each other family's small model, and the formats that diffusers reads for it. It has
# kohya's layers of FLUX.1 in the true widths alone; tests/comfyui has ComfyUI read the rest.
OTHERS = {"sdxl": FORMATS, "sd3": ("diffusers",), "flux": ("diffusers", "comfyui")}
OTHERS["z_image"] = ("diffusers",)


def export(folder, out, format="kohya", family=FAMILY):
    export_module.export(*family.read_adapter(folder), family.format, out, format)


@pytest.fixture(scope="module", params=["embedding", "text"])
def exported(request, adapters, tmp_path_factory):
    out = tmp_path_factory.mktemp("kohya") / "new" / "sliders.safetensors"
    export(adapters[request.param], out)
    return adapters[request.param], out


def stock_with(model, path):
    pipe = StableDiffusionPipeline.from_pretrained(model, use_safetensors=True)
    pipe.set_progress_bar_config(disable=True)
    pipe.load_lora_weights(path)
    return pipe


def test_names_are_kohyas(exported):
    tensors = load_file(exported[1])
    for name in KNOWN:
        assert {f"{name}.lora_down.weight", f"{name}.lora_up.weight", f"{name}.alpha"} <= set(
            tensors
        )
        assert tensors[f"{name}.lora_down.weight"].shape[0] == 4
        assert tensors[f"{name}.lora_up.weight"].shape[1] == 4
        assert tensors[f"{name}.alpha"].item() == 8
    pattern = r"lora_unet_[a-z0-9_]+\.(lora_down\.weight|lora_up\.weight|alpha)"
    assert all(re.fullmatch(pattern, key) for key in tensors)
    assert len(tensors) % 3 == 0


def test_every_layer_is_there(exported):
    folder, out = exported
    ours = load_file(folder / "pytorch_lora_weights.safetensors")
    assert len(load_file(out)) == len(ours) // 2 * 3
    total = sum(float(v.abs().sum()) for v in ours.values())
    weights = [v for k, v in load_file(out).items() if k.endswith(".weight")]
    assert sum(float(v.abs().sum()) for v in weights) == pytest.approx(total)


def test_diffusers_draws_the_same_images_with_it(exported, model, stock, draw):
    folder, out = exported
    wanted = draw(stock_with(model, folder))
    assert torch.equal(draw(stock_with(model, str(out))), wanted)
    assert not torch.allclose(draw(stock), wanted, atol=1e-2)


@pytest.mark.parametrize("format", FORMATS)
def test_the_file_describes_itself(adapters, tmp_path, format):
    export(adapters["text"], tmp_path / "mine.safetensors", format)
    with safe_open(tmp_path / "mine.safetensors", framework="pt") as file:
        metadata = file.metadata()
    about = (adapters["text"] / "ric_adapter.json").read_text()
    assert json.loads(metadata["ric_adapter"]) == json.loads(about)
    assert metadata["modelspec.title"] == "mine: sliders for colorfulness, compressibility"
    assert metadata["modelspec.architecture"] == "stable-diffusion/lora"  # of no published width
    assert metadata["modelspec.resolution"] == "64x64"
    assert "<colorfulness> -" in metadata["modelspec.usage_hint"]
    assert ("ss_v2" in metadata) == (format != "diffusers")


def test_kohyas_keys_are_those_that_a1111_reads(adapters, model, tmp_path):
    export(adapters["text"], tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        metadata = file.metadata()
    assert {key: text for key, text in metadata.items() if key.startswith("ss_")} == {
        "ss_network_module": "networks.lora",
        "ss_network_dim": "4",
        "ss_network_alpha": "8",
        "ss_base_model_version": "sd_v1_v",
        "ss_v2": "False",
        "ss_sd_model_name": model.name,
    }


@pytest.mark.parametrize(
    ("architecture", "prediction", "known"),
    [
        ("stable-diffusion-v1", "epsilon", ("False", "sd_v1")),
        ("stable-diffusion-v2-512", "epsilon", ("True", "sd_v2")),
        ("stable-diffusion-v2-768-v", "v", ("True", "sd_v2_v")),
    ],
)
def test_stable_diffusion_2_is_told_apart(architecture, prediction, known):
    base = ModelSpec(architecture=architecture, resolution=512, prediction_type=prediction)
    assert tuple(FAMILY.format.kohya.base(base).values()) == known


def pipe_of(scheduler, **config):
    part = SimpleNamespace(config=SimpleNamespace(**config))
    scheduler = SimpleNamespace(config=SimpleNamespace(prediction_type=scheduler))
    return SimpleNamespace(unet=part, transformer=part, scheduler=scheduler)


@pytest.mark.parametrize(
    ("family", "pipe", "architecture"),
    [
        ("stable-diffusion", pipe_of("epsilon", cross_attention_dim=768), "stable-diffusion-v1"),
        (
            "stable-diffusion",
            pipe_of("v_prediction", cross_attention_dim=1024),
            "stable-diffusion-v2-768-v",
        ),
        (
            "stable-diffusion",
            pipe_of("epsilon", cross_attention_dim=1024),
            "stable-diffusion-v2-512",
        ),
        (
            "stable-diffusion-3",
            pipe_of(None, dual_attention_layers=(), qk_norm=None),
            "stable-diffusion-v3-medium",
        ),
        (
            "stable-diffusion-3",
            pipe_of(None, dual_attention_layers=(), qk_norm="rms_norm"),
            "stable-diffusion-v3.5-large",
        ),
        ("flux", pipe_of(None, guidance_embeds=False), "flux-1-schnell"),
    ],
)
def test_base_models_are_told_apart(family, pipe, architecture):
    assert family_named(family).architecture(pipe) == architecture


def test_equal_adapters_give_equal_files(adapters, tmp_path):
    """Where kohya's names are diffusers' with underscores, ComfyUI's are kohya's."""
    for number, format in enumerate(("kohya", "kohya", "comfyui")):
        export(adapters["text"], tmp_path / str(number) / "a.safetensors", format)
    first, *others = (
        (tmp_path / str(number) / "a.safetensors").read_bytes() for number in range(3)
    )
    assert others == [first, first]


@pytest.mark.parametrize("name", OTHERS)
def test_diffusers_draws_the_same_with_every_family(name, space, stir, tmp_path):
    support = importlib.import_module(f"support.{name}")
    family = family_named(
        {"sdxl": "stable-diffusion-xl", "sd3": "stable-diffusion-3"}.get(name, name).replace(
            "_", "-"
        )
    )
    ours, kinds = family.pipelines[TEXT_TO_IMAGE], tuple(family.lora_layers)
    config = DiffusionConfig(mode="text", lora=LoraConfig(rank=4, alpha=8, targets=kinds))
    parts = support.parts()
    stock = stock_class(ours)(**parts)
    stock.set_progress_bar_config(disable=True)
    again = {**parts, family.denoiser: copy.deepcopy(parts[family.denoiser])}
    stir(DiffusionBackend.create(ours(**again), "x", space, config)).save(tmp_path / "a")
    given = {"prompt": "red apple", "num_inference_steps": 1, "height": 64, "width": 64}

    def drawn(file=None):
        if file is not None:
            stock.load_lora_weights(file)
        generator = torch.Generator().manual_seed(0)
        latents = stock(**given, generator=generator, output_type="latent").images
        stock.unload_lora_weights()
        return latents

    wanted = drawn(tmp_path / "a")
    assert not torch.allclose(drawn(), wanted, atol=1e-2)
    for format in OTHERS[name]:
        file = tmp_path / f"{format}.safetensors"
        export(tmp_path / "a", file, format, family)
        assert torch.allclose(drawn(str(file)), wanted, atol=1e-4), format


def test_kohyas_names_of_flux_come_back_in_the_true_widths():
    """diffusers takes joined layers apart again."""
    wide, layers = 3072, flux.FAMILY.format.kohya.layers
    modules = [part.format(0) for parts in layers.values() for part in parts]
    inputs, outputs = {"proj_out": 5 * wide, "ff.net.2": 4 * wide, "ff_context.net.2": 4 * wide}, {}
    outputs |= {"proj_mlp": 4 * wide, "ff.net.0.proj": 4 * wide, "ff_context.net.0.proj": 4 * wide}
    outputs |= {"norm1.linear": 6 * wide, "norm1_context.linear": 6 * wide, "norm.linear": 3 * wide}
    tensors, generator = {}, torch.Generator().manual_seed(0)
    for module in modules:
        short = module.partition(".0.")[2]
        down = torch.randn(2, inputs.get(short, wide), generator=generator)
        up = torch.randn(outputs.get(short, wide), 2, generator=generator)
        tensors |= {f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up}
    lora = Lora(tensors=tensors, config={"r": 2, "lora_alpha": 4.0})
    found = FluxPipeline.lora_state_dict(flux.FAMILY.format.kohya.state(lora))
    assert found.keys() == {f"transformer.{key}" for key in tensors}
    for module in modules:
        down, up = (found[f"transformer.{module}.lora_{half}.weight"] for half in "AB")
        some = slice(None, None, 512)  # of what would be half a gigabyte
        wanted = (
            lora.scale
            * tensors[f"{module}.lora_B.weight"]
            @ tensors[f"{module}.lora_A.weight"][:, some]
        )
        assert torch.allclose(up @ down[:, some], wanted, atol=1e-4), module


def test_what_cannot_be_exported_is_refused(adapters, tmp_path):
    with pytest.raises(InputError, match=r"must end in \.safetensors"):
        export(adapters["text"], tmp_path / "x.ckpt")
    with pytest.raises(InputError, match="not an adapter folder"):
        export(tmp_path, tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []
