import pytest
import torch

from ric_diffusion.conditioning.conditioner import (
    Conditioner,
    EmbeddingConditioner,
    TextConditioner,
    new_conditioner,
)
from ric_diffusion.conditioning.encoder import RewardEncoder, as_values
from ric_diffusion.conditioning.grammar import Grammar
from ric_diffusion.io.errors import InputError

NAMES = ("colorfulness", "compressibility")
PROMPTS = ["red apple", "a <colorfulness> 9.9 " + "very " * 99]
TARGETS = [{"compressibility": 1.26}, {"colorfulness": -0.5, "compressibility": 0.0}]
WIDTH = 24


@pytest.fixture
def text() -> Conditioner:
    return TextConditioner(Grammar.words(NAMES))


@pytest.fixture
def embedding() -> Conditioner:
    torch.manual_seed(0)
    return EmbeddingConditioner(RewardEncoder(NAMES, WIDTH, hidden=16).eval())


def context_of(conditioner: Conditioner, tokenizer, targets=TARGETS, dtype=torch.float32):
    """As training and inference do: texts, states of a stand-in text encoder, context."""
    texts = conditioner.texts(PROMPTS, targets, [tokenizer])
    length = tokenizer.model_max_length
    ids = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
    table = torch.randn(len(tokenizer), WIDTH, generator=torch.Generator().manual_seed(0))
    states = table[ids].to(dtype)
    assert states.shape == (2, length, WIDTH)
    return states, conditioner.context(states, targets)


def test_words_end_the_text_and_the_context_is_the_texts(text, short):
    texts = text.texts(PROMPTS, TARGETS, [short])
    assert texts[0] == "red apple <compressibility> 1.3"
    assert texts[1].startswith("a <_colorfulness> 9.9 very")
    assert texts[1].endswith("very <colorfulness> -0.5 <compressibility> 0.0")
    assert all(len(short(t).input_ids) <= 32 for t in texts)
    states, context = context_of(text, short)
    assert torch.equal(context, states)


def test_the_values_that_words_carry_are_rounded(text, embedding):
    assert text.used({"colorfulness": 1.26, "compressibility": -0.04}) == {
        "colorfulness": 1.3,
        "compressibility": 0.0,
    }
    assert embedding.used({"colorfulness": 1.26}) == {"colorfulness": 1.26}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_tokens_follow_the_states_one_for_each_reward(embedding, short, dtype):
    assert embedding.texts(PROMPTS, TARGETS, [short]) == PROMPTS
    states, context = context_of(embedding, short, dtype=dtype)
    assert context.shape == (2, 32 + 2, WIDTH) and context.dtype == dtype
    assert torch.equal(context[:, :32], states)
    assert torch.equal(context[:, 32:], embedding.encoder(as_values(TARGETS, NAMES)).to(dtype))


def test_a_context_is_as_long_whatever_is_asked_for(embedding, short):
    """Guidance puts both branches into one batch: auto needs as many tokens as a value."""
    asked = context_of(embedding, short)[1]
    auto = context_of(embedding, short, targets=[{}, {}])[1]
    assert auto.shape == asked.shape
    assert not torch.allclose(auto[:, 32:], asked[:, 32:], atol=1e-2)


def test_states_that_a_user_computed(text, embedding):
    states = torch.randn(2, 5, WIDTH)
    assert torch.equal(text.context_of_states(states, [{}, {}]), states)
    with pytest.raises(InputError, match="prompt_embeds") as error:
        text.context_of_states(states, TARGETS)
    assert "\n" not in str(error.value)
    given = embedding.context_of_states(states, TARGETS)
    assert given.shape == (2, 7, WIDTH)
    assert torch.equal(given, embedding.context(states, TARGETS))


def test_what_is_learned(text, embedding):
    assert dict(text.named_parameters()) == {}
    learned = dict(embedding.named_parameters()).values()
    assert learned and all(p.requires_grad for p in learned)
    assert {id(p) for p in learned} == {id(p) for p in embedding.encoder.parameters()}


def test_gradients_flow_through_the_context(embedding, short):
    context_of(embedding, short)[1].square().sum().backward()
    assert all(p.grad is not None for _, p in embedding.named_parameters())


def test_a_model_of_another_width_is_refused(text, embedding):
    text.check_width(1024)
    embedding.check_width(WIDTH)
    with pytest.raises(InputError) as error:
        embedding.check_width(1024)
    assert str(error.value) == (
        "reward tokens are 24 wide, the model's context is 1024: the adapter was trained on "
        "another architecture"
    )


@pytest.mark.parametrize("mode", ["text", "embedding"])
def test_both_are_told_apart_by_mode_and_know_their_rewards(request, mode):
    conditioner = request.getfixturevalue(mode)
    assert conditioner.mode == mode
    assert conditioner.names == NAMES


def test_one_target_dict_for_each_prompt(text, short):
    with pytest.raises(ValueError, match="zip"):
        text.texts(PROMPTS, TARGETS[:1], [short])


def test_a_new_one_of_each_kind():
    words = new_conditioner("text", "words", NAMES, WIDTH)
    assert isinstance(words, TextConditioner) and words.grammar == Grammar.words(NAMES)
    upstream = new_conditioner("text", "upstream", NAMES, WIDTH)
    assert isinstance(upstream, TextConditioner) and upstream.grammar == Grammar.upstream(NAMES)
    learned = new_conditioner("embedding", "words", NAMES, WIDTH, time_width=12, layers=3)
    assert isinstance(learned, EmbeddingConditioner) and learned.encoder.names == NAMES
    learned.check_width(WIDTH)
    with pytest.raises(InputError):
        learned.check_width(WIDTH + 1)
    assert learned.steering(TARGETS).shape == (2, 3, WIDTH)
    learned.encoder.check_fit(time_width=12, layers=3)
    plain = new_conditioner("embedding", "words", NAMES, WIDTH).encoder
    assert (plain.hidden, plain.time_width, plain.layers) == (256, 0, 0)


def test_shifts_of_layers_are_scaled_from_those_of_auto():
    learned = new_conditioner("embedding", "words", NAMES, WIDTH, layers=2)
    torch.nn.init.normal_(learned.encoder.steering.out.weight)
    auto, whole = learned.steering([{}, {}]), learned.steering(TARGETS)
    assert not torch.allclose(auto, whole)
    assert torch.allclose(learned.steering(TARGETS, 0.25), auto + 0.25 * (whole - auto), atol=1e-6)
    assert new_conditioner("text", "words", NAMES, WIDTH).steering(TARGETS) is None


def test_what_is_learned_moves(embedding):
    embedding.to("meta")
    assert {parameter.device.type for parameter in embedding.encoder.parameters()} == {"meta"}
