"""From records to samples that are worth scoring: read in threads, in order, each once."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from ric_diffusion.data.framing import Framing
from ric_diffusion.data.images import MAX_PIXELS
from ric_diffusion.data.medium import Medium
from ric_diffusion.data.records import Record
from ric_diffusion.io.files import stamp

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A record with what is seen of its file, an RGB picture in its frame or a text, and a digest
    of that; ``stamp`` is the file's, from before it was read."""

    record: Record
    content: Any
    digest: str
    stamp: tuple[int, int]

    @property
    def pixels(self) -> int:
        """0 for a text."""
        picture = isinstance(self.content, Image.Image)
        return self.content.width * self.content.height if picture else 0


def usable_samples(
    root: Path,
    records: Sequence[Record],
    medium: Medium,
    framing: Framing,
    skipped: dict[str, str],
) -> Generator[Sample | None, None, None]:
    """For each record its sample, or None with the reason noted in `skipped` by file.

    Skipped are records without a caption, files that cannot be read, what the framing and then the
    medium rejects, and what is seen to be the same as an earlier record's sample.
    """
    first: dict[str, str] = {}
    found = in_threads(partial(_read, root, medium, framing), records)
    for record, sample in zip(records, found, strict=True):
        if isinstance(sample, str):
            skipped[record.file] = sample
        elif (same := first.setdefault(sample.digest, record.file)) != record.file:
            skipped[record.file] = f"same as {same}"
        else:
            yield sample
            continue
        yield None


def batches(samples: Iterable[Sample | None], size: int) -> Iterator[list[Sample]]:
    """Up to `size` samples at a time, fewer where they are so large that memory would suffer."""
    batch: list[Sample] = []
    pixels = 0
    for sample in samples:
        if sample is None:
            continue
        batch.append(sample)
        pixels += sample.pixels
        if len(batch) == size or pixels >= MAX_PIXELS:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch


def seen(source: Path | bytes, medium: Medium, framing: Framing) -> Any:
    """What a file, or the bytes of one, hold, a picture cut to its frame. ValueError, with the
    reason in words for the user, if there is nothing in it or if the framing leaves it out."""
    content = medium.read(source)
    if not isinstance(content, Image.Image):
        return content
    if reason := framing.reject_reason(content.size):
        raise ValueError(reason)
    return framing.frame(content.size).crop(content)


def sample_digest(content: Any, record: Record, medium: Medium) -> str:
    """What a sample is stored under: the digest of what is seen, and of a text with its prompt."""
    digest = medium.digest(content)
    if medium.per_prompt:
        digest = hashlib.sha256(f"{digest} {record.captions[0]}".encode()).hexdigest()
    return digest


def _read(root: Path, medium: Medium, framing: Framing, record: Record) -> Sample | str:
    """The sample of a record, or why it has none worth scoring."""
    try:
        record.file.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8; rename it"
    if not record.captions:
        return "no caption or prompt"
    path = root / record.file
    try:
        before = stamp(path)
    except (OSError, ValueError):
        before = (0, 0)  # whoever reads it says why
    try:
        content = seen(path, medium, framing)
    except ValueError as error:
        return str(error)
    if reason := medium.reject_reason(content):
        return reason
    return Sample(
        record=record,
        content=content,
        digest=sample_digest(content, record, medium),
        stamp=before,
    )


def in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`map` in threads, in order, only a few items ahead of whoever reads the results."""
    threads = min(8, os.cpu_count() or 1)
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
