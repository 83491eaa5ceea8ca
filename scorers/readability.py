"""How easy a text is to read."""

from __future__ import annotations

import math
from functools import cache, cached_property

from scorers import probes
from scorers.base import TextScorer
from scorers.packages import required


class Readability(TextScorer):
    """The automated readability index (Smith & Senter 1967), a US school grade, with the sign
    turned: the easier, the higher.

    It counts characters, words and sentences. Of the better known Flesch indices textstat has the
    syllables of every word looked up in a dictionary that it fetches from the net. NaN for a text
    without a word. No options.
    """

    name = "readability"
    unit = "grades"

    def __init__(self) -> None:
        required(self.name, "textstat")
        self.options = {}

    @cached_property
    def fingerprint(self) -> str:  # type: ignore[override]  # set by nobody
        """With a digest of how the installed textstat counts in fixed texts."""
        return f"{self.name} ari textstat-{_textstat_digest()}"

    def _score(self, texts: list[str], prompts: list[str] | None) -> list[float]:
        return [readability(text) for text in texts]


def readability(text: str) -> float:
    """Minus the automated readability index of one text."""
    import textstat

    if not textstat.lexicon_count(text):
        return math.nan
    return -float(textstat.automated_readability_index(text))


@cache
def _textstat_digest() -> str:
    return probes.digest([round(readability(text), 6) for text in probes.TEXTS])
