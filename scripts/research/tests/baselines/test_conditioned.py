"""Reward-conditioned DDPO: one policy that follows every preference, judged by what is usual for
that preference."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from baselines import ddpo, ddpo_run
from baselines.conditioned import (
    WEIGHTS,
    AnyPreference,
    ConditionedPolicy,
    advantages,
    as_targets,
    conditioned_ddpo,
    train_conditioned,
)
from baselines.ddpo import DdpoConfig, encoded
from baselines.families import ADAPTER, lora_file
from baselines.policy import denoising_chain
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.diffusion.backend import LoraConfig
from ric_diffusion.models.diffusion.families.sd import FAMILY

PROMPTS = ["red apple", "pizza", "rocket"]
CONFIG = DdpoConfig(
    iterations=3,
    batch_size=6,
    minibatch=3,
    inner_epochs=2,
    learning_rate=1e-2,
    history=5,
    least=3,
    num_inference_steps=3,
    lora=LoraConfig(rank=4, alpha=8, targets=("attention", "feed_forward", "convolution")),
    checkpoint_minutes=0.0,
)
FILES = (lora_file(FAMILY), f"{ADAPTER}/reward_encoder.safetensors")


@pytest.fixture
def train(model, space, pixel_scorers, monkeypatch, latents_as_pictures):
    monkeypatch.setattr(ddpo, "decoded", latents_as_pictures)

    def run(out, config=CONFIG, **given):
        return train_conditioned(model, space, PROMPTS, pixel_scorers, config, out, **given)

    return run


def policy(pipe, steps, eta=1.0):
    return ConditionedPolicy(
        pipe=pipe,
        chain=denoising_chain(pipe.scheduler, steps, eta),
        empty=encoded(pipe, [""]),
        guidance_scale=3.0,
        batch_size=32,
        precision="fp32",
    )


# What is usual


def test_preference_and_prompt_are_taken_out():
    """What is left is by how much a picture beats others of its prompt at its own preference."""
    rng = np.random.default_rng(0)
    count, prompts, slope = 3000, 3, np.array([[3.0, -1.0], [-2.0, 1.5]])
    means = rng.normal(size=(prompts, 2)) * 4
    rows = np.arange(count) % prompts
    weights = rng.dirichlet([1, 1], size=count)
    luck = rng.normal(size=(count, 2)) * [1.0, 0.2]
    z = means[rows] + weights @ slope + luck
    found = advantages(np.full((prompts, 1000, 4), np.nan), rows, weights, z, least=8)
    assert np.corrcoef(found, (luck * weights).sum(axis=1))[0, 1] > 0.99
    assert found.std() == pytest.approx(1.0, abs=0.02)
    # Without the slope, a preference that is easy to please would look like luck.
    assert abs(np.corrcoef(found, weights[:, 0])[0, 1]) < 0.1


def test_with_one_preference_for_all_it_is_ddpo_s():
    rng = np.random.default_rng(0)
    weights = np.tile([0.3, 0.7], (12, 1))
    rows = np.array([0, 1, 2] * 4)
    old, plain = np.full((3, 5, 4), np.nan), np.full((3, 5), np.nan)
    for _ in range(3):
        z = rng.normal(size=(12, 2))
        expected = ddpo.advantages(plain, rows, z @ weights[0], least=6)
        assert advantages(old, rows, weights, z, least=6) == pytest.approx(expected, rel=1e-4)
    assert (old[..., :2] == weights[0]).all()
    assert old[..., 2:] @ weights[0] == pytest.approx(plain)


def test_equal_rewards_teach_nothing():
    weights = np.random.default_rng(0).dirichlet([1, 1, 1], size=9)
    rows = np.array([0, 1, 2] * 3)
    history = np.full((3, 4, 6), np.nan)
    found = advantages(history, rows, weights, np.full((9, 3), 2.0), least=1)
    assert found == pytest.approx(0.0)


def test_preferences_cover_the_simplex(pipe, space):
    task = AnyPreference(
        pipe=pipe,
        policy=policy(pipe, 3),
        config=CONFIG,
        space=space,
        prompts=PROMPTS,
        scorers=[],
    )
    drawn = task.weights(4000, np.random.default_rng(0))
    assert drawn.shape == (4000, 2) and drawn.sum(axis=1) == pytest.approx(1.0)
    quarters, _ = np.histogram(drawn[:, 0], 4, (0, 1))
    assert (np.abs(quarters - 1000) < 100).all()


# What the policy is told


def test_as_the_encoder_reads_a_preference():
    assert as_targets([1.0, 0.25], ["bright", "warm"]) == {"bright": 2.0, "warm": -1.0}


# Runs


@pytest.fixture(scope="module")
def whole(model, space, pixel_scorers, tmp_path_factory, latents_as_pictures):
    """A run and its cost."""
    out = tmp_path_factory.mktemp("conditioned") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ddpo, "decoded", latents_as_pictures)
        cost = train_conditioned(model, space, PROMPTS, pixel_scorers, CONFIG, out)
    return out, cost


def test_resumed_it_is_the_same_run(train, whole, tmp_path, monkeypatch):
    out, cost = whole
    real, calls = ddpo.iterate, []

    def interrupted(*given):
        calls.append(1)
        if len(calls) == 3:
            real(*given)  # killed after the work, before it was kept
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(ddpo_run, "iterate", interrupted)
    torch.manual_seed(1)  # nobody may draw from the global generators
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path)
    again = train(tmp_path, resume=True)
    assert len(calls) == 3 + 1
    for file in (*FILES, "checkpoints/step-3/state.safetensors"):
        one, other = (load_file(folder / file) for folder in (out, tmp_path))
        assert all(torch.equal(one[key].nan_to_num(), other[key].nan_to_num()) for key in one)
    logs = [(folder / "log.jsonl").read_text() for folder in (out, tmp_path)]
    assert logs[0] == logs[1]
    # It costs what DDPO does: steps, pictures, branches of guidance; then epochs and decisions.
    assert cost.forwards == again.forwards == 3 * (3 * 6 * 2 + 2 * 2 * 6 * 2 * 3)
    assert cost.scored == again.scored == 3 * 6 * 2
    lines = [json.loads(line) for line in logs[0].splitlines()]
    assert all(line["clipped"] <= 1 and line["rejected"] == 0 for line in lines)
    with pytest.raises(InputError, match=r"other ddpo\.seed \(0, now 1\)"):
        train(tmp_path, replace(CONFIG, seed=1), resume=True)


def test_it_learns_to_follow_the_preference(
    model, space, pixel_scorers, pipe, tmp_path, monkeypatch, latents_as_pictures
):
    """Two rewards that are each other's opposite: whoever does not read the preference gains
    nothing. From the same noise, told one end or the other; drawn for the ends alone, it learns in
    a moment."""
    bright, _ = pixel_scorers

    def dark(images, prompts):
        return (128 - bright(images, prompts)) / 2  # in z as far as the other

    def ends(task, count, rng):
        return np.eye(2)[rng.integers(2, size=count)]

    monkeypatch.setattr(ddpo, "decoded", latents_as_pictures)
    monkeypatch.setattr(AnyPreference, "weights", ends)
    config = replace(
        CONFIG,
        iterations=6,
        batch_size=64,
        minibatch=32,
        inner_epochs=1,
        clip=3e-2,
        num_inference_steps=2,
        history=200,
        checkpoint_minutes=9.0,
    )
    train_conditioned(model, space, PROMPTS, [bright, dark], config, tmp_path)
    pipe.load_adapter(tmp_path / ADAPTER)
    acting, levels = policy(pipe, 2), []
    for weights in ([1.0, 0.0], [0.0, 1.0]):
        generator = torch.Generator().manual_seed(7)
        start = torch.randn(60, 4, 8, 8, generator=generator)
        told = {WEIGHTS: torch.tensor([weights] * 60)}
        context = replace(encoded(pipe, PROMPTS * 20), extra=told)
        latents = acting.rollout(start, context, generator).latents[-1]
        levels.append(bright(latents_as_pictures(pipe, latents, 60), [""] * 60))
    assert (levels[0] - levels[1]).mean() > 0.3 * levels[0].std()


def test_it_draws_at_the_preference_as_it_was_trained_to(pipe, latent_sampler, space, whole):
    """The pipeline's chain is the policy's, at either end and where nothing was left behind."""
    out, _ = whole
    sampling = {"num_inference_steps": 3, "guidance_scale": 3.0, "eta": 0.0}
    method = conditioned_ddpo("told", latent_sampler(sampling), space, out)
    prompts, seeds = ["red apple", "pizza"], [3, 4]
    base = torch.stack(method.sampler.sample(prompts, [{}, {}], seeds))
    found = {
        weight: torch.stack(method.draw({"bright": weight, "warm": 1 - weight}, prompts, seeds))
        for weight in (0.0, 0.25)
    }
    assert pipe.adapter is None
    assert torch.equal(torch.stack(method.sampler.sample(prompts, [{}, {}], seeds)), base)
    assert not torch.allclose(found[0.0], found[0.25], atol=1e-3)
    start = torch.cat(
        [torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    )
    pipe.load_adapter(out / ADAPTER)
    acting = policy(pipe, 3, eta=0.0)
    for weight, latents in found.items():
        told = torch.tensor([[weight, 1 - weight]] * 2)
        context = replace(encoded(pipe, prompts), extra={WEIGHTS: told})
        drawn = acting.rollout(start, context, torch.Generator())
        assert torch.allclose(drawn.latents[-1], latents, atol=1e-4)
