"""ric export."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from ric_diffusion.adapters.export import FORMATS
from ric_diffusion.cli.parser import build_parser


@pytest.mark.parametrize("mode", ["embedding", "text"])
def test_kohya(ric, root, tmp_path, mode):
    adapter, out = root / mode / "adapter", tmp_path / "new" / "mine.safetensors"
    done = ric("export", "--adapter", adapter, "--format", "kohya", "--out", out)
    assert (done.code, done.out, done.err) == (0, f"{out}\n", "")
    assert [path.name for path in out.parent.iterdir()] == ["mine.safetensors"]
    ours, theirs = load_file(adapter / "pytorch_lora_weights.safetensors"), load_file(out)
    assert len(theirs) == len(ours) // 2 * 3  # down, up and alpha of each layer
    assert all(name.startswith("lora_unet_") for name in theirs)
    halves = {"lora_A": "lora_down", "lora_B": "lora_up"}
    for name, tensor in ours.items():
        module, half, _ = name.removeprefix("unet.").rsplit(".", 2)
        key = f"lora_unet_{module.replace('.', '_')}"
        assert torch.equal(theirs[f"{key}.{halves[half]}.weight"], tensor)
        assert theirs[f"{key}.alpha"] == 4.0
    with safe_open(out, framework="pt") as file:
        about = json.loads(file.metadata()["ric_adapter"])
    assert about == json.loads((adapter / "ric_adapter.json").read_text())


def test_formats_of_the_command_are_those_of_the_function():
    [verbs] = [a for a in build_parser()._actions if isinstance(a.choices, dict)]
    [option] = [a for a in verbs.choices["export"]._actions if a.dest == "format"]
    assert tuple(option.choices) == FORMATS


def test_nothing_is_replaced(ric, root, tmp_path):
    """But by the same again."""
    out = tmp_path / "mine.safetensors"
    for args in (
        ["text", "kohya"],
        ["text", "kohya"],
        ["embedding", "kohya"],
        ["text", "diffusers"],
    ):
        before = out.read_bytes() if out.exists() else None
        adapter, form = root / args[0] / "adapter", args[1]
        done = ric("export", "--adapter", adapter, "--format", form, "--out", out)
        same = args == ["text", "kohya"]
        assert done.code == (0 if same else 2)
        assert same or done.err == (
            f"ric export: --out {out}: is there already; name another file, or move it\n"
        )
        assert before is None or out.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
