"""How positive a text sounds."""

from __future__ import annotations

from functools import cache, cached_property
from typing import Any

from scorers import probes
from scorers.base import TextScorer
from scorers.packages import required
from scorers.sentences import sentences


class Positivity(TextScorer):
    """VADER's compound valence (Hutto & Gilbert 2014), -1 to 1, mean over the sentences.

    Its authors advise the mean for more than a sentence: the compound value of a whole text is
    near 1 or -1 as soon as it is long. A text without a word is 0. No options.
    """

    name = "positivity"
    unit = "compound"

    def __init__(self) -> None:
        required(self.name, "vaderSentiment")
        self.options = {}

    @cached_property
    def fingerprint(self) -> str:  # type: ignore[override]  # set by nobody
        """With a digest of the installed lexicon and of what its rules make of fixed texts."""
        return f"{self.name} sentence-mean-2 vader-{_vader_digest()}"

    def _score(self, texts: list[str], prompts: list[str] | None) -> list[float]:
        return [positivity(text) for text in texts]


def positivity(text: str) -> float:
    """Mean compound valence of the sentences of one text; line breaks end sentences too."""
    valences = [_analyzer().polarity_scores(each)["compound"] for each in sentences(text)]
    return sum(valences) / len(valences) if valences else 0.0


@cache
def _analyzer() -> Any:
    """Reads its lexicon of 7500 words, once."""
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()


@cache
def _vader_digest() -> str:
    words, emojis = _analyzer().lexicon, _analyzer().emojis
    return probes.digest([words, emojis, [round(positivity(text), 6) for text in probes.TEXTS]])
