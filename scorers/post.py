"""The instruction around a post that is to be summarised, as the authors of Rewards-in-Context
write it."""

from __future__ import annotations

BEFORE = "### Instruction: Generate a one-sentence summary of this post. ### Input:"
AFTER = "### Response:"


def framed(post: str) -> str:
    """The prompt of a language model: the post, asked to be summarised."""
    return f"{BEFORE} {post} {AFTER}"


def bare(prompt: str) -> str:
    """The post alone; any other prompt as it is."""
    if prompt.startswith(BEFORE) and prompt.endswith(AFTER):
        return prompt[len(BEFORE) : -len(AFTER)].strip()
    return prompt
