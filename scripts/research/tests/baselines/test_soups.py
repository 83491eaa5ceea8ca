"""Rewarded Soups: the mixture's delta is the weighted sum of the deltas."""

import peft
import pytest
import torch
from numpy.testing import assert_allclose

from baselines.base import BaseModel, Tuned
from baselines.families import merged
from baselines.soups import Soup, mixture
from ric_diffusion.adapters.format import read_diffusers
from ric_diffusion.adapters.lora import Lora
from ric_diffusion.io.errors import InputError

PROMPTS = ["red apple", "pizza"]
SEEDS = [3, 4]


@pytest.fixture
def pair(lora_files):
    return [read_diffusers(file) for file in lora_files.values()]


@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.9, 0.1), (1.0, 0.0), (0.0, 1.0)])
def test_the_delta_is_the_weighted_sum(pair, weights):
    soup = mixture(pair, weights)
    assert soup.modules == pair[0].modules
    for name in soup.modules:
        expected = sum(w * one.delta(name) for w, one in zip(weights, pair, strict=True))
        assert torch.allclose(soup.delta(name), expected, atol=1e-6)
    assert soup.config["r"] == 4 * sum(w > 0 for w in weights)


def test_ranks_and_scales_may_differ():
    def one(rank, alpha, seed):
        draw = torch.Generator().manual_seed(seed)
        return Lora(
            tensors={
                "conv.lora_A.weight": torch.randn(rank, 3, 3, 3, generator=draw),
                "conv.lora_B.weight": torch.randn(5, rank, 1, 1, generator=draw),
            },
            config={"r": rank, "lora_alpha": alpha},
        )

    loras = [one(2, 4, 0), one(3, 1, 1)]
    soup = mixture(loras, [0.3, 0.7])
    by_hand = torch.zeros(5, 3, 3, 3)
    for weight, scale, made in zip((0.3, 0.7), (2.0, 1 / 3), loras, strict=True):
        a, b = made.tensors["conv.lora_A.weight"], made.tensors["conv.lora_B.weight"]
        for r in range(a.shape[0]):
            by_hand += weight * scale * b[:, r, 0, 0].view(5, 1, 1, 1) * a[r]
    assert torch.allclose(soup.delta("conv"), by_hand, atol=1e-5)


def test_it_is_peft_s_cat_and_not_its_linear():
    """On the layers themselves: linear brings in products of one LoRA's B with another's A."""
    torch.manual_seed(0)
    net = torch.nn.ModuleDict({"line": torch.nn.Linear(6, 5), "conv": torch.nn.Conv2d(3, 4, 3)})
    settings = peft.LoraConfig(r=2, lora_alpha=6, target_modules=["line", "conv"])
    made = peft.get_peft_model(net, settings, adapter_name="one")
    made.add_adapter("other", settings)
    layers = [net["line"], net["conv"]]
    with torch.no_grad():
        for layer in layers:
            for name in ("one", "other"):
                layer.lora_A[name].weight.normal_()
                layer.lora_B[name].weight.normal_()
    for way in ("cat", "linear"):
        made.add_weighted_adapter(["one", "other"], [0.3, 0.7], way, combination_type=way)
    for layer in layers:
        loras = [
            Lora(
                tensors={
                    "layer.lora_A.weight": layer.lora_A[name].weight.detach(),
                    "layer.lora_B.weight": layer.lora_B[name].weight.detach(),
                },
                config={"r": 2, "lora_alpha": 6},
            )
            for name in ("one", "other")
        ]
        ours = mixture(loras, [0.3, 0.7]).delta("layer")
        assert torch.allclose(ours, layer.get_delta_weight("cat").detach(), atol=1e-5)
        assert not torch.allclose(ours, layer.get_delta_weight("linear").detach(), atol=0.1)


def test_a_corner_is_that_lora_alone(sampler, space, lora_files, pixels):
    soup = Soup(sampler, space, lora_files)
    for name in space.names:
        alone = Tuned(sampler, space, [({name: 1.0}, lora_files[name])])
        found = pixels(soup.draw({name: 2.0}, PROMPTS, SEEDS))
        assert_allclose(found, pixels(alone.draw({name: 1.0}, PROMPTS, SEEDS)), atol=1)
        plain = pixels(BaseModel(sampler).draw({name: 1.0}, PROMPTS, SEEDS))
        assert abs(found - plain).max() > 5


def test_between_them_it_is_neither_and_leaves_no_trace(
    pipe, sampler, space, lora_files, pixels, pair
):
    then = {key: value.clone() for key, value in pipe.unet.state_dict().items()}
    soup = Soup(sampler, space, lora_files)
    found = pixels(soup.draw({"bright": 1.0, "warm": 1.0}, PROMPTS, SEEDS))
    for name in space.names:
        assert abs(found - pixels(soup.draw({name: 1.0}, PROMPTS, SEEDS))).max() > 1
    assert all(torch.equal(value, then[key]) for key, value in pipe.unet.state_dict().items())
    with merged(pipe.unet, mixture(pair, [0.5, 0.5])):
        for name in pair[0].modules:
            change = 0.5 * pair[0].delta(name) + 0.5 * pair[1].delta(name)
            now = pipe.unet.get_submodule(name).weight
            assert torch.allclose(now, then[f"{name}.weight"] + change, atol=1e-5)


def test_what_does_not_fit_is_refused(sampler, space, lora_files, pair):
    with pytest.raises(InputError, match="one LoRA for each of bright, warm"):
        Soup(sampler, space, {"bright": lora_files["bright"]})
    fewer = {k: v for k, v in pair[1].tensors.items() if "attn" not in k}
    with pytest.raises(InputError, match="different layers"):
        mixture([pair[0], Lora(tensors=fewer, config=pair[1].config)], [0.5, 0.5])
