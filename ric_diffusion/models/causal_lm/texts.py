"""What a language model's responses are judged by, and cut to."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from scorers.sentences import sentence_ends

BUCKETS = 4096  # of the features, which words and pairs of words are hashed into


def word_features(samples: Sequence[str]) -> np.ndarray:
    """(N, BUCKETS) float32 of unit length: which words and pairs of neighbouring words a text has,
    hashed (Weinberger et al. 2009); a text without a word counts as one word of its own kind."""
    rows = np.zeros((len(samples), BUCKETS), dtype=np.float32)
    for row, sample in zip(rows, samples, strict=True):
        words = sample.lower().split() or ["\0"]
        for gram in [*words, *map(" ".join, pairwise(words))]:
            row[zlib.crc32(gram.encode()) % BUCKETS] = 1.0
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def whole_sentences(text: str) -> str:
    """A text that was cut, up to its last full sentence; as it is if there is none."""
    ends = sentence_ends(text)
    return text[: ends[-1]] if ends else text
