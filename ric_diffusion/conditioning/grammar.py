"""The one grammar for reward words: ``red apple <colorfulness> 1.5 <compressibility> -0.4``.

Values are z rounded to one decimal, as in Rewards-in-Context (Yang et al. 2024, section 3.1). A
reward left out is auto. A prompt can hold anything: what looks like a reward word in it gets an
underscore (``<_colorfulness>``), which a tokenizer reads differently, and ``parse`` takes it away
again. So nobody forges rewards by writing them into a prompt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from ric_diffusion.io.counting import counted
from ric_diffusion.io.errors import InputError
from ric_diffusion.rewards import checks

MOST_SEPARATOR = 16  # characters
_VALUE = r"-?\d+\.\d"


def rounded(targets: Mapping[str, float]) -> dict[str, float]:
    """Targets as text can carry them: one decimal, no negative zero."""
    return {name: round(value, 1) + 0.0 for name, value in targets.items()}


@dataclass(frozen=True, kw_only=True)
class Grammar:
    """Reward names in order and the label that stands for each in a text."""

    names: tuple[str, ...]
    labels: tuple[str, ...]
    separator: str = " "

    def __post_init__(self) -> None:
        for label in self.labels:
            checks.text(label, "labels", checks.MOST_TEXT)
            if not label or set(label) & set("<>"):
                raise InputError(f"labels: {label!r}: write what stands between < and >")
        if len(self.names) != len(self.labels) or len(set(self.labels)) != len(self.labels):
            raise InputError(f"labels {self.labels}: one distinct label is needed for each reward")
        if not isinstance(self.separator, str) or len(self.separator) > MOST_SEPARATOR:
            raise InputError(
                f"separator {self.separator!r}: must be a text of {MOST_SEPARATOR} at most"
            )

    @classmethod
    def words(cls, names: tuple[str, ...]) -> Grammar:
        """Every reward under its own name."""
        return cls(names=names, labels=names)

    @classmethod
    def upstream(cls, names: tuple[str, ...]) -> Grammar:
        """The authors' ``{prompt}<rm1> 1.2<rm2> -0.4``, for their released checkpoints."""
        return cls(names=names, labels=tuple(f"rm{i + 1}" for i in range(len(names))), separator="")

    @classmethod
    def preset(cls, kind: Literal["words", "upstream"], names: tuple[str, ...]) -> Grammar:
        """The one of these that a config names."""
        return cls.words(names) if kind == "words" else cls.upstream(names)

    @cached_property
    def _label(self) -> str:
        return "|".join(re.escape(label) for label in sorted(self.labels, key=len, reverse=True))

    def reward_words(self, targets: Mapping[str, float]) -> str:
        """The words alone, in the grammar's order, each with its separator in front."""
        if unknown := set(targets) - set(self.names):
            raise InputError(f"targets {sorted(unknown)}: not among {', '.join(self.names)}")
        values = rounded(targets)
        return "".join(
            f"{self.separator}<{label}> {values[name]:.1f}"
            for name, label in zip(self.names, self.labels, strict=True)
            if name in values
        )

    def escape(self, prompt: str) -> str:
        """Make every look-alike of a reward word harmless; injective."""
        return re.sub(rf"(<\s*_*)((?:{self._label})\s*>)", r"\1_\2", prompt, flags=re.IGNORECASE)

    def unescape(self, prompt: str) -> str:
        """The inverse of ``escape``."""
        return re.sub(rf"(<\s*_*)_((?:{self._label})\s*>)", r"\1\2", prompt, flags=re.IGNORECASE)

    def format(self, prompt: str, targets: Mapping[str, float]) -> str:
        """Prompt and targets in z -> the text that the model reads, of any length."""
        return self.escape(prompt) + self.reward_words(targets)

    def parse(self, text: str) -> tuple[str, dict[str, float]]:
        """The inverse of ``format``: prompt and rounded targets. InputError if it is not one."""
        first = re.search(rf"{re.escape(self.separator)}<(?:{self._label})>", text)
        prompt, words = (text[: first.start()], text[first.start() :]) if first else (text, "")
        by_label = dict(zip(self.labels, self.names, strict=True))
        found = re.findall(rf"<({self._label})> ({_VALUE})", words)
        targets = {by_label[label]: float(value) for label, value in found}
        prompt = self.unescape(prompt)
        if self.format(prompt, targets) != text:
            raise InputError(
                f"{text!r}: reward words are malformed; write '<label> 1.5' at the end, each "
                "reward once and in order"
            )
        return prompt, targets

    def to_dict(self) -> dict[str, Any]:
        return {
            "names": list(self.names),
            "labels": list(self.labels),
            "separator": self.separator,
        }

    @classmethod
    def from_dict(cls, stored: Any) -> Grammar:
        """Of an adapter's JSON. InputError if it is not that."""
        given = checks.fields(stored, ("names", "labels", "separator"), "grammar")
        for key in ("names", "labels"):
            given[key] = tuple(checks.items(given[key], f"grammar: {key}"))
        return cls(**given)


def fit_prompt(prompt: str, words: str, tokenizer: Any) -> str:
    """``prompt + words`` within the tokenizer's ``model_max_length``: the prompt is cut, at a word
    border where it has one, and never the words.

    Raises InputError if the words alone do not fit.
    """
    room = tokenizer.model_max_length - tokenizer.num_special_tokens_to_add()

    def length(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)

    if length(words) > room:
        raise InputError(
            f"{words.strip()!r}: {counted(room, 'tokens')} cannot hold it; ask for fewer rewards"
        )
    keep = room - length(words)
    while prompt and length(prompt + words) > room:
        encoded = tokenizer(
            prompt, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        offsets = encoded.offset_mapping[:keep]
        end = offsets[-1][1] if offsets else 0
        border = prompt.rfind(" ", 0, end + 1)
        prompt = prompt[: border if border > 0 else end].rstrip()
        keep -= 1
    return prompt + words
