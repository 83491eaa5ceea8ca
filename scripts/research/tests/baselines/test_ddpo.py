"""DDPO: it raises its reward, is exact about what it does, and never learns from a crash."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from baselines import ddpo, ddpo_run
from baselines.base import read_lora
from baselines.ddpo import (
    DdpoConfig,
    advantages,
    balanced,
    clipped_loss,
    decoded,
    encoded,
)
from baselines.ddpo_run import reward_curve, train_ddpo
from baselines.families import lora_file, merged
from baselines.policy import Policy, denoising_chain
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.cost import Cost
from ric_diffusion.models.diffusion.backend import LoraConfig
from ric_diffusion.models.diffusion.families.sd import FAMILY

PROMPTS = ["red apple", "pizza", "rocket"]
BRIGHT = {"bright": 1.0}
LORA = lora_file(FAMILY)
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


@pytest.fixture
def train(model, space, pixel_scorers):
    def run(out, config=CONFIG, *, preference=BRIGHT, scorers=pixel_scorers, **given):
        return train_ddpo(model, space, preference, PROMPTS, scorers, config, out, **given)

    return run


def test_the_reward_rises(
    train, pipe, pixel_scorers, tmp_path, monkeypatch, sampler, latents_as_pictures
):
    """From the same noise before and after: the mean of one batch says little about the policy."""
    monkeypatch.setattr(ddpo, "decoded", latents_as_pictures)
    steps = 2
    config = replace(
        CONFIG, iterations=6, batch_size=64, minibatch=32, clip=1e-2, num_inference_steps=steps
    )
    train(tmp_path, config)
    policy = Policy(
        pipe=pipe,
        chain=denoising_chain(pipe.scheduler, steps, config.eta),
        empty=encoded(pipe, [""]),
        guidance_scale=config.guidance_scale,
        batch_size=32,
        precision="fp32",
    )
    context = encoded(pipe, PROMPTS * 20)

    def rewards():
        generator = torch.Generator().manual_seed(7)
        start = torch.randn(len(context), 4, 8, 8, generator=generator)
        drawn = policy.rollout(start, context, generator)
        pictures = latents_as_pictures(pipe, drawn.latents[-1], 32)
        return pixel_scorers[0](pictures, [""] * len(pictures))

    before = rewards()
    with merged(pipe.unet, read_lora(sampler, tmp_path / LORA)):
        after = rewards()
    assert (after - before).mean() > 0.4 * before.std()


def test_what_is_logged(train, tmp_path):
    train(tmp_path)
    steps, rewards = reward_curve(tmp_path)
    assert steps.tolist() == [1, 2, 3]
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rewards.tolist() == [line["reward"] for line in lines]
    assert all(line["z/bright"] == pytest.approx(line["reward"]) for line in lines)
    assert all(line["rejected"] == 0 and 0 <= line["clipped"] <= 1 for line in lines)


def test_it_repeats_bit_for_bit_and_says_what_it_cost(train, tmp_path):
    costs = []
    for run in "ab":
        torch.manual_seed(ord(run))  # nobody may draw from the global generators
        np.random.seed(ord(run))
        costs.append(train(tmp_path / run))
    one, other = (load_file(tmp_path / run / LORA) for run in "ab")
    assert len(one) > 4 and all(torch.equal(one[key], other[key]) for key in one)
    logs = [(tmp_path / run / "log.jsonl").read_text() for run in "ab"]
    assert logs[0] == logs[1]
    drawing = 3 * 6 * 2  # steps, pictures, two branches of guidance
    learning = 2 * 2 * 6 * 2 * 3  # epochs, decisions, pictures, branches, forward and backward
    assert costs[0].forwards == 3 * (drawing + learning)
    assert costs[0].scored == 3 * 6 * 2
    assert Cost.from_dict(json.loads((tmp_path / "a" / "cost.json").read_text())) == costs[0]


def test_resumed_it_is_the_same_run(train, tmp_path, monkeypatch):
    whole = train(tmp_path / "whole")
    real, calls = ddpo.iterate, []

    def interrupted(*given):
        calls.append(1)
        if len(calls) == 3:
            real(*given)  # killed after the work, before it was kept
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(ddpo_run, "iterate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut")
    with pytest.raises(InputError, match="holds a run already"):
        train(tmp_path / "cut")
    cost = train(tmp_path / "cut", resume=True)
    assert len(calls) == 3 + 1
    assert (cost.forwards, cost.scored) == (whole.forwards, whole.scored)
    for file in (LORA, "checkpoints/step-3/state.safetensors"):
        one, other = (load_file(tmp_path / run / file) for run in ("whole", "cut"))
        assert all(torch.equal(one[key].nan_to_num(), other[key].nan_to_num()) for key in one)
    logs = [(tmp_path / run / "log.jsonl").read_text() for run in ("whole", "cut")]
    assert logs[0] == logs[1]


def test_a_run_may_be_made_longer_but_not_another(train, tmp_path):
    train(tmp_path / "long")
    train(tmp_path / "grown", replace(CONFIG, iterations=1))
    train(tmp_path / "grown", resume=True)
    one, other = (load_file(tmp_path / run / LORA) for run in ("long", "grown"))
    assert all(torch.equal(one[key], other[key]) for key in one)
    for changed, name in (
        ({"preference": {"warm": 1.0}}, r"other preference\.bright \(1\.0, now 0\.0\)"),
        ({"config": replace(CONFIG, seed=1)}, r"other ddpo\.seed \(0, now 1\)"),
    ):
        with pytest.raises(InputError, match=name):
            train(tmp_path / "grown", resume=True, **changed)


def test_a_rejected_picture_gets_the_worst_reward(train, tmp_path, monkeypatch):
    """Black has the highest reward here, and a scorer fails on another picture."""
    seen = []
    real_decoded, real_improve = ddpo.decoded, ddpo.improve

    def with_black(*given):
        return [Image.new("RGB", (64, 64)), *real_decoded(*given)[1:]]

    def noting(policy, state, drawn, gains, *rest):
        seen.append((gains, state.history.copy()))
        return real_improve(policy, state, drawn, gains, *rest)

    def darkness(images, prompts):
        dark = np.array([-np.asarray(image, float).mean() for image in images])
        dark[1] = np.nan
        return dark

    monkeypatch.setattr(ddpo, "decoded", with_black)
    monkeypatch.setattr(ddpo, "improve", noting)
    config = replace(CONFIG, iterations=1, least=100)
    train(tmp_path, config, scorers=[darkness, darkness])
    [(gains, history)] = seen
    assert gains[0] == gains[1] == gains.min() < 0
    known = history[np.isfinite(history)]
    assert len(known) == 6 and (known == known.min()).sum() == 3  # the worst itself and these two
    line = json.loads((tmp_path / "log.jsonl").read_text())
    assert line["rejected"] == pytest.approx(2 / 6)


def test_nothing_but_blank_pictures_ends_the_run(train, tmp_path, monkeypatch):
    monkeypatch.setattr(ddpo, "decoded", lambda *given: [Image.new("RGB", (8, 8))] * 6)
    with pytest.raises(FloatingPointError, match="iteration 0 is blank"):
        train(tmp_path)


def test_numbers_that_are_not_finite_become_a_blank_picture(pipe):
    latents = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    latents[1, 0, 0, 0] = torch.nan
    pictures = decoded(pipe, latents, 2)
    assert [len(picture.getcolors(64 * 64)) == 1 for picture in pictures] == [False, True, False]


def test_advantages_are_taken_per_prompt():
    history = np.full((3, 4), np.nan)
    history[0, :2] = [1.0, 3.0]
    rows = np.array([0, 1, 0])
    rewards = np.array([2.0, 10.0, 6.0])
    found = advantages(history, rows, rewards, least=4)
    own = np.array([1.0, 3.0, 2.0, 6.0])
    assert found[[0, 2]] == pytest.approx((rewards[[0, 2]] - own.mean()) / own.std(), rel=1e-4)
    # The second prompt is known by one reward: it is measured against the batch.
    assert found[1] == pytest.approx((10 - rewards.mean()) / rewards.std(), rel=1e-4)
    assert history[0].tolist() == own.tolist()
    assert history[1, 0] == 10 and np.isnan(history[1, 1:]).all() and np.isnan(history[2]).all()


def test_only_the_latest_rewards_are_remembered():
    history = np.array([[1.0, 2.0, 3.0]])
    advantages(history, np.array([0, 0]), np.array([4.0, 5.0]), least=1)
    assert history.tolist() == [[3.0, 4.0, 5.0]]
    advantages(history, np.zeros(5, int), np.arange(5.0), least=1)
    assert history.tolist() == [[2.0, 3.0, 4.0]]


def test_equal_rewards_teach_nothing_and_outliers_are_limited():
    history = np.full((1, 1000), np.nan)
    assert advantages(history, np.zeros(4, int), np.full(4, 7.0), least=1) == pytest.approx(0.0)
    outlier = np.array([1000.0] + [0.0] * 99)
    assert advantages(history, np.zeros(100, int), outlier, least=1).max() == 5.0


def test_the_clipped_loss():
    gains = torch.tensor([1.0, 1.0, -1.0, -1.0])
    ratio = torch.tensor([1.5, 0.5, 1.5, 0.5], requires_grad=True)
    loss = clipped_loss(ratio, gains, 0.1)
    assert loss.item() == pytest.approx(-(1.1 + 0.5 - 1.5 - 0.9) / 4)
    loss.backward()
    # No gradient where the ratio already left the clip range in the direction that pays.
    assert ratio.grad.tolist() == pytest.approx([0.0, -0.25, 0.25, 0.0])
    assert clipped_loss(torch.ones(4), gains, 0.1).item() == 0.0


def test_prompts_come_in_turn():
    rng = np.random.default_rng(0)
    assert np.bincount(balanced(3, 12, rng)).tolist() == [4, 4, 4]
    some = np.bincount(balanced(5, 12, rng), minlength=5)
    assert some.sum() == 12 and set(some.tolist()) == {2, 3}
    assert len(set(balanced(50, 8, rng).tolist())) == 8


@pytest.mark.parametrize(
    "wrong, word",
    [
        ({"minibatch": 4}, "multiple of minibatch"),
        ({"iterations": 0}, "iterations is 0"),
        ({"eta": 0.0}, "eta is 0.0"),
        ({"clip": -1.0}, "clip is -1.0"),
    ],
)
def test_settings_that_make_no_sense(wrong, word):
    with pytest.raises(ValueError, match=word):
        replace(CONFIG, **wrong)
