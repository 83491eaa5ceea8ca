"""The tokenizer of a pipeline as prompts are fitted to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


class PromptTokenizer:
    """Counts tokens as the pipeline will read them: within its own limit, beside those that it puts
    around a prompt, and with those of textual inversions, of which one word can be several."""

    def __init__(
        self,
        tokenizer: Any,
        max_length: int | None = None,
        *,
        around: int = 0,
        expand: Callable[[str, Any], str] | None = None,
    ) -> None:
        """``max_length``: a lower limit than the tokenizer's own; ``around``: how many tokens the
        pipeline puts around a prompt beside the tokenizer's special ones; ``expand``: what it makes
        of a prompt first."""
        self.tokenizer = tokenizer
        self.around = around
        self.expand = expand
        own = tokenizer.model_max_length
        self.model_max_length: int = own if max_length is None else min(own, max_length)

    def num_special_tokens_to_add(self) -> int:
        special: int = self.tokenizer.num_special_tokens_to_add()
        return special + self.around

    def __call__(self, text: str, **options: Any) -> Any:
        """Where it is asked for offsets they are those of the text as it was given."""
        if self.expand is not None and not options.get("return_offsets_mapping"):
            text = self.expand(text, self)
        return self.tokenizer(text, **options)

    # What diffusers' maybe_convert_prompt asks of a tokenizer.

    @property
    def added_tokens_encoder(self) -> Mapping[str, int]:
        found: Mapping[str, int] = self.tokenizer.added_tokens_encoder
        return found

    def tokenize(self, text: str) -> list[str]:
        """Without the warning about texts that are too long: they are about to be cut."""
        tokens: list[str] = self.tokenizer.tokenize(text, verbose=False)
        return tokens
