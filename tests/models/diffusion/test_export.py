import json
import re

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from safetensors.torch import load_file

from ric_diffusion.adapters import export as export_module
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.diffusion.families.sd import FAMILY

# Names as kohya's sd-scripts gives them to these layers of any Stable Diffusion.
KNOWN = [
    "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q",
    "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_out_0",
    "lora_unet_mid_block_attentions_0_transformer_blocks_0_ff_net_0_proj",
    "lora_unet_mid_block_attentions_0_transformer_blocks_0_ff_net_2",
    "lora_unet_up_blocks_0_resnets_1_conv1",
    "lora_unet_up_blocks_1_resnets_0_conv2",
]


def export(folder, out):
    export_module.export(*FAMILY.read_adapter(folder), FAMILY.format, out, "kohya")


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


def test_the_file_describes_itself(exported, model):
    folder, out = exported
    with safe_open(out, framework="pt") as file:
        metadata = file.metadata()
    assert metadata["ss_network_module"] == "networks.lora"
    assert (metadata["ss_network_dim"], float(metadata["ss_network_alpha"])) == ("4", 8.0)
    assert metadata["ss_base_model_version"] == str(model)
    assert json.loads(metadata["ric_adapter"]) == json.loads(
        (folder / "ric_adapter.json").read_text()
    )


def test_what_cannot_be_exported_is_refused(adapters, tmp_path):
    with pytest.raises(InputError, match=r"must end in \.safetensors"):
        export(adapters["text"], tmp_path / "x.ckpt")
    with pytest.raises(InputError, match="not an adapter folder"):
        export(tmp_path, tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []
