"""What the rewards add to the states between the layers of a language model."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ric_diffusion.conditioning.steering import LIMIT, Steering, smooth_features
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.causal_lm.steering import layers_of, scale_of, steered
from support.lm import write_lm

KINDS = ("llama", "gpt2")


@pytest.fixture(scope="module", params=KINDS)
def folder(request, tmp_path_factory):
    return write_lm(tmp_path_factory.mktemp(request.param) / "model", kind=request.param)


@pytest.fixture
def model(folder):
    return AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.fixture
def steering():
    torch.manual_seed(0)
    made = Steering(3, 4, 16)
    torch.nn.init.normal_(made.out.weight)
    return made


IDS = torch.tensor([[1, 2, 3], [4, 5, 6]])


@torch.no_grad()
def states(model, vectors):
    with steered(model, vectors):
        found = model(IDS, output_hidden_states=True).hidden_states
    return found


def test_it_starts_at_nothing():
    assert Steering(2, 3, 8)(torch.tensor([[1.0, torch.nan]])).equal(torch.zeros(1, 3, 8))


def test_each_reward_adds_a_part_of_its_own(steering):
    def at(*values):
        return steering(torch.tensor([values]))

    nan = torch.nan
    both = at(1.5, -2.0, nan) - at(nan, nan, nan)
    apart = at(1.5, nan, nan) + at(nan, -2.0, nan) - 2 * at(nan, nan, nan)
    assert torch.allclose(both, apart, atol=1e-5) and both.abs().max() > 0.1
    assert not torch.allclose(at(0.0, nan, nan), at(nan, nan, nan), atol=0.1)


def test_values_are_read_smoothly_and_within_a_limit(steering):
    nan = torch.full((2, 2), torch.nan)
    near, far = (
        steering(torch.cat([torch.tensor([[a], [b]]), nan], dim=1)).detach()
        for a, b in ((1.0, 1.01), (LIMIT, 2 * LIMIT))
    )
    assert 0 < (near[0] - near[1]).norm() < 0.05 * near[0].norm()
    assert far[0].equal(far[1])
    assert smooth_features(torch.zeros(2, 5)).shape == (2, 5, 3)


def test_a_layer_hears_it_as_loud_as_its_states_are(steering):
    values = torch.tensor([[1.0, 1.0, 1.0]])
    plain = steering(values)
    steering.scale = torch.tensor([1.0, 2.0, 0.0, 5.0])
    assert torch.allclose(steering(values), plain * torch.tensor([1.0, 2, 0, 5])[:, None])


def test_every_row_is_steered_by_its_own_vectors_before_each_layer(model):
    count, width = model.config.num_hidden_layers, model.config.hidden_size
    vectors = torch.zeros(2, count, width)
    vectors[1, 1] = 3.0
    plain, moved = states(model, None), states(model, vectors)
    for before, after in zip(plain, moved, strict=True):
        assert torch.equal(before[0], after[0])
    # What a layer is given is told before it is moved: the difference shows one layer later.
    same = [torch.equal(before[1], after[1]) for before, after in zip(plain, moved, strict=True)]
    assert same == [True, True] + [False] * (count - 1)
    assert all(map(torch.equal, states(model, None), plain))  # and nothing is left of it


def test_nothing_is_left_behind_by_an_error(model):
    plain = states(model, None)
    vectors = torch.ones(2, model.config.num_hidden_layers, model.config.hidden_size)
    with pytest.raises(KeyError), steered(model, vectors):
        raise KeyError
    assert all(map(torch.equal, states(model, None), plain))


def test_gradients_reach_the_vectors(model):
    vectors = torch.zeros(2, model.config.num_hidden_layers, model.config.hidden_size)
    vectors.requires_grad_(True)
    with steered(model, vectors):
        model(IDS).logits.square().mean().backward()
    assert (vectors.grad.abs().sum(dim=-1) > 0).all()


def test_vectors_are_scaled_to_the_states_of_each_layer(model, folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    scale = scale_of(model, tokenizer)
    assert scale.shape == (model.config.num_hidden_layers,) and (scale > 0).all()
    with torch.no_grad():
        for p in model.get_input_embeddings().parameters():
            p *= 10
    assert scale_of(model, tokenizer)[0] > 3 * scale[0]


def test_a_model_without_a_list_of_layers_is_refused(model):
    model.config.num_hidden_layers += 1
    with pytest.raises(InputError, match="no list of its layers"):
        layers_of(model)
