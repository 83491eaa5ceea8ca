"""The tokenizers that reward words meet: CLIP's own, and small ones with a short context."""

import pytest
import torch

from scratch import clip_bpe, clip_tokenizer, pruned_tokenizer

REWARDS = ("colorfulness", "compressibility", "aesthetic", "clip_score")


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def clip():
    """CLIP's 49 408 tokens, 77 of them to a text."""
    return clip_tokenizer(*clip_bpe(), 77)


@pytest.fixture(scope="session")
def short():
    """As emoji-64 has it: few merges, 32 tokens to a text."""
    return pruned_tokenizer(["red apple", *REWARDS, "0 1 2 3 4 5 6 7 8 9"], 32)


@pytest.fixture(scope="session")
def tiny():
    """Single characters, 12 tokens to a text: no reward word fits."""
    symbols, _ = clip_bpe()
    return clip_tokenizer(symbols, [], 12)
