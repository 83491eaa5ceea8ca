"""The pictures of a folder that are worth scoring, decoded in threads and in order."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from ric_diffusion.data.images import UnreadableImage, is_blank, open_image, pixel_digest
from ric_diffusion.data.records import Record
from ric_diffusion.data.samples import Sample, usable

Item = TypeVar("Item")
Result = TypeVar("Result")


def usable_pictures(
    root: Path, records: Sequence[Record], skipped: dict[str, str]
) -> Generator[Sample | None, None, None]:
    """For each record its picture, or None with the reason noted in `skipped` by file.

    Skipped are what cannot be read, blank pictures, records without a caption, and pictures that
    look the same as an earlier one.
    """
    decoded = _in_threads(lambda record: _decode(root, record), records)
    yield from usable(decoded, records, skipped, "picture")


def _decode(root: Path, record: Record) -> Sample | str:
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
    pixels = image.width * image.height
    return Sample(record=record, content=image, digest=pixel_digest(image), pixels=pixels)


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
