"""How long a text is, in words."""

from __future__ import annotations

from scorers.base import TextScorer


class Length(TextScorer):
    """The number of words, as blanks part them. No options."""

    name = "length"
    unit = "words"

    def __init__(self) -> None:
        self.options = {}
        self.fingerprint = f"{self.name} split-1"

    def _score(self, texts: list[str], prompts: list[str] | None) -> list[float]:
        return [float(len(text.split())) for text in texts]


class Brevity(Length):
    """The number of words with the sign turned: the shorter, the higher. No options."""

    name = "brevity"

    def _score(self, texts: list[str], prompts: list[str] | None) -> list[float]:
        return [-words for words in super()._score(texts, prompts)]
