"""What is worth scoring of a folder: its pictures or its texts, in order and each once."""

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ric_diffusion.data.images import MAX_PIXELS
from ric_diffusion.data.records import Record


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A record with what its file holds, an RGB picture or a text, and a digest of that."""

    record: Record
    content: Any
    digest: str
    pixels: int = 0


def usable(
    found: Iterable[Sample | str], records: Sequence[Record], skipped: dict[str, str], what: str
) -> Generator[Sample | None, None, None]:
    """For each record its sample, or None with the reason noted in `skipped` by file.

    `found` has a reason in place of what is not worth scoring; left out too is what is the same as
    an earlier one. `what` is the word for a sample.
    """
    first: dict[str, str] = {}
    for record, sample in zip(records, found, strict=True):
        if isinstance(sample, str):
            skipped[record.file] = sample
        elif (same := first.setdefault(sample.digest, record.file)) != record.file:
            skipped[record.file] = f"same {what} as {same}"
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
