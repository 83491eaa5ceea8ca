"""Texts as samples: files, digests, what they have in common."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Generator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from ric_diffusion.data.records import Record
from ric_diffusion.data.samples import Sample, usable
from ric_diffusion.files import write_text

BUCKETS = 4096  # of the features, which words and pairs of words are hashed into
_LAST_SENTENCE = re.compile(r".*[.!?][\"')\]]*(?=\s|$)", re.DOTALL)


class Texts:
    """What the sampler protocol says about samples, for samples that are texts."""

    suffix = ".txt"

    def write(self, sample: str, path: Path) -> None:
        write_text(path, sample)

    def read(self, path: Path) -> str:
        """To the byte, line ends included."""
        return path.read_bytes().decode()

    def fault(self, sample: str) -> str | None:
        return None if sample.strip() else "empty"

    def digest(self, sample: str) -> str:
        return hashlib.sha256(sample.encode()).hexdigest()

    def features(self, samples: Sequence[str]) -> np.ndarray:
        """Which words and pairs of neighbouring words a text has, hashed (Weinberger et al. 2009);
        a text without a word counts as one word of its own kind."""
        rows = np.zeros((len(samples), BUCKETS), dtype=np.float32)
        for row, sample in zip(rows, samples, strict=True):
            words = sample.lower().split() or ["\0"]
            for gram in [*words, *map(" ".join, pairwise(words))]:
                row[zlib.crc32(gram.encode()) % BUCKETS] = 1.0
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def usable_texts(
    root: Path, records: Sequence[Record], skipped: dict[str, str]
) -> Generator[Sample | None, None, None]:
    """For each record its text, or None with the reason noted in `skipped` by file.

    Skipped are what cannot be read, empty texts, records without a prompt, and the same text on the
    same prompt as an earlier one.
    """
    yield from usable((_read(root, record) for record in records), records, skipped, "response")


def _read(root: Path, record: Record) -> Sample | str:
    """The text of a record, or why it has none worth scoring."""
    if not record.captions:
        return "no prompt"
    texts = Texts()
    try:
        text = texts.read(root / record.file)
    except (OSError, ValueError) as error:
        return "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else "missing file"
    if fault := texts.fault(text):
        return fault
    digest = texts.digest(f"{record.captions[0]}\0{text}")  # one text may answer many prompts
    return Sample(record=record, content=text, digest=digest)


def whole_sentences(text: str) -> str:
    """A text that was cut, up to its last full sentence; as it is if there is none."""
    found = _LAST_SENTENCE.match(text)
    return found[0] if found else text
