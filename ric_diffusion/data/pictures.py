"""The pictures of a folder that are worth scoring, decoded in threads and in order."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from PIL import Image

from ric_diffusion.data.images import (
    MAX_PIXELS,
    UnreadableImage,
    is_blank,
    open_image,
    pixel_digest,
)
from ric_diffusion.data.records import Record

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A record with its picture, decoded to RGB, and the digest of its pixels."""

    record: Record
    image: Image.Image
    digest: str


def usable_pictures(
    root: Path, records: Sequence[Record], skipped: dict[str, str]
) -> Generator[Picture | None, None, None]:
    """For each record its picture, or None with the reason noted in `skipped` by file.

    Skipped are what cannot be read, blank pictures, records without a caption, and pictures that
    look the same as an earlier one.
    """
    first: dict[str, str] = {}
    decoded = _in_threads(lambda record: _decode(root, record), records)
    for record, picture in zip(records, decoded, strict=True):
        if isinstance(picture, str):
            skipped[record.file] = picture
        elif (same := first.setdefault(picture.digest, record.file)) != record.file:
            skipped[record.file] = f"same picture as {same}"
        else:
            yield picture
            continue
        yield None


def batches(pictures: Iterable[Picture | None], size: int) -> Iterator[list[Picture]]:
    """Up to `size` pictures at a time, fewer where they are so large that memory would suffer."""
    batch: list[Picture] = []
    pixels = 0
    for picture in pictures:
        if picture is None:
            continue
        batch.append(picture)
        pixels += picture.image.width * picture.image.height
        if len(batch) == size or pixels >= MAX_PIXELS:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch


def _decode(root: Path, record: Record) -> Picture | str:
    """The picture of a record, or why it has none worth scoring."""
    try:
        record.file.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8; rename it"
    if not record.captions:
        return "no caption"
    try:
        image = open_image(root / record.file)
    except UnreadableImage as error:
        return error.reason
    if is_blank(image):
        return "blank: all pixels are alike"
    return Picture(record=record, image=image, digest=pixel_digest(image))


def _in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
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
