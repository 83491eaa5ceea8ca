"""Diffusion Blend: predictions of several policies, mixed, each at the price of a pass."""

import pytest
import torch

from baselines.base import Tuned
from baselines.blend import Blend, blended
from baselines.families import merged
from baselines.soups import Soup
from ric_diffusion.adapters.format import read_diffusers
from ric_diffusion.adapters.lora import Lora
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.cost import Meter

PROMPTS, SEEDS = ["red apple", "pizza"], [3, 4]
WEIGHTS = [0.3, 0.7]
EVEN = {"bright": 1.0, "warm": 1.0}


@pytest.fixture
def noisy(latent_sampler, sampling):
    """As policies of DDPO draw: with noise in every step, which also comes from the seed."""
    return latent_sampler({**sampling, "eta": 1.0})


def drawn(method, preference):
    return torch.stack(method.draw(preference, PROMPTS, SEEDS))


@pytest.fixture
def pair(lora_files):
    return [read_diffusers(file) for file in lora_files.values()]


@pytest.fixture
def predict(pipe):
    """What the network predicts, as pipelines ask it."""
    draw = torch.Generator().manual_seed(0)
    given = torch.randn(2, 4, 8, 8, generator=draw), torch.tensor([700, 30])
    states = torch.randn(2, 5, 32, generator=draw)

    @torch.no_grad()
    def call():
        return pipe.unet(*given, encoder_hidden_states=states, return_dict=False)[0]

    return call


def test_predictions_are_mixed_by_weight(pipe, pair, predict):
    each = []
    for lora in pair:
        with merged(pipe.unet, lora):
            each.append(predict())
    base, before = predict(), {k: v.clone() for k, v in pipe.unet.state_dict().items()}
    with blended(pipe.unet, pair, WEIGHTS):
        found = predict()
    expected = WEIGHTS[0] * each[0] + WEIGHTS[1] * each[1]
    apart = (each[0] - each[1]).abs().max()
    assert apart > 0.1 and (found - expected).abs().max() < 1e-5 * apart
    # Nothing of it is left, not even after an error.
    with pytest.raises(ZeroDivisionError), blended(pipe.unet, pair, WEIGHTS):
        _ = 1 / 0
    assert torch.equal(predict(), base)
    after = pipe.unet.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_at_a_corner_it_is_that_policy_bit_for_bit(noisy, space, lora_files):
    blend = Blend(noisy, space, lora_files)
    corners = []
    for name, file in lora_files.items():
        alone = Tuned(noisy, space, [({name: 1.0}, file)])
        corners.append(drawn(blend, {name: 2.0}))
        assert torch.equal(corners[-1], drawn(alone, {}))
    assert not torch.allclose(*corners, atol=1e-2)


def test_it_is_no_soup_but_where_the_policies_agree(noisy, space, lora_files):
    blend, soup = (make(noisy, space, lora_files) for make in (Blend, Soup))
    assert not torch.allclose(drawn(blend, EVEN), drawn(soup, EVEN), atol=1e-2)
    one = lora_files["bright"]
    same = Blend(noisy, space, {"bright": one, "warm": one})
    assert torch.allclose(drawn(same, EVEN), drawn(blend, {"bright": 1.0}), atol=1e-4)


def test_each_policy_costs_a_pass_in_every_step(noisy, sampling, space, lora_files):
    blend, once = Blend(noisy, space, lora_files), 2 * 2 * sampling["num_inference_steps"]
    for preference, passes in ((EVEN, 2), ({"warm": 1.0}, 1)):
        meter = Meter()
        with meter.running(noisy.network()):
            blend.draw(preference, PROMPTS, SEEDS)
        assert meter.read().forwards == passes * once


def test_what_does_not_fit_is_refused(noisy, space, lora_files, pair, pipe):
    with pytest.raises(InputError, match="Blend: needs one LoRA for each of bright, warm"):
        Blend(noisy, space, {"bright": lora_files["bright"]})
    fewer = {k: v for k, v in pair[1].tensors.items() if "attn" not in k}
    other = [pair[0], Lora(tensors=fewer, config=pair[1].config)]
    with pytest.raises(InputError, match="different layers"), blended(pipe.unet, other, WEIGHTS):
        pass
