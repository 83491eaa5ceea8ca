import numpy as np
import pytest

import scorers

TEXTS = [
    "",
    "  \n",
    "one",
    "two words",
    "three\nwords\there",
    "a  double  blank",
    "it's well-known.",
]
COUNTS = [0, 0, 1, 2, 3, 3, 2]


def test_words_are_counted():
    scores = scorers.load("length")(TEXTS)
    assert scores.dtype == np.float32
    assert scores.tolist() == COUNTS


def test_brevity_is_length_with_the_sign_turned():
    assert np.array_equal(scorers.load("brevity")(TEXTS), -scorers.load("length")(TEXTS))


@pytest.mark.parametrize("name", ["length", "brevity"])
def test_what_it_says_of_itself(name):
    scorer = scorers.load(name)
    assert (scorer.name, scorer.unit, scorer.options) == (name, "words", {})
    assert name in scorer.fingerprint and scorer.medium == "text"
    assert scorer([]).shape == (0,)
