"""Doing the same to many images on all cores: Pillow and numpy let go of the GIL."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from PIL.Image import Image

Result = TypeVar("Result")

SHARES = 4  # of the images to each thread, as some take longer than others

_most: ContextVar[int | None] = ContextVar("most", default=None)


@contextmanager
def on_cores(count: int) -> Iterator[None]:
    """Inside the block this process uses at most so many, as others share its work."""
    token = _most.set(count)
    try:
        yield
    finally:
        _most.reset(token)


def cores() -> int:
    """How many this process may use: not those that a job's limits leave out."""
    if (most := _most.get()) is not None:
        return min(most, _allowed())
    return _allowed()


def _allowed() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def map_images(function: Callable[[Image], Result], images: Sequence[Image]) -> list[Result]:
    """``[function(image) for image in images]``, in that order, in threads.

    An image that stands in the list more than once is done once: an image that is read from its
    file on first use must not be touched by two threads.
    """
    distinct = list({id(image): image for image in images}.values())
    workers = min(len(distinct), cores())
    if workers <= 1:
        results = [function(image) for image in distinct]
    else:
        # A few at a time: to hand over one costs as much as a scorer takes for a small picture.
        size = -(-len(distinct) // (SHARES * workers))
        shares = [distinct[i : i + size] for i in range(0, len(distinct), size)]
        with ThreadPoolExecutor(workers) as threads:
            found = threads.map(lambda share: [function(image) for image in share], shares)
            results = [result for share in found for result in share]
    result_of = {id(image): result for image, result in zip(distinct, results, strict=True)}
    return [result_of[id(image)] for image in images]
