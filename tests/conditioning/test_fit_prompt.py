import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ric_diffusion.conditioning.grammar import Grammar, fit_prompt
from ric_diffusion.io.errors import InputError

NAMES = ("colorfulness", "compressibility", "aesthetic", "clip_score")
WORDS = ["", *(Grammar.words(NAMES).reward_words(dict.fromkeys(NAMES[:n], -1.5)) for n in (1, 2))]
UPSTREAM = Grammar.upstream(NAMES).reward_words(dict.fromkeys(NAMES[:3], 0.4))
PROMPTS = {
    "short": "red apple",
    "empty": "",
    "one long word": "m" * 300,
    "a short word, then a long one": "red " + "xq" * 300,
    "emoji": "\U0001f34e\U0001f469\u200d\U0001f680\ufe0f" * 60,
    "emoji apart": "\U0001f34e " * 400,
    "chinese": "\u4e00\u53ea\u7ea2\u8272\u7684\u82f9\u679c" * 80,
    "thousands of words": "a painting of a red apple, " * 1000,
    "lines": "red\napple\n" * 100,
    "blanks": " " * 500 + "apple" + " " * 500,
    "accents": "e\u0301a\u0328\u0301" * 200,
    "punctuation": "!?.,;" * 200,
    "special tokens": "<|endoftext|>" * 100,
    "lookalikes": "<_colorfulness> 1.5 " * 50,
}


def tokens(tokenizer, text):
    return tokenizer(text, add_special_tokens=False, verbose=False).input_ids


def check(prompt, words, tokenizer):
    """Every promise of ``fit_prompt``; returns what is left of the prompt."""
    text = fit_prompt(prompt, words, tokenizer)
    limit = tokenizer.model_max_length
    assert text.endswith(words)
    kept = text[: len(text) - len(words)]
    assert prompt.startswith(kept)
    if len(tokenizer(prompt + words, verbose=False).input_ids) <= limit:
        assert kept == prompt
    ids = tokenizer(text, verbose=False).input_ids
    assert len(ids) <= limit
    # What the pipeline makes of it: nothing is cut off, and the words come last.
    cut = tokenizer(text, truncation=True, max_length=limit).input_ids
    assert cut == ids
    own = tokens(tokenizer, words)
    assert ids[len(ids) - 1 - len(own) : -1] == own
    return kept


@pytest.mark.parametrize("words", WORDS, ids=["none", "one", "two"])
@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
@pytest.mark.parametrize("name", ["clip", "short"])
def test_the_prompt_is_cut_and_never_the_words(request, name, prompt, words):
    check(prompt, words, request.getfixturevalue(name))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=120), st.integers(1, 6), st.sampled_from(WORDS))
@pytest.mark.parametrize("name", ["clip", "short"])
def test_any_prompt_fits(request, name, text, times, words):
    check(text * times, words, request.getfixturevalue(name))


@pytest.mark.parametrize("name", ["clip", "short"])
def test_the_prompt_ends_at_a_word_and_uses_its_room(request, name):
    tokenizer = request.getfixturevalue(name)
    prompt = " ".join(f"apple number {i} is red" for i in range(99))
    for words in WORDS[1:]:
        kept = check(prompt, words, tokenizer)
        assert prompt[len(kept)] == " "
        following = " " + prompt[len(kept) + 1 :].split(" ")[0]
        length = len(tokenizer(kept + following + words, verbose=False).input_ids)
        assert length > tokenizer.model_max_length


def test_the_budget_is_the_tokenizers(clip, short):
    words = WORDS[1]
    for tokenizer, limit in ((clip, 77), (short, 32)):
        text = fit_prompt("apple " * 200, words, tokenizer)
        assert len(tokenizer(text).input_ids) == limit
        assert text.count("apple") == limit - 2 - len(tokens(tokenizer, words))


def test_a_full_context_leaves_no_prompt(clip):
    words = next(w for n in range(99) if len(tokens(clip, w := " apple" * n)) == 75)
    assert fit_prompt("red", words, clip) == words
    assert fit_prompt("\U0001f34e", words, clip) == words


def test_a_prompt_that_is_one_word_is_cut_inside_it(clip):
    words = WORDS[1]
    text = fit_prompt("apple" * 200, words, clip)
    kept = text.removesuffix(words)
    assert text.endswith(words) and len(kept) > 50 and kept == ("apple" * 200)[: len(kept)]


def test_upstream_words_without_a_blank_fit_too(clip):
    text = fit_prompt("a red apple. " * 50 + "...", UPSTREAM, clip)
    assert text.endswith(UPSTREAM)
    assert len(clip(text, verbose=False).input_ids) <= 77


def test_words_that_do_not_fit_are_refused(tiny, clip):
    with pytest.raises(InputError, match="10 tokens cannot hold it; ask for fewer rewards") as one:
        fit_prompt("red", WORDS[1], tiny)
    with pytest.raises(InputError, match="75 tokens"):
        fit_prompt("red", WORDS[1] * 20, clip)
    assert "\n" not in str(one.value)
