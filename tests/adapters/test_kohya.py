"""kohya's names, and layers that are one layer there."""

import pytest
import torch

from ric_diffusion.adapters.kohya import Kohya
from ric_diffusion.adapters.lora import Lora
from ric_diffusion.adapters.modelspec import ModelSpec

RANK, ALPHA, WIDTH = 2, 6.0, 4
KOHYA = Kohya(
    base=lambda base: {"ss_base_model_version": base.architecture},
    layers={
        "theirs.{}.qkv": ("ours.{}.q", "ours.{}.k", "ours.{}.v"),
        "theirs.{}.linear1": ("lone.{}.q", "lone.{}.up"),
        "theirs.{}.mod.1": ("ours.{}.norm",),
        "theirs.{}.mlp.0": ("ours.{}.net.0.proj",),
    },
    widths={"lone.{}.up": 3},
    reversed_halves=("ours.{}.norm",),
)


def lora(**outputs):
    """A LoRA of layers by name, dots as __, of these many outputs."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, width in outputs.items():
        module = name.replace("__", ".")
        tensors[f"{module}.lora_A.weight"] = torch.randn(RANK, WIDTH, generator=generator)
        tensors[f"{module}.lora_B.weight"] = torch.randn(width, RANK, generator=generator)
    return Lora(tensors=tensors, config={"r": RANK, "lora_alpha": ALPHA})


def delta(state, name):
    """What a file adds to a layer's weight, as every program that reads one computes it."""
    down, up = (state[f"lora_unet_{name}.lora_{half}.weight"] for half in ("down", "up"))
    return state[f"lora_unet_{name}.alpha"] / len(down) * up @ down


def test_names_are_ours_where_nothing_else_is_said():
    given = lora(blocks__0__to_q=WIDTH)
    found = Kohya(base=lambda _: {}).state(given)
    assert found.keys() == {
        f"lora_unet_blocks_0_to_q.{end}" for end in ("lora_down.weight", "lora_up.weight", "alpha")
    }
    assert torch.allclose(delta(found, "blocks_0_to_q"), given.delta("blocks.0.to_q"))


def test_layers_that_are_one_become_one():
    given = lora(ours__3__q=WIDTH, ours__3__k=WIDTH, ours__3__v=WIDTH, ours__3__net__0__proj=8)
    found = KOHYA.state(given)
    assert {key.partition(".")[0] for key in found} == {
        "lora_unet_theirs_3_qkv",
        "lora_unet_theirs_3_mlp_0",
    }
    wanted = torch.cat([given.delta(f"ours.3.{name}") for name in "qkv"])
    assert torch.allclose(delta(found, "theirs_3_qkv"), wanted, atol=1e-6)
    assert torch.allclose(delta(found, "theirs_3_mlp_0"), given.delta("ours.3.net.0.proj"))


@pytest.mark.parametrize("changed", ["q", "up"])
def test_what_is_not_changed_gets_zeros_of_its_width(changed):
    given = lora(**{f"lone__0__{changed}": WIDTH if changed == "q" else 3 * WIDTH})
    found = delta(KOHYA.state(given), "theirs_0_linear1")
    wanted = torch.zeros(4 * WIDTH, WIDTH)
    rows = slice(0, WIDTH) if changed == "q" else slice(WIDTH, None)
    wanted[rows] = given.delta(f"lone.0.{changed}")
    assert torch.allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("parts", [2, 6])
def test_halves_are_turned_round_where_there_are_no_more(parts):
    given = lora(ours__1__norm=parts * WIDTH)
    wanted = given.delta("ours.1.norm")
    if parts == 2:
        wanted = torch.cat(wanted.chunk(2)[::-1])
    assert torch.allclose(delta(KOHYA.state(given), "theirs_1_mod_1"), wanted, atol=1e-6)


def test_a_base_model_that_is_not_known_is_not_named():
    given = lora(ours__0__q=WIDTH)
    plain = {"ss_network_module": "networks.lora", "ss_network_dim": "2", "ss_network_alpha": "6.0"}
    assert KOHYA.metadata(given, None) == plain
    known = KOHYA.metadata(given, ModelSpec(architecture="x", resolution=64))
    assert known == {**plain, "ss_base_model_version": "x"}
