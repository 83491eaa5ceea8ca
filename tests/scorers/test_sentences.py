import pytest
from hypothesis import given
from hypothesis import strategies as st

from scorers.sentences import sentence_ends, sentences


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ('He said "no!" And left...', ['He said "no!"', "And left..."]),
        ("1. Wash it. 2. Boil it.", ["1. Wash it.", "2. Boil it."]),
        ("Do this:\n\n1. Wash\n2. Boil", ["Do this:", "1. Wash", "2. Boil"]),
        ("- a. Wash it, - b. boil it.", ["- a. Wash it, - b. boil it."]),
        ("It cost $3.50 in version 1.2. Good.", ["It cost $3.50 in version 1.2.", "Good."]),
        ("Dr. Smith vs. Mrs. Jones, i.e. us.", ["Dr. Smith vs. Mrs. Jones, i.e. us."]),
        ("It was 1990. I was 12. Why?", ["It was 1990.", "I was 12.", "Why?"]),
        ("no end", ["no end"]),
        (" \n ", []),
    ],
)
def test_sentences(text, found):
    assert sentences(text) == found


@given(st.text(alphabet="ab1. \n!?\")'*-:"))
def test_nothing_is_lost_and_ends_lie_behind_marks(text):
    assert "".join("".join(sentences(text)).split()) == "".join(text.split())
    ends = sentence_ends(text)
    assert ends == sorted(set(ends))
    assert all(text[end - 1] in ".!?\")'*" for end in ends)


def test_in_a_long_text_they_end_as_in_a_short_one():
    """What tells of an end stands close before it: not all of the text is searched each time."""
    part = "A word (by Mr. X.) here. "
    assert len(sentence_ends(part * 20_000)) == 2 * 20_000 == 20_000 * len(sentence_ends(part))
