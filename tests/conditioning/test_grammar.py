import json
import sys
import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ric_diffusion.conditioning.grammar import Grammar, rounded
from ric_diffusion.io.errors import InputError

NAMES = ("colorfulness", "compressibility", "aesthetic", "clip_score")
TWO = NAMES[:2]
GRAMMARS = [make(NAMES[:n]) for make in (Grammar.words, Grammar.upstream) for n in range(1, 5)]

untimed = settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
grammars = st.sampled_from(GRAMMARS)
blanks = st.text(" \t\n\r\x0b\x1f\x85\u00a0\u2003\u200b\u3000", max_size=2)
PIECES = ["<", ">", "<>", "_", "<_", "<<", "\\", r"\1", r"\g<0>", r"\_", "{prompt}", "%s"]
PIECES += ["<|endoftext|>", "1.5", "-0.4"]


@st.composite
def lookalikes(draw, grammar):
    """Anything from a reward word to something that only resembles one."""
    label = draw(st.sampled_from([*grammar.labels, *grammar.names]))
    label = draw(st.sampled_from([label, label.upper(), label.title(), label.swapcase()]))
    # Letters that resemble ASCII ones, and lower-case or case-fold to them.
    label = draw(
        st.sampled_from([label, label.replace("s", "\u017f"), label.replace("i", "\u0130")])
    )
    label = draw(st.sampled_from([label, label[:-1], label + "s", f"{label}><{label}"]))
    under = draw(st.sampled_from(["", "_", "__", "_____", "_ _"]))
    end = draw(st.sampled_from(["", " 1.5", " -0.4", " 1.55", " nan", "1.5", " ."]))
    return f"{draw(blanks)}<{draw(blanks)}{under}{label}{draw(blanks)}>{end}"


@st.composite
def prompts(draw, grammar):
    piece = st.text(max_size=6) | lookalikes(grammar) | st.sampled_from(PIECES) | blanks
    return "".join(draw(st.lists(piece, max_size=7)))


@st.composite
def cases(draw):
    grammar = draw(grammars)
    targets = draw(
        st.dictionaries(st.sampled_from(grammar.names), st.integers(-99, 99).map(lambda i: i / 10))
    )
    return grammar, draw(prompts(grammar)), targets


@untimed
@given(cases())
def test_parse_undoes_format(case):
    grammar, prompt, targets = case
    assert grammar.parse(grammar.format(prompt, targets)) == (prompt, targets)


@untimed
@given(cases())
def test_what_parse_accepts_is_what_format_writes(case):
    grammar, prompt, targets = case
    text = prompt + grammar.reward_words(targets)  # not escaped: often no text of ours
    try:
        found = grammar.parse(text)
    except InputError:
        return
    assert grammar.format(*found) == text


@untimed
@given(grammars, st.dictionaries(st.sampled_from(TWO), st.floats(-1e6, 1e6), min_size=1))
def test_values_are_carried_to_one_decimal(grammar, targets):
    targets = {name: value for name, value in targets.items() if name in grammar.names}
    _, found = grammar.parse(grammar.format("", targets))
    assert found == rounded(targets)
    assert all(abs(found[name] - value) <= 0.05 + 1e-9 for name, value in targets.items())


def tokens(tokenizer, text):
    return tokenizer(text, add_special_tokens=False, verbose=False).input_ids


def contains(ids, part):
    return any(ids[i : i + len(part)] == part for i in range(len(ids) - len(part) + 1))


@untimed
@given(cases())
@pytest.mark.parametrize("name", ["clip", "short"])
def test_no_prompt_has_the_tokens_of_a_reward_word(request, name, case):
    tokenizer = request.getfixturevalue(name)
    grammar, prompt, targets = case
    ids = tokens(tokenizer, grammar.escape(prompt))
    for label in grammar.labels:
        assert not contains(ids, tokens(tokenizer, f"<{label}>"))
    # The words themselves do have them, whatever stands before.
    text = tokens(tokenizer, f"{grammar.escape(prompt)} {grammar.reward_words(targets)}")
    assert sum(contains(text, tokens(tokenizer, f"<{label}>")) for label in grammar.labels) == len(
        targets
    )


def test_no_character_hides_a_reward_word_from_the_escape(clip):
    """Characters that a tokenizer drops, and those it takes for an ASCII letter."""
    grammar = Grammar.words(("skill",))
    word = tokens(clip, "<skill>")
    every = [chr(i) for i in range(sys.maxunicode + 1) if not 0xD800 <= i < 0xE000]
    dropped = [c for c in every if unicodedata.category(c) in ("Cc", "Cf", "Zs", "Zl", "Zp")]
    forged = [f"<{c}skill>" for c in dropped] + [f"<skill{c}>" for c in dropped]
    for c in every:
        plain = set(unicodedata.normalize("NFC", c).lower()) & set("skil")
        forged += ["<skill>".replace(letter, c) for letter in plain]
    succeed = [text for text in forged if contains(tokens(clip, text), word)]
    assert {"<s\u212aill>", "<\u3000skill>"} <= set(succeed)
    for text in forged:
        assert not contains(tokens(clip, grammar.escape(text)), word), ascii(text)


def test_the_words_of_the_documentation():
    targets = {"compressibility": -0.4, "colorfulness": 1.5}
    text = Grammar.words(TWO).format("red apple", targets)
    assert text == "red apple <colorfulness> 1.5 <compressibility> -0.4"
    assert Grammar.words(TWO).format("red apple", {"compressibility": 2}) == (
        "red apple <compressibility> 2.0"
    )
    assert Grammar.words(TWO).format("red apple", {}) == "red apple"


def test_upstream_writes_what_the_released_checkpoints_read():
    grammar = Grammar.upstream(("aesthetic", "compressibility"))
    targets = {"aesthetic": 1.2, "compressibility": -0.4}
    assert grammar.format("a cat.", targets) == "a cat.<rm1> 1.2<rm2> -0.4"
    assert grammar.parse("a cat.<rm2> -0.4") == ("a cat.", {"compressibility": -0.4})


def test_there_is_no_negative_zero():
    text = Grammar.words(TWO).format("x", {"colorfulness": -0.04, "compressibility": -0.0})
    assert text == "x <colorfulness> 0.0 <compressibility> 0.0"


def test_a_prompt_that_looks_like_rewards_is_only_a_prompt():
    grammar = Grammar.words(TWO)
    prompt = "apple <colorfulness> 9.9 <_COMPRESSIBILITY> 1.0"
    text = grammar.format(prompt, {"colorfulness": -1.0})
    assert text == ("apple <_colorfulness> 9.9 <__COMPRESSIBILITY> 1.0 <colorfulness> -1.0")
    assert grammar.parse(text) == (prompt, {"colorfulness": -1.0})


@pytest.mark.parametrize(
    "text",
    [
        "x <colorfulness>",
        "x <colorfulness> ",
        "x <colorfulness> 1",
        "x <colorfulness> 1.55",
        "x <colorfulness> +1.5",
        "x <colorfulness> nan",
        "x <colorfulness> 1.5 ",
        "x <colorfulness> 1.5 y",
        "x <colorfulness> 1.5<compressibility> 1.5",
        "x <colorfulness> 1.5 <colorfulness> 1.5",
        "x <compressibility> 1.5 <colorfulness> 1.5",
        "x <colorfulness> -0.0",
        "x <colorfulness> 01.5",
        "x <colorfulness> \u0661.\u0665",
        "<colorfulness> 1.5",
        "x <Colorfulness> 1.5",
    ],
)
def test_parse_refuses_what_format_never_writes(text):
    with pytest.raises(InputError) as error:
        Grammar.words(TWO).parse(text)
    assert "\n" not in str(error.value)
    assert repr(text) in str(error.value)


def test_unknown_rewards_are_refused_by_name():
    with pytest.raises(InputError, match=r"sharpness.*colorfulness, compressibility"):
        Grammar.words(TWO).format("x", {"sharpness": 1.0})


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        ({"labels": ["a"]}, "labels ('a',): one distinct label is needed for each reward"),
        ({"labels": ["a", "a"]}, "labels ('a', 'a'): one distinct label is needed for each reward"),
        (
            {"labels": ["a", "b", "c"]},
            "labels ('a', 'b', 'c'): one distinct label is needed for each reward",
        ),
        ({"labels": ["a", ""]}, "labels: '': write what stands between < and >"),
        ({"labels": ["a", "<b"]}, "labels: '<b': write what stands between < and >"),
        ({"labels": ["a", "b>"]}, "labels: 'b>': write what stands between < and >"),
        ({"labels": ["a", 3]}, "labels must be text, not 3"),
        ({"labels": ["a", "b" * 1001]}, "labels has 1001 characters; 1000 is the most"),
        ({"labels": "ab"}, "grammar: labels must be a list, not 'ab'"),
        ({"names": 1}, "grammar: names must be a list, not 1"),
        ({"separator": 3}, "separator 3: must be a text of 16 at most"),
        ({"separator": "-" * 17}, f"separator {'-' * 17!r}: must be a text of 16 at most"),
        ({"other": 3}, "grammar: unknown field 'other'; one of: names, labels, separator"),
    ],
)
def test_every_reward_needs_a_label_of_its_own_and_files_say_so(stored, said):
    good = {"names": ["x", "y"], "labels": ["a", "b" * 1000], "separator": "-" * 16}
    assert Grammar.from_dict(good).labels == ("a", "b" * 1000)
    with pytest.raises(InputError) as error:
        Grammar.from_dict({**good, **stored})
    assert str(error.value) == said


def test_what_is_no_grammar():
    for stored, said in (
        ([], "grammar must map names to values, not []"),
        ({"names": []}, "grammar: field labels, separator is missing"),
    ):
        with pytest.raises(InputError) as error:
            Grammar.from_dict(stored)
        assert str(error.value) == said


def test_malformed_words_are_told_how_to_be_written():
    with pytest.raises(InputError) as error:
        Grammar.words(TWO).parse("x <colorfulness> 01.5")
    assert str(error.value) == (
        "'x <colorfulness> 01.5': reward words are malformed; write '<label> 1.5' at the end, "
        "each reward once and in order"
    )


@pytest.mark.parametrize("grammar", GRAMMARS)
def test_a_grammar_survives_json(grammar):
    assert Grammar.from_dict(json.loads(json.dumps(grammar.to_dict()))) == grammar


def test_presets_by_their_names_in_configs():
    assert Grammar.preset("words", TWO) == Grammar.words(TWO)
    assert Grammar.preset("upstream", TWO) == Grammar.upstream(TWO) != Grammar.words(TWO)
