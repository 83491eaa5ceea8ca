"""What training makes of a caption before it is a prompt, as people who train on tags have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from ric_diffusion.io.config import probabilities, within

SEPARATOR = ","
MOST_TAGS = 1000


@dataclass(frozen=True, kw_only=True)
class Captions:
    """Tags are what commas separate in a caption.

    ``shuffle``: in another order each time; ``tag_dropout``: the probability that a tag is left
    out; ``keep``: so many of the first tags stay, and stay in front; ``prefix`` and ``suffix`` are
    written before and after, as they are. Whole prompts are left out by ``Dropout``.
    """

    shuffle: bool = False
    tag_dropout: float = 0.0
    keep: int = 0
    prefix: str = ""
    suffix: str = ""

    REMOVED: ClassVar[Mapping[str, str]] = {
        "dropout": "whole prompts are left out by dropout.prompt, tags by tag_dropout"
    }

    def __post_init__(self) -> None:
        within(self, 0, MOST_TAGS, "keep")
        probabilities(self, "tag_dropout")
        if self.keep and not self.changes_tags:
            raise ValueError(f"keep is {self.keep}; it goes with shuffle or tag_dropout")

    @property
    def changes_tags(self) -> bool:
        """Whether a caption makes another prompt each time."""
        return self.shuffle or self.tag_dropout > 0

    def __call__(self, caption: str, generator: torch.Generator) -> str:
        """The prompt that is made of a caption. Nothing is drawn where nothing can change."""
        if self.changes_tags:
            caption = self._tags_changed(caption, generator)
        return f"{self.prefix}{caption}{self.suffix}"

    def _tags_changed(self, caption: str, generator: torch.Generator) -> str:
        tags = [tag.strip() for tag in caption.split(SEPARATOR)]
        kept, rest = tags[: self.keep], tags[self.keep :]
        if self.shuffle:
            order = torch.randperm(len(rest), generator=generator)
            rest = [rest[i] for i in order.tolist()]
        if self.tag_dropout > 0:
            draws = torch.rand(len(rest), generator=generator).tolist()
            rest = [tag for tag, draw in zip(rest, draws, strict=True) if draw >= self.tag_dropout]
        return f"{SEPARATOR} ".join(kept + rest)
