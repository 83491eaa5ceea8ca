import math

import numpy as np
import pytest

import scorers
from scorers import readability

EASY = "The cat sat on the mat. It was happy."
HARD = "Notwithstanding institutional heterogeneity, policymakers consolidated jurisdictions."


def test_against_the_formula():
    (score,) = scorers.load("readability")([EASY])
    characters, words, sentences = 29, 9, 2  # characters with the full stops
    index = 4.71 * characters / words + 0.5 * words / sentences - 21.43
    assert score == pytest.approx(-index, abs=1e-4)


def test_easy_is_above_hard():
    easy, hard = scorers.load("readability")([EASY, HARD])
    assert easy > hard + 20


@pytest.mark.parametrize("text", ["", " \n", "!!", "..."])
def test_no_word_no_number(text):
    scores = scorers.load("readability")([text, EASY])
    assert math.isnan(scores[0]) and math.isfinite(scores[1])


def test_batch_equals_one_by_one_and_what_it_says_of_itself():
    scorer = scorers.load("readability")
    assert np.array_equal(scorer([EASY, HARD]), np.concatenate([scorer([EASY]), scorer([HARD])]))
    assert (scorer.name, scorer.unit, scorer.options) == ("readability", "grades", {})
    assert scorer.fingerprint == scorers.load("readability").fingerprint


def test_the_fingerprint_is_of_how_the_package_counts(monkeypatch):
    usual = scorers.load("readability").fingerprint
    textstat = pytest.importorskip("textstat")
    monkeypatch.setattr(textstat, "__version__", "99", raising=False)
    readability._textstat_digest.cache_clear()
    assert scorers.load("readability").fingerprint == usual
    count = textstat.automated_readability_index
    monkeypatch.setattr(textstat, "automated_readability_index", lambda text: count(text) + 0.01)
    readability._textstat_digest.cache_clear()
    try:
        assert scorers.load("readability").fingerprint != usual
    finally:
        readability._textstat_digest.cache_clear()
