"""Doing the same to many images on all cores: Pillow and numpy let go of the GIL."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from PIL.Image import Image

Result = TypeVar("Result")


def map_images(function: Callable[[Image], Result], images: Sequence[Image]) -> list[Result]:
    """``[function(image) for image in images]``, in that order, in threads.

    An image that stands in the list more than once is done once: an image that is read from its
    file on first use must not be touched by two threads.
    """
    distinct = list({id(image): image for image in images}.values())
    workers = min(len(distinct), os.cpu_count() or 1)
    if workers <= 1:
        results = [function(image) for image in distinct]
    else:
        with ThreadPoolExecutor(workers) as threads:
            results = list(threads.map(function, distinct))
    result_of = {id(image): result for image, result in zip(distinct, results, strict=True)}
    return [result_of[id(image)] for image in images]
