"""What the nodes do with a conditioning; tests/comfyui/test_engine.py has them draw."""

import copy
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

import ric_diffusion.comfyui
from ric_diffusion.adapters.adapter import AVERAGE, Adapter
from ric_diffusion.comfyui import nodes
from ric_diffusion.conditioning.conditioner import EmbeddingConditioner, TextConditioner
from ric_diffusion.conditioning.encoder import RewardEncoder
from ric_diffusion.conditioning.grammar import Grammar
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.family import adapter_family
from ric_diffusion.models.known import ASSETS
from ric_diffusion.rewards import Curve, RewardSpace
from support.prompts import knowing

NODES = ric_diffusion.comfyui.NODE_CLASS_MAPPINGS


def call(name, **inputs):
    """A node's function with its inputs by name, checked against what it declares."""
    node = NODES[name]
    declared = node.INPUT_TYPES()["required"]
    assert inputs.keys() == declared.keys()
    for key, value in inputs.items():
        kind = declared[key][0]
        assert value in kind if isinstance(kind, list) else kind.isupper()
    found = getattr(node(), node.FUNCTION)(**inputs)
    assert isinstance(found, tuple) and len(found) == len(node.RETURN_TYPES)
    return found


def conditioning(seed, width=32, tokens=77):
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(1, tokens, width, generator=generator)
    return [[states, {"pooled_output": torch.zeros(1, width)}]]


@pytest.fixture(scope="module")
def space():
    rng = np.random.default_rng(0)
    return RewardSpace.fit({r: rng.normal(size=200) for r in ("compressibility", "colorfulness")})


@pytest.fixture(scope="module")
def sd15(space):
    """An adapter of the shapes of Stable Diffusion 1.5."""
    torch.manual_seed(0)
    encoder = RewardEncoder(space.names, 768, time_width=1280).eval()
    torch.nn.init.normal_(encoder.to_time.weight)
    return Adapter(
        family="stable-diffusion",
        base_model="x/sd15",
        space=space,
        conditioner=EmbeddingConditioner(encoder),
    )


def apply(adapter, given, rewards, meaning="targets"):
    [found] = call(
        "RiCApplyRewards", adapter=adapter, conditioning=given, rewards=rewards, meaning=meaning
    )
    return found


@pytest.mark.parametrize("tokens", [77, 154])
def test_conditioning_of_stable_diffusion_15(sd15, tokens):
    given = conditioning(0, 768, tokens) + conditioning(1, 768, tokens)
    given[0][1]["strength"] = 0.5
    before = copy.deepcopy(given)
    found = apply(sd15, given, "compressibility=1.5")
    assert [states.shape for states, _ in found] == [(1, tokens + 2, 768)] * 2
    for (states, more), (old, old_more) in zip(found, before, strict=True):
        assert torch.equal(states[:, :tokens], old) and not states.requires_grad
        expected = sd15.encoder(torch.tensor([[1.5, torch.nan]]))
        assert torch.allclose(states[:, tokens:], expected, atol=1e-6)
        assert more.keys() - old_more.keys() == {nodes.REWARDS}
    assert found[0][1] is not given[0][1]
    assert all(torch.equal(a[0], b[0]) for a, b in zip(given, before, strict=True))


def test_conditioning_of_stable_diffusion_xl(space):
    """Two text encoders side by side; the pooled text stays as it was."""
    encoder = RewardEncoder(space.names, 2048, time_width=1280).eval()
    adapter = Adapter(
        family="stable-diffusion-xl",
        base_model="x/sdxl",
        space=space,
        conditioner=EmbeddingConditioner(encoder),
    )
    [[states, more]] = conditioning(0, 2048)
    pooled = more["pooled_output"] = torch.ones(1, 1280)
    [[found, about]] = apply(adapter, [[states, more]], "compressibility=1.5")
    assert found.shape == (1, 79, 2048) and torch.equal(found[:, :77], states)
    assert about["pooled_output"] is pooled
    with pytest.raises(InputError, match="reward tokens are 2048 wide"):
        apply(adapter, conditioning(0, 768), "colorfulness=1")


def test_nothing_asked_is_auto_and_half_precision_stays(sd15):
    [[states, more]] = conditioning(0, 768)
    [[found, _]] = apply(sd15, [[states.half(), more]], "")
    assert found.dtype == torch.float16
    auto = sd15.encoder(torch.tensor([[torch.nan, torch.nan]]))
    assert torch.allclose(found[:, 77:].float(), auto, atol=1e-3)


def test_a_preference_is_mapped_and_calibration_counts(sd15, caplog):
    curve = Curve(requested=(-2.0, 3.0), obtained=(-0.5, 0.6))
    adapter = replace(sd15, calibration={"colorfulness": curve}, mapping="l2")
    targets = adapter.targets_for(preference={"colorfulness": 1.0})
    requests = adapter.model_targets(adapter.used(targets))
    assert requests["colorfulness"] == 3.0
    [[found, _]] = apply(adapter, conditioning(0, 768), "colorfulness=1", "preference")
    values = torch.tensor([[requests[name] for name in adapter.space.names]])
    assert torch.allclose(found[:, 77:], adapter.encoder(values), atol=1e-6)
    assert "colorfulness" in caplog.text and "beyond the reachable range" in caplog.text
    assert AVERAGE not in caplog.text
    known = knowing(curve, [[0.0] * 8, [1.0] * 8], offset=0.5)
    average = replace(adapter, calibration={"colorfulness": known})
    [[same, _]] = apply(average, conditioning(0, 768), "colorfulness=1", "preference")
    assert torch.equal(same, found) and AVERAGE in caplog.text


@pytest.mark.parametrize(
    "said, rewards, meaning",
    [
        ("rewards: 'colorfulness': write name=number", "colorfulness", "targets"),
        ("did you mean 'colorfulness'", "colourfulness=1", "targets"),
        ("rewards: colorfulness is given twice", "colorfulness=1 colorfulness=2", "targets"),
        ("must be 0 or above", "colorfulness=-1", "preference"),
        ("no weights given", "", "preference"),
        ("must be finite", "colorfulness=nan", "targets"),
    ],
)
def test_wrong_rewards(sd15, said, rewards, meaning):
    with pytest.raises(InputError, match=re.escape(said)):
        apply(sd15, conditioning(0, 768), rewards, meaning)


def test_rewards_are_applied_once(sd15):
    once = apply(sd15, conditioning(0, 768), "")
    with pytest.raises(InputError, match="has a token for colorfulness already"):
        apply(sd15, once, "colorfulness=1")


def test_another_architecture(sd15):
    with pytest.raises(InputError, match="reward tokens are 768 wide"):
        apply(sd15, conditioning(0, 1024), "colorfulness=1")


def test_an_adapter_of_text_mode_is_told_to_use_the_prompt(space):
    conditioner = TextConditioner(Grammar.words(space.names))
    adapter = Adapter(
        family="stable-diffusion", base_model="x/sd15", space=space, conditioner=conditioner
    )
    with pytest.raises(InputError, match="what `ric prompt` prints into CLIP Text Encode"):
        apply(adapter, conditioning(0, 768), "colorfulness=1")


def test_what_is_no_adapter(tmp_path):
    with pytest.raises(InputError, match="not an adapter folder"):
        call("RiCLoadAdapter", model=None, adapter=str(tmp_path))


def test_a_family_that_comfyui_has_no_place_for(monkeypatch):
    """Only adapters of text mode are loaded there."""
    family, folder = adapter_family(ASSETS / "emoji-64" / "ric_adapter")
    elsewhere = replace(family, comfyui_layer=None)
    monkeypatch.setattr(nodes, "adapter_family", lambda _: (elsewhere, folder))
    with pytest.raises(InputError, match=r"no place for in Stable Diffusion 1\.x and 2\.x"):
        call("RiCLoadAdapter", model=None, adapter="some/adapter")
