"""One user's turn in a model's own chat template, and the room that a prompt has in it.

The template is rendered around a mark once, and only its own parts may be special tokens: whatever
a prompt says, it can neither end its turn nor begin another.
"""

from __future__ import annotations

from typing import Any

from ric_diffusion.io.errors import InputError, reason_of

USER, ASSISTANT = "the-user-speaks-here", "the-assistant-speaks-here"


class Chat:
    """Token ids around a prompt: ``before`` it and ``after`` it, up to where the response begins.
    ``end`` is what ends a response, and is learned; generation stops at any of ``stops``."""

    def __init__(self, tokenizer: Any) -> None:
        """InputError for a template that cannot frame a turn. Without a template the prompt is a
        line of its own."""
        self.tokenizer = tokenizer
        before, after, end = _frame(tokenizer)
        self.before, self.after = (self._ids(text) for text in (before, after))
        said = self._ids(end)
        special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
        eos = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        # Not simply the first id: a template may put a blank before the token that ends.
        ends = [*(i for i in said if i in special), *eos, *said]
        if not ends:
            raise InputError("the tokenizer has no token that ends a text; responses need one")
        self.end = ends[0]
        self.stops = list(dict.fromkeys([self.end, *eos]))

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids
        return ids

    def response(self, text: str, limit: int) -> list[int]:
        """The ids that the model learns to say: the text and its end, which is left out where the
        text has to be cut to ``limit`` ids."""
        ids = Turn(self.tokenizer, limit)(text).input_ids
        return [*ids, self.end] if len(ids) < limit else ids[:limit]


class Turn:
    """A tokenizer as conditioners see it, of the length that a prompt may have."""

    def __init__(self, tokenizer: Any, room: int) -> None:
        self._tokenizer = tokenizer
        self.model_max_length = room

    def num_special_tokens_to_add(self) -> int:
        return 0

    def __call__(self, text: str, **options: Any) -> Any:
        plain = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
        return self._tokenizer(text, **options | plain)


def _frame(tokenizer: Any) -> tuple[str, str, str]:
    """The text before a prompt, after it, and after a response."""
    if tokenizer.chat_template is None:
        return tokenizer.bos_token or "", "\n", tokenizer.eos_token or ""
    user = {"role": "user", "content": USER}
    assistant = {"role": "assistant", "content": ASSISTANT}
    try:
        asked = tokenizer.apply_chat_template([user], tokenize=False, add_generation_prompt=True)
        answered = tokenizer.apply_chat_template([user, assistant], tokenize=False)
        before, after = asked.split(USER)
        _, end = answered.split(ASSISTANT)
    except Exception as error:  # a template may raise anything
        reason = reason_of(error)
        raise InputError(f"the chat template cannot frame a user's turn ({reason})") from error
    return before, after, end
