"""The tokenizer of a pipeline as prompts are fitted to it."""

from __future__ import annotations

from typing import Any


class PromptTokenizer:
    """Counts tokens as the pipeline will read them: within its own limit, and with the tokens of
    textual inversions, of which one word can be several."""

    def __init__(self, pipe: Any, name: str, max_length: int | None = None) -> None:
        """``name``: the pipeline's attribute; ``max_length``: a lower limit than the tokenizer's
        own."""
        self.tokenizer: Any = getattr(pipe, name)
        self.expanded = getattr(pipe, "maybe_convert_prompt", None)
        own = self.tokenizer.model_max_length
        self.model_max_length: int = own if max_length is None else min(own, max_length)

    def num_special_tokens_to_add(self) -> int:
        count: int = self.tokenizer.num_special_tokens_to_add()
        return count

    def __call__(self, text: str, **options: Any) -> Any:
        """Where it is asked for offsets they are those of the text as it was given."""
        if self.expanded is not None and not options.get("return_offsets_mapping"):
            text = self.expanded(text, self.tokenizer)
        return self.tokenizer(text, **options)
