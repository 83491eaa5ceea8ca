"""The baselines of language models, on the tiny one."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from baselines.base import BaseModel, Tuned
from baselines.families import installed, lora_file, merged
from baselines.methods import baseline_method
from baselines.sft import best_records_for, train_sft
from baselines.soups import Soup, mixture
from ric_diffusion.data.label import label_folder
from ric_diffusion.data.records import read_labelled
from ric_diffusion.data.responses import write_responses
from ric_diffusion.data.scoring import load_scorers
from ric_diffusion.evaluation.config import EvaluationConfig
from ric_diffusion.evaluation.grid import preference_points
from ric_diffusion.evaluation.runner import evaluate
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.causal_lm.backend import LlmConfig, LlmLora
from ric_diffusion.models.causal_lm.family import FAMILY
from ric_diffusion.models.causal_lm.model import RiCCausalLM
from ric_diffusion.models.causal_lm.sampler import LlmSampler
from ric_diffusion.training.loop import LoopConfig
from scorers import load
from support.lm import write_lm

GREEDY = {"temperature": 0.0, "response_tokens": 12}
ASKS, SEEDS = ["why?", "two tips"], [0, 0]
LOOP = LoopConfig(steps=4, batch_size=4, learning_rate=0.03, ema=0.0)
CONFIG = LlmConfig(lora=LlmLora(rank=4, alpha=8))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A model, labelled responses, and a LoRA trained on the best for each reward."""
    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("home")
    write_lm(home / "model")
    rng = np.random.default_rng(0)
    words = ["good", "bad", "happy", "terrible", "sea"]
    rows = [(ASKS[i % 2], " ".join(rng.choice(words, 1 + i % 5))) for i in range(20)]
    write_responses(rows, home / "said")
    scorers = [load("positivity"), load("brevity")]
    label_folder(home / "said", home / "labelled", scorers, progress=False)
    records, space = read_labelled(home / "labelled")
    for name in space.names:
        best = best_records_for(records, space, {name: 1.0}, 0.3)
        train_sft(str(home / "model"), best, home / "labelled", space, CONFIG, LOOP, home / name)
    return home


@pytest.fixture
def sampler(home):
    return LlmSampler(RiCCausalLM.from_pretrained(str(home / "model")), GREEDY)


@pytest.fixture
def space(home):
    return read_labelled(home / "labelled")[1]


@pytest.fixture
def files(home, space):
    return {name: home / name / lora_file(FAMILY) for name in space.names}


def test_training_leaves_a_lora_and_its_cost(home, space):
    assert json.loads((home / "brevity" / "cost.json").read_text())["forwards"] == 3 * 4 * 4
    records, _ = read_labelled(home / "labelled")
    with pytest.raises(InputError, match="holds a run already"):
        train_sft(
            str(home / "model"), records, home / "labelled", space, CONFIG, LOOP, home / "brevity"
        )


def test_a_run_is_not_resumed_with_other_scores(home, space):
    """They chose the records, and so belong to the run as they do in ``ric train``."""
    records, _ = read_labelled(home / "labelled")
    best = best_records_for(records, space, {"brevity": 1.0}, 0.3)
    given = home / "labelled", space, CONFIG, LOOP, home / "brevity"
    train_sft(str(home / "model"), best, *given, resume=True)
    others = [replace(r, scores=dict.fromkeys(r.scores, 0.0)) for r in best]
    with pytest.raises(InputError, match="with other records"):
        train_sft(str(home / "model"), others, *given, resume=True)


def test_a_corner_of_the_soup_is_that_rewards_own_model(sampler, files, space):
    soup = Soup(sampler, space, files)
    base = BaseModel(sampler).draw({}, ASKS, SEEDS)
    for name in space.names:
        own = Tuned(sampler, space, [({name: 1.0}, files[name])])
        alone = own.draw({name: 1.0}, ASKS, SEEDS)
        assert soup.draw({name: 1.0}, ASKS, SEEDS) == alone != base
        assert own.draw({"positivity": 0.5, "brevity": 0.5}, ASKS, SEEDS) == alone
    assert BaseModel(sampler).draw({}, ASKS, SEEDS) == base


def test_the_middle_of_the_soup_has_the_mean_of_the_deltas(sampler, files, space):
    soup = Soup(sampler, space, files)
    lm, mixed = sampler.lm, mixture(soup.loras, [0.25, 0.75])
    embeds = lm.embed([5, 6, 7])[None]
    with torch.no_grad():
        with installed(lm.model, mixed):
            ours = lm.model(inputs_embeds=embeds).logits
        with merged(lm.model, mixed):
            theirs = lm.model(inputs_embeds=embeds).logits
    assert torch.allclose(ours, theirs, atol=1e-4)
    for name in mixed.modules[:3]:
        wanted = 0.25 * soup.loras[0].delta(name) + 0.75 * soup.loras[1].delta(name)
        assert torch.allclose(mixed.delta(name), wanted, atol=1e-5)


def test_a_soup_without_an_ingredient(sampler, files, space):
    with pytest.raises(InputError, match="one LoRA for each of positivity, brevity"):
        Soup(sampler, space, {"brevity": files["brevity"]})


def test_a_baseline_needs_the_base_model(home, sampler):
    sampler.lm.load_adapter(home / "brevity" / "adapter")
    with pytest.raises(InputError, match="the base model alone"):
        BaseModel(sampler)


def test_they_are_evaluated(sampler, files, space, tmp_path):
    soup, points = Soup(sampler, space, files), preference_points(space, 3)
    config = EvaluationConfig(space=space, prompts=ASKS, seeds=[1, 2], scorers=load_scorers(space))
    method = baseline_method("soup", soup, sampler, points, list(files.values()))
    found = evaluate(method, config, tmp_path)
    assert found.scores.shape == (3, 2, 2, 2) and found.cost.forwards > 0
    other = baseline_method("soup", soup, sampler, points, list(files.values())[:1])
    assert other.about != method.about
