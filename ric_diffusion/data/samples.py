"""From records to samples that are worth scoring: read in threads, in order, each once."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from PIL import Image

from ric_diffusion.data.budget import Budget, Place, holding
from ric_diffusion.data.framing import Frame, Framing
from ric_diffusion.data.medium import Medium
from ric_diffusion.data.records import Record
from ric_diffusion.io.files import stamp
from scorers.parallel import cores

# What a thread gets at a time: to hand over one small picture costs as much as to decode it.
SHARE = 2**16  # bytes
AT_ONCE = 16
SHARE_HELD = 32 * 2**20  # bytes of decoded pictures, at which a share is handed over in parts
BATCH_PIXELS = 32 * 2**20  # of the pictures that are scored at once, unless one alone has more

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True, slots=True)
class Unread:
    """A record whose sample is still to be looked at, in a file or in the bytes of one; or the
    ``reason`` why it has none."""

    record: Record
    source: Path | bytes = b""
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A record with what is seen of its source, an RGB picture in its frame or a text, and a digest
    of that; ``stamp`` is the file's, from before it was read."""

    record: Record
    source: Path | bytes
    content: Any
    digest: str
    stamp: tuple[int, int]

    @property
    def data(self) -> bytes:
        """The bytes of its file."""
        return self.source if isinstance(self.source, bytes) else self.source.read_bytes()

    @property
    def pixels(self) -> int:
        """0 for a text."""
        picture = isinstance(self.content, Image.Image)
        return self.content.width * self.content.height if picture else 0


def usable_samples(
    unread: Iterable[Unread],
    medium: Medium,
    framing: Framing,
    skipped: dict[str, str],
) -> Generator[Sample | None, None, None]:
    """For each record its sample, or None with the reason noted in `skipped` by file.

    Skipped are records without a caption, files that cannot be read, what the framing and then the
    medium rejects, and what is seen to be the same as an earlier record's sample.
    """
    first: dict[str, str] = {}
    for file, sample in in_threads(partial(_read, medium, framing), unread, _bytes):
        if isinstance(sample, str):
            skipped[file] = sample
        elif (same := first.setdefault(sample.digest, file)) != file:
            skipped[file] = f"same as {same}"
        else:
            yield sample
            continue
        yield None


def batches(samples: Iterable[Sample | None], size: int) -> Iterator[list[Sample]]:
    """The samples of `size` records at a time; of fewer, where they are so large that memory would
    suffer. What is left out counts, so that blocks of `size` records make the same batches wherever
    they are scored."""
    batch: list[Sample] = []
    count, pixels = 0, 0
    for sample in samples:
        count += 1
        if sample is not None:
            if batch and pixels + sample.pixels > BATCH_PIXELS:
                yield batch
                batch, pixels = [], 0
            batch.append(sample)
            pixels += sample.pixels
        if count == size or pixels >= BATCH_PIXELS:
            if batch:
                yield batch
            batch, pixels, count = [], 0, count % size
    if batch:
        yield batch


def seen(source: Path | bytes, medium: Medium, framing: Framing, suffix: str = "") -> Any:
    """What a file, or the bytes of one whose name has this ``suffix``, hold, a picture cut to its
    frame. ValueError, with the reason in words for the user, if there is nothing in it or if the
    framing leaves it out."""
    content = medium.read(source, suffix)
    if not isinstance(content, Image.Image):
        return content
    if reason := framing.reject_reason(content.size):
        raise ValueError(reason)
    return _frame(framing, content.size).crop(content)


@lru_cache(maxsize=1024)
def _frame(framing: Framing, size: tuple[int, int]) -> Frame:
    """That of a picture: many are of one size."""
    return framing.frame(size)


def sample_digest(content: Any, record: Record, medium: Medium) -> str:
    """What a sample is stored under: the digest of what is seen, and of a text with its prompt."""
    digest = medium.digest(content)
    if medium.per_prompt:
        digest = hashlib.sha256(f"{digest} {record.captions[0]}".encode()).hexdigest()
    return digest


def _bytes(unread: Unread) -> int:
    return len(unread.source) if isinstance(unread.source, bytes) else SHARE


def _read(medium: Medium, framing: Framing, unread: Unread) -> tuple[str, Sample | str]:
    """The file of a record with its sample, or why it has none worth scoring."""
    record, source = unread.record, unread.source
    try:
        record.file.encode()
    except UnicodeEncodeError:
        return record.file, "its name is not UTF-8; rename it"
    if unread.reason:
        return record.file, unread.reason
    if record.problem:
        return record.file, record.problem
    if not record.captions:
        return record.file, "no caption or prompt"
    before = (0, 0)
    if isinstance(source, Path):
        with suppress(OSError, ValueError):  # whoever reads it says why
            before = stamp(source)
    try:
        content = seen(source, medium, framing, PurePosixPath(record.file).suffix)
    except ValueError as error:
        return record.file, str(error)
    if reason := medium.reject_reason(content):
        return record.file, reason
    return record.file, Sample(
        record=record,
        source=source,
        content=content,
        digest=sample_digest(content, record, medium),
        stamp=before,
    )


def in_threads(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    size: Callable[[Item], int] = lambda item: SHARE,
) -> Iterator[Result]:
    """`map` in threads, in order, only a few shares ahead of whoever reads the results, and fewer
    where the pictures in them would take more memory than a Budget has. A share has the items that
    have SHARE bytes in all, by ``size``, and at most AT_ONCE."""
    threads = min(8, cores())
    if threads == 1:
        yield from map(function, items)  # nothing to hand over
        return
    budget = Budget()
    waiting: deque[tuple[Place, Future[tuple[list[Result], list[Item]]]]] = deque()

    def do(place: Place, share: list[Item]) -> tuple[list[Result], list[Item]]:
        """The results of the first items, all unless they hold much memory, and the others."""
        results = []
        with holding(place):
            for item in share:
                results.append(function(item))
                if place.held >= SHARE_HELD:
                    break
        return results, share[len(results) :]

    def hand_over() -> Iterator[Result]:
        place, future = waiting.popleft()
        budget.prefer(place)
        results, rest = future.result()
        del future  # which has them, too
        while True:
            yield from results
            results = []
            place.close()
            if not rest:
                return
            results, rest = do(place, rest)  # here: the threads may all wait for this place

    with ThreadPoolExecutor(threads) as pool:
        try:
            for share in _shares(items, size):
                place = Place(budget)
                if not waiting:
                    budget.prefer(place)
                waiting.append((place, pool.submit(do, place, share)))
                if len(waiting) > 2 * threads:
                    yield from hand_over()
            while waiting:
                yield from hand_over()
        finally:
            budget.end()
            for _, future in waiting:
                future.cancel()


def _shares(items: Iterable[Item], size: Callable[[Item], int]) -> Iterator[list[Item]]:
    share: list[Item] = []
    total = 0
    for item in items:
        share.append(item)
        total += size(item)
        if total >= SHARE or len(share) == AT_ONCE:
            yield share
            share, total = [], 0
    if share:
        yield share
