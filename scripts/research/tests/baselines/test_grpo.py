"""GRPO on the tiny language model: it raises its reward, repeats, resumes and says what it cost."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from baselines import grpo
from baselines.base import BaseModel, Tuned, plain_backend
from baselines.ddpo_run import reward_curve
from baselines.families import lora_file, read_run
from baselines.grpo import GrpoConfig, Reward, order_of, train_grpo
from ric_diffusion.adapters import lora
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.causal_lm.backend import LlmConfig, LlmLora
from ric_diffusion.models.causal_lm.family import FAMILY
from ric_diffusion.models.causal_lm.generation import Sampling
from ric_diffusion.models.causal_lm.model import RiCCausalLM
from ric_diffusion.models.causal_lm.sampler import LlmSampler
from ric_diffusion.models.cost import Cost
from ric_diffusion.rewards import RewardSpace
from support.lm import write_lm

pytest.importorskip("trl")
PROMPTS = ["why?", "two tips", "how do i bake a cake?"]
TOKENS = 6
LORA = lora_file(FAMILY)
CONFIG = GrpoConfig(
    steps=3, groups=2, group_size=4, minibatch=4, learning_rate=0.02, checkpoint_minutes=0
)
LLM_CONFIG = LlmConfig(lora=LlmLora(rank=4, alpha=8), sampling=Sampling(response_tokens=TOKENS))


def letters(texts, prompts):
    """How many of the characters are letters, 0 to 1."""
    assert len(texts) == len(prompts) and set(prompts) <= set(PROMPTS)
    return np.array([sum(c.isalpha() for c in text) / max(1, len(text)) for text in texts])


def size(texts, prompts):
    return np.array([-float(len(text)) for text in texts])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(write_lm(tmp_path_factory.mktemp("lm") / "model"))


@pytest.fixture(scope="module")
def rewards():
    rng = np.random.default_rng(0)
    return RewardSpace.fit({"letters": rng.normal(0.5, 0.2, 200), "size": rng.normal(-9, 3, 200)})


@pytest.fixture
def train(model, rewards):
    def run(out, config=CONFIG, preference=None, **given):
        preference = preference or {"letters": 1.0}
        return train_grpo(
            model, rewards, preference, PROMPTS, [letters, size], LLM_CONFIG, config, out, **given
        )

    return run


def tensors(out):
    return load_file(out / LORA)


def same(one, other):
    return all(torch.equal(value, other[key]) for key, value in one.items())


def test_it_raises_its_reward(train, model, rewards, tmp_path):
    train(tmp_path, replace(CONFIG, steps=25, groups=4, group_size=8, minibatch=32))
    steps, found = reward_curve(tmp_path)
    assert steps.tolist() == list(range(1, 26))
    assert found[-5:].mean() > found[:5].mean() + 0.5
    sampler = LlmSampler(
        RiCCausalLM.from_pretrained(model), {"temperature": 1.0, "response_tokens": TOKENS}
    )
    tuned = Tuned(sampler, rewards, [({"letters": 1.0}, tmp_path / LORA)])
    asked, seeds = PROMPTS * 16, list(range(48))
    before, after = (
        letters(one.draw({}, asked, seeds), asked).mean() for one in (BaseModel(sampler), tuned)
    )
    assert after > before + 0.1


def test_what_is_logged_and_what_it_cost(train, tmp_path):
    cost = train(tmp_path, preference={"letters": 1.0, "size": 3.0})
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    for line in lines:
        weighted = 0.25 * line["z/letters"] + 0.75 * line["z/size"]
        assert line["reward"] == pytest.approx(weighted, abs=1e-4)
        assert 0 < line["length"] <= TOKENS
    assert cost.scored == 3 * 8 * 2
    # A pass for each token of a batch until all its responses have ended, one of the base model,
    # and one that learns.
    learning = 3 * 8 * (3 + 1)
    assert learning + 3 * 8 <= cost.forwards <= learning + 3 * 8 * TOKENS
    assert cost.forwards % 8 == 0
    assert Cost.from_dict(json.loads((tmp_path / "cost.json").read_text())) == cost


def test_a_base_model_nearby_holds_it_back(train, tmp_path):
    settings = {"steps": 12, "groups": 4, "group_size": 8, "minibatch": 32}
    changes = []
    for beta in (0.0, 5.0):
        train(tmp_path / str(beta), replace(CONFIG, beta=beta, **settings))
        log = [json.loads(line) for line in (tmp_path / str(beta) / "log.jsonl").open()]
        made = read_run(FAMILY, tmp_path / str(beta) / LORA)
        changes.append(sum(made.delta(name).square().sum().item() for name in made.modules))
    assert log[0]["kl"] == pytest.approx(0.0, abs=1e-4) and log[-1]["kl"] > 0
    assert changes[1] < 0.5 * changes[0]


def test_only_the_layers_of_our_own_config_are_trained(train, tmp_path, model):
    train(tmp_path)
    made = read_run(FAMILY, tmp_path / LORA)
    assert made.config["r"] == 4 and made.scale == 2.0
    assert not any("lm_head" in name or "embed" in name for name in made.modules)
    assert any(made.delta(name).abs().max() > 0 for name in made.modules)
    lora.check_fit(RiCCausalLM.from_pretrained(model).model, made)


def test_it_repeats_and_leaves_the_global_generator_alone(train, tmp_path):
    torch.manual_seed(1)
    first = torch.rand(1)
    torch.manual_seed(1)
    one = train(tmp_path / "a")
    assert torch.equal(torch.rand(1), first)
    other = train(tmp_path / "b")
    assert same(tensors(tmp_path / "a"), tensors(tmp_path / "b"))
    assert one.forwards == other.forwards
    train(tmp_path / "c", replace(CONFIG, seed=1))
    assert not same(tensors(tmp_path / "a"), tensors(tmp_path / "c"))


def test_resumed_it_is_the_same_run(train, tmp_path, monkeypatch):
    whole = train(tmp_path / "whole")
    real, calls = Reward.__call__, []

    def interrupted(self, *given, **others):
        calls.append(1)
        if len(calls) == 4:  # of two rewards, in the second step
            raise KeyboardInterrupt
        return real(self, *given, **others)

    monkeypatch.setattr(Reward, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut")
    assert not (tmp_path / "cut" / "cost.json").exists()
    with pytest.raises(InputError, match="holds a run already"):
        train(tmp_path / "cut")
    cost = train(tmp_path / "cut", resume=True)
    assert same(tensors(tmp_path / "whole"), tensors(tmp_path / "cut"))
    assert (cost.forwards, cost.scored) == (whole.forwards, whole.scored)
    logs = [(tmp_path / run / "log.jsonl").read_text() for run in ("whole", "cut")]
    assert logs[0] == logs[1]
    with pytest.raises(InputError, match=r"other grpo\.learning_rate \(0\.02, now 0\.001\)"):
        train(tmp_path / "cut", replace(CONFIG, learning_rate=1e-3), resume=True)


def test_a_run_can_be_made_longer(train, tmp_path):
    train(tmp_path / "whole", replace(CONFIG, steps=4))
    train(tmp_path / "longer", replace(CONFIG, steps=2))
    train(tmp_path / "longer", replace(CONFIG, steps=4), resume=True)
    assert same(tensors(tmp_path / "whole"), tensors(tmp_path / "longer"))
    assert len(reward_curve(tmp_path / "longer")[0]) == 4


def test_a_model_unpacked_from_gguf_is_trained_as_any_other(train, tmp_path, monkeypatch):
    train(tmp_path / "plain", replace(CONFIG, steps=1))

    def unpacked(*given, **others):
        backend = plain_backend(*given, **others)
        backend.lm.model.is_quantized = True
        return backend

    monkeypatch.setattr(grpo, "plain_backend", unpacked)
    train(tmp_path / "unpacked", replace(CONFIG, steps=1))
    assert same(tensors(tmp_path / "plain"), tensors(tmp_path / "unpacked"))


def test_rewards_are_those_of_what_the_sampler_would_give(model, rewards):
    sampler = LlmSampler(RiCCausalLM.from_pretrained(model))
    seen = []

    def scorer(texts, prompts):
        seen.append((texts, prompts))
        return size(texts, prompts)

    reward = Reward(sampler, rewards, "size", scorer)
    words, end = sampler.lm.tokenizer, sampler.lm.chat.end

    def ids(text, *ends):
        return [*words(text, add_special_tokens=False).input_ids, *ends]

    said = [ids("Yes. And no", end), ids("Yes. And no"), ids("no"), [end]]
    z = reward(prompts=[[{"content": "why?"}]] * 4, completion_ids=said)
    ((texts, prompts),) = seen
    assert texts == ["Yes. And no", "Yes.", "no", ""] and prompts == ["why?"] * 4
    mean, std = rewards.rewards[1].mean, rewards.rewards[1].std
    assert z[:3] == pytest.approx([(-n - mean) / std for n in (11, 4, 2)])
    assert z[3] == z[0]  # nothing is not brief, but as bad as the worst
    with pytest.raises(FloatingPointError, match="every response is empty"):
        reward(prompts=[[{"content": "why?"}]], completion_ids=[[end]])


def test_every_prompt_as_often_as_every_other():
    order = order_of(3, 7, seed=0)
    assert sorted(order[:3]) == sorted(order[3:6]) == [0, 1, 2] and len(order) == 7
    assert order_of(3, 4, seed=0) == order[:4]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 0}, "steps is 0"),
        ({"group_size": 1}, "group_size is 1; give 2 or more"),
        ({"minibatch": 3}, "minibatch is 3; give a divisor of groups x group_size = 8"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
    ],
)
def test_bad_configs(changes, said):
    with pytest.raises(ValueError, match=said):
        replace(CONFIG, **changes)


def test_what_it_needs(train, rewards, tmp_path, monkeypatch):
    plain = str(write_lm(tmp_path / "plain", kind="gpt2"))
    with pytest.raises(InputError, match="has no chat template"):
        train_grpo(plain, rewards, {"size": 1.0}, PROMPTS, [letters, size], LLM_CONFIG, CONFIG,
                   tmp_path / "out")  # fmt: skip
    monkeypatch.setattr(grpo.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="GRPO needs trl, which is not installed"):
        train(tmp_path / "out")
    assert not (tmp_path / "out").exists()
