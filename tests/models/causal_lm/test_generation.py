"""Batched generation is what each response would have been alone."""

import time

import pytest
import torch

from ric_diffusion.models.causal_lm.generation import Draw, Guided, Sampling, generate
from ric_diffusion.models.causal_lm.sampler import LlmSampler
from ric_diffusion.models.causal_lm.texts import whole_sentences
from ric_diffusion.models.cost import Meter
from ric_diffusion.rewards import opposite

PROMPTS = ["why?", "how do i bake a cake?", "tell me about the sea. " * 3, "two tips", ""]
TARGETS = [{}, {"positivity": 1.5}, {"brevity": -1.0}, {"positivity": -2, "brevity": 2}, {}]
SEEDS = [3, 4, 5, 6, 2**63 - 1]
GREEDY = {"temperature": 0.0, "response_tokens": 24}
DRAWN = {"temperature": 1.0, "response_tokens": 24}
GUIDED = DRAWN | {"guidance_scale": 2.5}


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN, GUIDED])
@pytest.mark.parametrize("mode", ["embedding", "text"])
def test_a_batch_is_its_parts(lm, adapters, mode, sampling):
    lm.load_adapter(adapters[mode])
    sampler = LlmSampler(lm, sampling)
    together = sampler.sample(PROMPTS, TARGETS, SEEDS)
    apart = [
        sampler.sample([p], [t], [s])[0] for p, t, s in zip(PROMPTS, TARGETS, SEEDS, strict=True)
    ]
    assert together == apart
    assert len(set(together)) >= len(PROMPTS) - 1  # two are all on auto, which drowns prompts here


def test_greedy_is_the_models_own(lm):
    """Without an adapter: what transformers' generate says to the template's tokens."""
    (ours,) = LlmSampler(lm, GREEDY).sample(["why?"], [{}], [0])
    ids = lm.tokenizer.apply_chat_template(
        [{"role": "user", "content": "why?"}], add_generation_prompt=True, return_tensors="pt"
    )["input_ids"]
    theirs = lm.model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False,
        eos_token_id=lm.chat.stops, pad_token_id=lm.chat.end,
    )[0, ids.shape[1] :]  # fmt: skip
    text = lm.tokenizer.decode(theirs, skip_special_tokens=True).strip()
    assert ours and text.startswith(ours)


@pytest.mark.parametrize("sampling", [GREEDY, DRAWN])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_model_that_says_no_numbers_responds_nothing(lm, sampling, wrong):
    def spoil(module, args, logits):
        logits[0, -1, 5] = wrong
        return logits

    hook = lm.model.get_output_embeddings().register_forward_hook(spoil)
    try:
        with pytest.raises(FloatingPointError, match="of the next token: not finite"):
            LlmSampler(lm, sampling).sample(["why?"], [{}], [0])
    finally:
        hook.remove()


def test_seeds_draw_and_nothing_else_does(lm):
    sampler = LlmSampler(lm, DRAWN)
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    one = sampler.sample(["why?"] * 3, [{}] * 3, [7, 7, 8])
    torch.manual_seed(2)
    other = sampler.sample(["why?"] * 3, [{}] * 3, [7, 7, 8])
    torch.random.set_rng_state(state)
    assert one == other and one[0] == one[1] != one[2]


def test_drawn_tokens_have_the_models_probabilities():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    sampling = Sampling(temperature=0.5, top_p=1.0)
    draw = Draw(sampling, [0])
    counts = torch.zeros(4)
    for _ in range(4000):
        counts[draw(torch.zeros(1, 0), logits).argmax()] += 1
    wanted = (logits[0] / 0.5).softmax(0)
    assert (counts / 4000 - wanted).abs().max() < 0.03


def test_top_p_leaves_the_unlikely_out():
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0]])  # 0.03, 0.09, 0.24, 0.64
    for top_p, most in ((0.5, 1), (0.7, 2), (0.9, 3), (1.0, 4)):
        draw = Draw(Sampling(temperature=1.0, top_p=top_p), [1])
        seen = {int(draw(torch.zeros(1, 0), logits).argmax()) for _ in range(300)}
        assert seen == set(range(4 - most, 4))


def test_guidance_by_hand():
    """Probabilities of a half and an eighth, guided thrice as far: 1/2 (4)³ against 1/2 (4/7)³."""
    rewards, auto = (
        torch.tensor([[0.5, 0.5], [0.5, 0.5]]),
        torch.tensor([[1 / 8, 7 / 8], [0.5, 0.5]]),
    )
    logits = torch.cat([rewards, auto]).log() + torch.arange(4.0)[:, None]
    found = Guided(3.0)(torch.zeros(4, 0), logits)
    assert found.shape == (4, 2) and torch.equal(found[:2], found[2:])
    wanted = torch.tensor([(1 / 8) * 4.0**3, (7 / 8) * (4 / 7) ** 3])
    assert torch.allclose(found[0].softmax(0), wanted / wanted.sum(), atol=1e-6)
    assert torch.allclose(found[1].softmax(0), torch.tensor([0.5, 0.5]))


@pytest.mark.parametrize("mode", ["embedding", "text"])
def test_guidance_starts_where_all_are_on_auto(lm, adapters, mode):
    lm.load_adapter(adapters[mode])
    asked, prompts = TARGETS[1:4], PROMPTS[1:4]
    said = {
        scale: LlmSampler(lm, GREEDY | {"guidance_scale": scale}).sample(prompts, asked, [0] * 3)
        for scale in (0.0, 1.0, 4.0)
    }
    assert said[0.0] == LlmSampler(lm, GREEDY).sample(prompts, [{}] * 3, [0] * 3)
    assert said[1.0] == LlmSampler(lm, GREEDY).sample(prompts, asked, [0] * 3)
    assert len({tuple(texts) for texts in said.values()}) == 3


@pytest.mark.parametrize("mode", ["embedding", "text"])
def test_contrast_starts_where_the_opposite_is_asked(lm, adapters, mode):
    lm.load_adapter(adapters[mode])
    asked, prompts, space = TARGETS[1:4], PROMPTS[1:4], lm.adapter.space
    for times in (0.5, 1.5):
        away = [opposite(z, space, times) for z in asked]
        plain = LlmSampler(lm, GREEDY).sample(prompts, away, [0] * 3)
        settings = GREEDY | {"guidance_scale": 0.0, "contrast": times}
        assert LlmSampler(lm, settings).sample(prompts, asked, [0] * 3) == plain
    auto = GREEDY | {"guidance_scale": 4.0}
    said = [
        LlmSampler(lm, settings).sample(prompts, asked, [0] * 3)
        for settings in (auto, auto | {"contrast": 0.0}, auto | {"contrast": 1.0})
    ]
    assert said[0] == said[1] != said[2]


def test_guidance_takes_twice_the_passes_where_there_are_rewards(lm, adapters):
    def passes(sampling):
        sampler = LlmSampler(lm, {"temperature": 0.0, "response_tokens": 1, **sampling})
        meter = Meter()
        with meter.running(sampler.network()):
            sampler.sample(["why?", "two tips"], [{}, {"brevity": 1.0}], [0, 1])
        return meter.read().forwards

    assert passes({"guidance_scale": 3.0}) == passes({}) == 2
    lm.load_adapter(adapters["text"])
    assert (passes({}), passes({"guidance_scale": 3.0})) == (2, 4)


def test_a_response_ends_where_it_ended(lm):
    contexts = [torch.zeros(2, 32), torch.zeros(3, 32)]

    class Scripted:
        def get_input_embeddings(self):
            return lm.model.get_input_embeddings()

        def generate(self, **given):
            assert given["inputs_embeds"].shape == (2, 3, 32)
            assert given["attention_mask"].tolist() == [[0, 1, 1], [1, 1, 1]]
            return torch.tensor([[5, 6, 1, 1, 1], [5, 6, 5, 6, 5]])

    found = generate(Scripted(), contexts, [0, 0], Sampling(temperature=0.0), [1])
    assert found == [[5, 6, 1], [5, 6, 5, 6, 5]]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("One. Two. Thr", "One. Two."),
        ('He said "no!" And th', 'He said "no!"'),
        ("First line.\nSecond li", "First line."),
        ("version 1.2 of the th", "version 1.2 of the th"),
        ("no end at all", "no end at all"),
        ("It ends.", "It ends."),
        ("Here are some tips:\n\n1. Start with fr", "Here are some tips:\n\n1. Start with fr"),
        ("1. Wash it. 2. Boil", "1. Wash it."),
        ("**Steps:** **1.** Wash it.\n**2.** Bo", "**Steps:** **1.** Wash it."),
        ("Ask Dr. Smith, e.g. on Mon", "Ask Dr. Smith, e.g. on Mon"),
        ("It was built in 1990. Then it", "It was built in 1990."),
        ("", ""),
    ],
)
def test_a_cut_text_ends_with_a_sentence(text, kept):
    assert whole_sentences(text) == kept


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1},
        {"top_p": 0},
        {"top_p": 1.1},
        {"response_tokens": 0},
        {"steering": -0.1},
        {"guidance_scale": -0.1},
        {"guidance_scale": float("inf")},
        {"contrast": -0.1},
        {"contrast": 101},
        {"steering": 1e308},
        {"temperature": 1e308},
        {"response_tokens": 10**12},
        {"steering": float("nan")},
    ],
)
def test_settings_that_cannot_be(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Sampling(**wrong)


def test_a_batch_is_faster_than_its_parts(lm):
    sampler = LlmSampler(lm, {"temperature": 0.0, "response_tokens": 12})
    start = time.process_time()
    sampler.sample(["why?"] * 12, [{}] * 12, range(12))
    middle = time.process_time()
    for i in range(12):
        sampler.sample(["why?"], [{}], [i])
    assert 3 * (middle - start) < time.process_time() - middle
