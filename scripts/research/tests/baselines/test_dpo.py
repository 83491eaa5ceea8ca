"""Reward-conditioned DPO: its loss by hand, its pairs, what it trains, and that it follows what it
is told."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from baselines.dpo import (
    DpoConfig,
    Pairs,
    asked_of,
    conditioned,
    dpo_loss,
    normalized,
    random_weights,
    siblings,
    train_dpo,
)
from baselines.offline import adapter_backend
from ric_diffusion.conditioning.dropout import Dropout
from ric_diffusion.data.records import Record
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.cost import Cost
from ric_diffusion.models.protocol import Batch
from ric_diffusion.training.loop import LoopConfig
from ric_diffusion.training.trainer import Trainer

LOOP = LoopConfig(
    steps=4, batch_size=3, log_every=1, checkpoint_minutes=0, precision="fp32", trackers=()
)
DPO = DpoConfig(beta=20.0, learning_rate=3e-3)
TOLD = Dropout(prompt=0.0, everything=0.0, reward=0.0)


def batch(*indices, seed=0):
    return Batch(indices=indices, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def train(model, pictures, space, config):
    folder, records = pictures

    def run(out, loop=LOOP, dpo=DPO, of=records, **given):
        return train_dpo(model, of, folder, space, config, loop, dpo, out, **given)

    return run


@pytest.fixture
def pairs(model, pictures, space, config, tmp_path):
    folder, records = pictures
    backend = adapter_backend(
        model, space, replace(config, dropout=TOLD, base_precision="fp32"), seed=0, device="cpu"
    )
    backend.prepare(records, folder, tmp_path / "cache")
    return Pairs(backend, beta=2.0)


def test_the_loss_by_hand():
    policy = torch.tensor([0.2, 0.3]), torch.tensor([0.5, 0.4])
    reference = torch.tensor([0.3, 0.3]), torch.tensor([0.4, 0.4])
    # -log sigmoid(-10 * ((0.2 - 0.3) - (0.5 - 0.4))) = log(1 + exp(-2)), and of no change log 2
    found = dpo_loss(policy, reference, beta=10.0).tolist()
    assert found == pytest.approx([math.log1p(math.exp(-2)), math.log(2)], abs=1e-6)
    worse = dpo_loss(reference, policy, beta=10.0)
    assert worse[0].item() == pytest.approx(2 + found[0], abs=1e-6)


def test_pairs_are_of_one_prompt_and_one_size():
    records = [
        Record(file=f"{i}.png", captions=captions)
        for i, captions in enumerate([("a", "x"), ("b", "x"), ("a",), ("a",), ()])
    ]
    found = siblings(records, np.array([0, 0, 0, 1, 0]))
    assert [some.tolist() for some in found] == [[2], [], [0], [], []]


def test_preferences_are_uniform_and_sum_to_one():
    drawn = random_weights(2000, ["a", "b"], torch.Generator().manual_seed(0))
    first = np.sort([one["a"] for one in drawn])
    assert [one["a"] + one["b"] for one in drawn] == pytest.approx([1.0] * 2000)
    assert np.abs(first - np.linspace(0, 1, 2000)).max() < 0.04


def test_what_is_told_sums_to_one(space):
    assert normalized({"a": 0.2, "b": 0.0, "c": 0.6}) == pytest.approx({"a": 0.25, "c": 0.75})
    assert normalized({}) == {}
    # weights of 0 and 1 are values of -2 and 2; what has no weight is left out
    assert asked_of({"warm": 3.0}, space) == {"warm": 2.0}
    assert asked_of({"warm": 3.0, "bright": 1.0}, space) == {"bright": -1.0, "warm": 1.0}


def test_the_winner_is_better_in_what_is_asked(pairs):
    # bright rises with a record's number, 3 of 20 a step, and warm falls, 1 of 10
    first, second = [0, 0, 0, 4], [4, 4, 4, 0]
    asked = [{"bright": 1.0}, {"warm": 1.0}, {}, {"bright": 0.3, "warm": 0.7}]
    winners, losers = pairs.ordered(first, second, asked)
    assert winners == [4, 0, 0, 0] and losers == [0, 4, 4, 4]


def test_gradients_reach_lora_and_tokens_alone(pairs):
    noted = []
    seen = replace(batch(0, 1, 2), note=lambda levels, losses: noted.append((levels, losses)))
    loss = pairs.loss(seen)
    loss.backward()
    assert loss.item() == pytest.approx(noted[0][1].mean().item())
    trained = pairs.named_parameters()
    assert all(p.grad is not None for p in trained.values())
    moved = [name for name, p in trained.items() if p.grad.abs().max() > 0]
    assert any("lora_B" in name for name in moved) and "conditioner.value" in moved
    network = pairs.backend.pipe.unet
    others = [p for name, p in network.named_parameters() if "lora_" not in name]
    assert not any(p.requires_grad or p.grad is not None for p in others)


def test_the_reference_is_the_base_model(pairs, pipe):
    backend, generator = pairs.backend, torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in pairs.named_parameters().values():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    context = backend.context(["red apple", "pizza"], [{"bright": 1.0}, {}])
    latents = torch.randn(2, *backend.latents.moments([0], [0]).shape[2:])
    with torch.no_grad():
        policy = pairs._errors(context, latents, seed=5)[1]
        reference = pairs._reference_errors(context, latents, seed=5)
        again = pairs._errors(context, latents, seed=5)[1]
        # the same noise and times in the stock pipeline
        noted = []
        backend.objective.loss(
            backend.pipe.family.predictor(
                pipe, backend.pipe.family.encode(pipe, [["red apple", "pizza"]])
            ),
            latents,
            torch.Generator().manual_seed(5),
            lambda levels, losses: noted.append(losses),
        )
    assert torch.allclose(reference, noted[0], atol=1e-6)
    assert not torch.allclose(policy, reference, atol=1e-4) and torch.equal(policy, again)


def test_it_needs_two_pictures_of_a_prompt(train, pictures, tmp_path):
    alone = [replace(r, captions=(f"{i}",)) for i, r in enumerate(pictures[1])]
    with pytest.raises(InputError, match="DPO needs two pictures of one prompt"):
        train(tmp_path, of=alone)


def test_the_passes_of_policy_and_reference_count(train, tmp_path):
    cost = train(tmp_path)
    # 4 steps of 3 pairs: two pictures, each forward and back, and forward in the reference
    assert (cost.forwards, cost.scored) == (4 * 3 * 2 * (3 + 1), 0) and cost.seconds > 0
    assert Cost.from_dict(json.loads((tmp_path / "cost.json").read_text())) == cost


def weights(out):
    files = sorted((out / "adapter").glob("*.safetensors"))
    return {key: tensor for file in files for key, tensor in load_file(file).items()}


def test_resumed_it_is_the_same_run(train, tmp_path, monkeypatch):
    torch.manual_seed(1)
    whole = train(tmp_path / "whole")
    real, calls = Trainer.step, []

    def interrupted(*given):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(Trainer, "step", interrupted)
    torch.manual_seed(2)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut")
    cost = train(tmp_path / "cut", resume=True)
    assert len(calls) == 3 + 2 and cost.forwards == whole.forwards
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert len(one) > 10 and all(torch.equal(one[key], other[key]) for key in one)
    with pytest.raises(InputError, match=r"other dpo\.beta \(20\.0, now 60\.0\)"):
        train(tmp_path / "cut", dpo=replace(DPO, beta=60.0), resume=True)


def test_the_winners_of_a_batch_are_learned(pairs):
    """Under one noise, so that a few steps say it."""
    pairs.beta = 20.0
    trained = list(pairs.named_parameters().values())
    optimizer, losses = torch.optim.Adam(trained, lr=1e-2), []
    for _ in range(8):
        loss = pairs.loss(batch(0, 1, 2, 3))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0] and losses[-1] < math.log(2)


def test_it_draws_what_it_is_told(train, space, sampler, pipe, pixels, tmp_path):
    train(tmp_path)
    before = {name: p.clone() for name, p in pipe.unet.named_parameters()}
    method = conditioned("dpo", sampler, space, tmp_path)
    asked, sample = [], sampler.sample
    sampler.sample = lambda *given: asked.append(given[1]) or sample(*given)
    one, other = (
        pixels(method.draw(preference, ["pizza"], [3]))
        for preference in ({"bright": 1.0}, {"bright": 1.0, "warm": 3.0})
    )
    assert asked == [[{"bright": 2.0}], [{"bright": -1.0, "warm": 1.0}]]
    assert not np.array_equal(one, other) and pipe.adapter is None
    assert all(torch.equal(p, before[name]) for name, p in pipe.unet.named_parameters())
