"""The baselines of language models, on the tiny one."""

import json

import numpy as np
import pytest
import torch

from ric_diffusion.data.label import label_folder
from ric_diffusion.data.records import read_labelled
from ric_diffusion.data.responses import write_responses
from ric_diffusion.errors import InputError
from ric_diffusion.evaluation.baselines.llm import LlmBase, LlmSoup, llm_subject, train_llm_sft
from ric_diffusion.evaluation.baselines.sft import best_records_for
from ric_diffusion.evaluation.baselines.subjects import preference_points
from ric_diffusion.evaluation.evaluate import evaluate
from ric_diffusion.evaluation.scoring import load_scorers
from ric_diffusion.evaluation.subject import Setup
from ric_diffusion.llm.backend import LlmConfig, LlmLora
from ric_diffusion.llm.model import RiCCausalLM
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
        train_llm_sft(
            str(home / "model"), best, home / "labelled", space, CONFIG, LOOP, home / name
        )
    return home


@pytest.fixture
def lm(home):
    return RiCCausalLM.from_pretrained(str(home / "model"))


@pytest.fixture
def space(home):
    return read_labelled(home / "labelled")[1]


@pytest.fixture
def soup(home, lm, space):
    files = {name: home / name / "adapter" for name in space.names}
    return LlmSoup("rewarded soup", lm, GREEDY, space, files)


def test_training_leaves_a_lora_and_its_cost(home, lm, space):
    assert json.loads((home / "brevity" / "cost.json").read_text())["forwards"] == 3 * 4 * 4
    records, _ = read_labelled(home / "labelled")
    with pytest.raises(InputError, match="holds a run already"):
        train_llm_sft(
            str(home / "model"), records, home / "labelled", space, CONFIG, LOOP, home / "brevity"
        )


def test_a_corner_of_the_soup_is_that_rewards_own_model(home, lm, soup, space):
    base = LlmBase(lm, GREEDY).draw({}, ASKS, SEEDS)
    for name in space.names:
        own = LlmSoup("sft", lm, GREEDY, space, home / name / "adapter")
        alone = own.draw({name: 1.0}, ASKS, SEEDS)
        assert soup.draw({name: 1.0}, ASKS, SEEDS) == alone != base
        assert own.draw({"positivity": 0.5, "brevity": 0.5}, ASKS, SEEDS) == alone
    assert LlmBase(lm, GREEDY).draw({}, ASKS, SEEDS) == base


def test_the_middle_of_the_soup_has_the_mean_of_the_deltas(lm, soup):
    from ric_diffusion.conditioning import lora
    from ric_diffusion.evaluation.baselines.soups import mixture

    mixed = mixture(soup.loras, [0.25, 0.75])
    lora.install(lm.model, mixed)
    embeds = lm.embed([5, 6, 7])[None]
    with torch.no_grad():
        ours = lm.model(inputs_embeds=embeds).logits
    lora.eject(lm.model)
    originals = lora.merge(lm.model, mixed)
    with torch.no_grad():
        theirs = lm.model(inputs_embeds=embeds).logits
    lora.restore(lm.model, mixed, originals)
    assert torch.allclose(ours, theirs, atol=1e-4)
    for name in mixed.modules[:3]:
        wanted = 0.25 * soup.loras[0].delta(name) + 0.75 * soup.loras[1].delta(name)
        assert torch.allclose(mixed.delta(name), wanted, atol=1e-5)


def test_a_soup_without_an_ingredient(home, lm, space):
    with pytest.raises(InputError, match="one LoRA for each of positivity, brevity"):
        LlmSoup("soup", lm, GREEDY, space, {"brevity": home / "brevity" / "adapter"})


def test_a_baseline_needs_the_base_model(home, lm):
    lm.load_adapter(home / "brevity" / "adapter")
    with pytest.raises(InputError, match="the base model alone"):
        LlmBase(lm, GREEDY)


def test_they_are_evaluated(lm, soup, space, home, tmp_path):
    points = preference_points(space, 3)
    folders = [home / name / "adapter" for name in space.names]
    setup = Setup(space=space, prompts=ASKS, seeds=[1, 2], scorers=load_scorers(space))
    outcome = evaluate(llm_subject(soup, points, folders), setup, tmp_path)
    assert outcome.scores.shape == (3, 2, 2, 2) and outcome.cost.forwards > 0
    other = llm_subject(soup, points, folders[:1])
    assert other.about != llm_subject(soup, points, folders).about
