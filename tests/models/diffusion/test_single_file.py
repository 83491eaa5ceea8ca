"""Checkpoints in one file, as people exchange them, give what their folders give; variants and
precisions of folders. The hub is out of reach: what is fetched fails."""

import shutil

import huggingface_hub
import pytest
import torch
from diffusers import StableDiffusionInpaintPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file

import ric_diffusion
from ric_diffusion import RiCPipeline, api
from ric_diffusion.api import Checkpoint
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.tensors import StoredTensor
from ric_diffusion.models import hardware
from ric_diffusion.models.checkpoint import Header, local_file
from ric_diffusion.models.diffusion.families.sd import FAMILY
from ric_diffusion.models.diffusion.pipeline import stock_class
from ric_diffusion.models.family import Source, family_claiming, family_of
from support import ldm, sdxl
from support import model as small

UNET = "model.diffusion_model."
SD = {f"{UNET}input_blocks.0.0.weight": (32, 4, 3, 3)}
SDXL = {
    **SD,
    f"{UNET}label_emb.0.0.weight": (32, 32),
    "conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias": (48,),
}
JOINT = f"{UNET}joint_blocks."
FLUX = {"double_blocks.0.img_attn.norm.key_norm.scale": (8,)}
SD3 = {f"{JOINT}0.context_block.adaLN_modulation.1.bias": (9216,)}


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def sd(root, stock):
    return ldm.write(root / "sd.safetensors", stock.components)


@pytest.fixture(scope="module")
def xl(root):
    """A file and its folder. Ten layers: it is told by the last."""
    parts = sdxl.parts(layers=10)
    sdxl.StableDiffusionXLPipeline(**parts).save_pretrained(root / "xl")
    return ldm.write(root / "xl.safetensors", parts, xl=True), root / "xl"


def single_file(file, config, **more):
    pipe = RiCPipeline.from_single_file(file, config=config, **more)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("kind", ["sd", "xl"])
def test_it_draws_what_the_folder_draws(kind, sd, xl, model, draw):
    file, folder = xl if kind == "xl" else (sd, model)
    pipe = single_file(file, folder)
    cls = pipe.family.pipelines["text-to-image"]
    assert type(pipe) is cls and pipe.adapter is None and pipe.name_or_path == str(file)
    theirs = stock_class(cls).from_pretrained(folder, use_safetensors=True)
    theirs.set_progress_bar_config(disable=True)
    ours, its = pipe.denoiser.state_dict(), theirs.unet.state_dict()
    assert ours.keys() == its.keys()
    assert all(torch.equal(tensor, its[key]) for key, tensor in ours.items())
    # Where a file's tensors begin in memory decides how MKL rounds.
    assert torch.allclose(draw(pipe), draw(theirs), atol=1e-4)


def test_adapters_load_on_it(sd, model, pipe, adapters, draw):
    ours = single_file(sd, model)
    plain = draw(ours)
    for loaded in (pipe, ours):
        loaded.load_adapter(adapters["embedding"])
    targets = {"colorfulness": 2.0}
    assert torch.equal(draw(ours, targets=targets), draw(pipe, targets=targets))
    assert not torch.equal(draw(ours, targets=targets), plain)


def test_it_is_trained_like_the_folder(sd, model, space, make_backend):
    checkpoint = Checkpoint(model=sd, base_config=model)
    backend = FAMILY.create_backend(checkpoint, space, make_backend().config)
    assert backend.adapter.base_model == str(sd)
    assert FAMILY.digests(backend.model) == FAMILY.digests(make_backend().model)


def test_one_for_inpainting_has_its_door(root, stock):
    unet = UNet2DConditionModel(**small.UNET | {"in_channels": 9}).eval()
    parts = {**stock.components, "unet": unet}
    made = StableDiffusionInpaintPipeline(**parts, requires_safety_checker=False)
    made.save_pretrained(root / "inpainting")
    file = ldm.write(root / "inpainting.safetensors", parts)
    pipe = single_file(file, root / "inpainting")
    assert type(pipe) is ric_diffusion.RiCStableDiffusionInpaintPipeline
    with pytest.raises(InputError, match="reads 9 channels where latents have 4"):
        api.load(Checkpoint(model=file, base_config=root / "inpainting"))


def test_what_it_lacks_comes_from_the_folder_of_its_config(root, sd, model, stock, draw, bare):
    file = root / "unet.safetensors"
    save_file({key: t for key, t in load_file(sd).items() if key.startswith(UNET)}, file)
    assert torch.equal(draw(single_file(file, model)), draw(stock))
    with pytest.raises(InputError, match=r"unet\.safetensors: holds no vae, and .*bare is no fold"):
        single_file(file, bare)
    with pytest.raises(InputError, match="holds no text_encoder, and"):
        single_file(file, bare, vae=stock.vae)


@pytest.fixture(scope="module")
def bare(root, model):
    """Configs and tokenizers alone."""
    ignored = shutil.ignore_patterns("*.safetensors")
    return shutil.copytree(model, root / "bare", ignore=ignored)


def test_a_config_without_weights_is_enough(sd, bare, stock, draw):
    assert torch.equal(draw(single_file(sd, bare)), draw(stock))


def test_other_configs_are_refused(root, sd, xl, model):
    with pytest.raises(InputError, match="is of Stable Diffusion XL; give a config of its own"):
        single_file(sd, xl[1])
    for key, said in (
        (f"{UNET}out.2.bias", "some of their weights are missing"),
        ("cond_stage_model.transformer.text_model.final_layer_norm.bias",
         r"final_layer_norm\.bias of text_encoder is missing"),
    ):  # fmt: skip
        tensors = load_file(sd)
        del tensors[key]
        save_file(tensors, root / "gap.safetensors")
        with pytest.raises(InputError, match=rf"gap\.safetensors: does not fit the .*{said}"):
            single_file(root / "gap.safetensors", model)
    wide = {k: t.repeat(2, 1) if "token_emb" in k else t for k, t in load_file(sd).items()}
    save_file(wide, root / "wide.safetensors")
    with pytest.raises(InputError, match=r"does not fit the configs of .*token_embedding\.weight"):
        single_file(root / "wide.safetensors", model)


@pytest.mark.parametrize(
    ("kind", "shapes", "family"),
    [
        ("v1", SD, "stable-diffusion"),
        ("v2", {f"{UNET}input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight": (320, 1024)},
         "stable-diffusion"),
        ("inpainting", {f"{UNET}input_blocks.0.0.weight": (32, 9, 3, 3)}, "stable-diffusion"),
        ("xl_base", SDXL, "stable-diffusion-xl"),
        ("xl_inpaint", SDXL | {f"{UNET}input_blocks.0.0.weight": (32, 9, 3, 3)},
         "stable-diffusion-xl"),
        ("sd3", SD3 | {f"{UNET}pos_embed": (1, 36864, 1)}, "stable-diffusion-3"),
        ("sd35_medium", SD3 | {f"{UNET}pos_embed": (1, 147456, 1)}, "stable-diffusion-3"),
        ("flux-schnell", FLUX, "flux"),
        ("z-image-turbo", {"layers.0.adaLN_modulation.0.weight": (8, 8)}, "z-image"),
        ("flux-dev", FLUX | {"guidance_in.in_layer.bias": (8,), "img_in.weight": (8, 64)}, "flux"),
        ("sd35_large", {f"{JOINT}37.x_block.mlp.fc1.weight": (8, 8)}, "stable-diffusion-3"),
    ],
)  # fmt: skip
def test_the_family_is_in_its_keys(kind, shapes, family):
    header = header_of(shapes)
    assert header.type == kind
    assert family_claiming(Source(name="x.safetensors", header=header)).name == family


@pytest.mark.parametrize(
    ("said", "shapes"),
    [
        ("it is of no model family known here; they are Stable Diffusion 1", {"a": (1,)}),
        ("it is of no", {f"{UNET}label_emb.0.0.weight": (32, 32), **SD}),  # XL's U-Net alone
        ("it is of no", SD3 | {f"{UNET}pos_embed": (1, 4, 1)}),  # no size that diffusers knows
        ("flux-fill is of no model family known here",
         FLUX | {"guidance_in.in_layer.bias": (8,), "img_in.weight": (8, 384)}),
        ("hunyuan-video is of no model family known here",
         {"txt_in.individual_token_refiner.blocks.0.adaLN_modulation.1.bias": (1,)}),
        ("the refiner of Stable Diffusion XL, which only finishes pictures",
         {"conditioner.embedders.0.model.transformer.resblocks.9.mlp.c_proj.bias": (1,)}),
    ],
)  # fmt: skip
def test_other_files_are_refused(said, shapes):
    with pytest.raises(InputError, match=said) as error:
        family_claiming(Source(name="x.safetensors", header=header_of(shapes)))
    assert str(error.value).startswith("x.safetensors: ") and "\n" not in str(error.value)


def header_of(shapes, dtype="F32"):
    return Header({key: StoredTensor(shape, dtype) for key, shape in shapes.items()})


def test_what_is_no_checkpoint_is_one_line(tmp_path, sd, adapters, model):
    def refused(said, file, config=model):
        with pytest.raises(InputError, match=said) as error:
            RiCPipeline.from_single_file(file, config=config)
        assert "\n" not in str(error.value)

    content = sd.read_bytes()
    for name, part in ("torn", content[: len(content) // 2]), ("head", content[:50]), ("no", b""):
        (tmp_path / f"{name}.safetensors").write_bytes(part)
        refused(rf"{name}\.safetensors: not a whole .*download", tmp_path / f"{name}.safetensors")
    refused("a LoRA, not a checkpoint", adapters["text"] / "pytorch_lora_weights.safetensors")
    refused(r"gone\.safetensors: no such file", tmp_path / "gone.safetensors")
    for suffix in ("ckpt", "pt", "pth", "bin"):
        (tmp_path / f"x.{suffix}").write_bytes(b"\x80\x04cos\nsystem\n")
        refused("a pickle.* --dump_path FOLDER --to_safetensors", tmp_path / f"x.{suffix}")
    refused(
        "config: .*sd.safetensors holds weights alone; .*usually stable-diffusion-v1-5/", sd, None
    )
    refused("holds no model_index.json", sd, tmp_path)
    refused("the hub cannot be reached", "https://huggingface.co/a/b/blob/main/x.safetensors")
    refused("a pickle", "https://huggingface.co/a/b/blob/main/x.ckpt")


def test_each_way_of_loading_names_the_other(sd, model):
    with pytest.raises(InputError, match=r"a single file; from_single_file\(…, config=…\) loads"):
        RiCPipeline.from_pretrained(sd)
    with pytest.raises(InputError, match=r"RiCPipeline\.from_single_file finds its class"):
        ric_diffusion.RiCStableDiffusionXLPipeline.from_single_file(sd, config=model)


def test_an_address_on_the_hub_is_a_file(monkeypatch, tmp_path):
    asked = []

    def download(repository, file, **hub):
        asked.append((repository, file, hub))
        return tmp_path / file

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    base = "https://huggingface.co/some/model"
    assert local_file(f"{base}/blob/v2/a/x.safetensors?download=true") == tmp_path / "a" / (
        "x.safetensors"
    )
    assert local_file(f"{base}/resolve/main/x.safetensors", revision="v1", token="t")
    assert local_file(f"{base}/x.safetensors", revision="v1")
    assert asked == [
        ("some/model", "a/x.safetensors", {"revision": "v2"}),
        ("some/model", "x.safetensors", {"revision": "main", "token": "t"}),
        ("some/model", "x.safetensors", {"revision": "v1"}),
    ]
    assert Checkpoint(model=f"{base}/blob/v2/a/x.safetensors?download=true").is_file


# Beside files: variants and precisions of folders.


@pytest.fixture(scope="module")
def half(root, stock):
    """fp16 beside full precision, and alone."""
    both, alone = root / "both", root / "alone"
    cast = stock_class(type(stock))(**stock.components | {"unet": half_of(stock.unet)},
                                    requires_safety_checker=False)  # fmt: skip
    for folder in (both, alone):
        cast.save_pretrained(folder, variant="fp16")
    stock.save_pretrained(both)
    return both, alone


def half_of(unet):
    copy = UNet2DConditionModel.from_config(unet.config)
    copy.load_state_dict(unet.state_dict())
    return copy.half()


def test_variants(half, model):
    both, alone = half
    found = api.load(Checkpoint(model=both, variant="fp16"), dtype="float16")
    full = api.load(both)
    assert found.unet.dtype == torch.float16 and full.unet.dtype == torch.float32
    assert not torch.equal(found.unet.conv_in.weight.float(), full.unet.conv_in.weight)
    for folder, variant, said in (
        (both, "bf16", "variant bf16: .*both has no such weights; it has fp16 and weights without"),
        (model, "fp16", "variant fp16: .* has no such weights; it has weights without a variant$"),
        (alone, "bf16", "it has fp16$"),
        (alone, None, "variant: .*alone has weights of fp16 alone; give one"),
    ):
        with pytest.raises(InputError, match=said):
            api.load(Checkpoint(model=folder, variant=variant))


def test_auto_is_what_is_stored_where_the_device_computes_in_it(monkeypatch, root, half, stock):
    both, _ = half
    file = ldm.write(root / "half.safetensors", stock.components, half=True)
    fp16, bf16 = Checkpoint(model=both, variant="fp16"), root / "bf16"
    given = Checkpoint(model=file, base_config=both)
    assert {api.load(c, dtype="auto").unet.dtype for c in (fp16, given, both)} == {torch.float32}
    computed = {torch.bfloat16, torch.float16}
    monkeypatch.setattr(
        "ric_diffusion.models.diffusion.family.loaded_dtype",
        lambda stored, device: stored if stored in computed else torch.float32,
    )
    unet = half_of(stock.unet).to(torch.bfloat16)
    stock_class(type(stock))(**stock.components | {"unet": unet},
                             requires_safety_checker=False).save_pretrained(bf16)  # fmt: skip
    found = [api.load(c, dtype="auto").unet.dtype for c in (fp16, given, bf16, both)]
    assert found == [torch.float16, torch.float16, torch.bfloat16, torch.float32]


def test_most_of_the_denoiser_decides_the_precision():
    tensors = {f"{UNET}a": StoredTensor((8, 8), "F16"), f"{UNET}b": StoredTensor((8,), "F32")}
    assert (
        Header(tensors | {"text_encoders.c": StoredTensor((99, 99), "F8_E4M3")}).dtype
        == torch.float16
    )
    assert header_of({"a": (1,)}, "F8_E4M3").dtype == torch.float32


@pytest.mark.parametrize(
    ("said", "settings"),
    [
        ("variant fp16: .* is one file; leave it out", {"variant": "fp16"}),
        ("revision v1: .* is not on the hub; leave it out", {"revision": "v1"}),
        ("base_config: .*holds weights alone", {"base_config": None}),
    ],
)
def test_what_has_no_meaning_for_a_file_is_refused(sd, model, said, settings):
    with pytest.raises(InputError, match=said):
        family_of(Checkpoint(**{"model": sd, "base_config": model} | settings))


def test_a_folder_has_configs_of_its_own(model):
    with pytest.raises(InputError, match=r"base_config .*has configs of its own; leave it out"):
        api.load(Checkpoint(model=model, base_config=model))
    with pytest.raises(InputError, match=r"dtype 'fp16': unknown; one of: auto, float32"):
        api.load(model, dtype="fp16")


def test_hardware_decides(monkeypatch):
    monkeypatch.setattr("scorers.hardware._cpu_has_bf16", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    half, full = torch.float16, torch.float32
    assert hardware.loaded_dtype(half, "cpu") == full
    assert hardware.loaded_dtype(torch.bfloat16, "cpu") == torch.bfloat16
    assert hardware.loaded_dtype(torch.bfloat16, "cuda") == full
    assert hardware.loaded_dtype(half, "cuda") == half
    assert hardware.loaded_dtype(torch.float64, "cuda") == full
