"""What is seen of a picture, decided once for a folder: scorers label it, and training draws it."""

from __future__ import annotations

import functools
import json
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from PIL import Image

from ric_diffusion.io import config
from ric_diffusion.io.bounds import MOST_SIDE
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import read_file

FRAMING = "framing.json"  # of a labelled folder

Rule = Literal["square", "bucket", "whole"]
Size = tuple[int, int]  # width, height
Box = tuple[int, int, int, int]  # left, top, right, bottom


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What is seen of one picture: ``box`` (left, top, right, bottom) in its own pixels, whole
    numbers, drawn at ``size`` (width, height)."""

    box: Box
    size: Size

    def cut(self, size: Size) -> float:
        """The share of the pixels of a picture of this ``size`` that lies outside the box."""
        left, top, right, bottom = self.box
        return 1.0 - (right - left) * (bottom - top) / (size[0] * size[1])

    def crop(self, image: Image.Image) -> Image.Image:
        """What a scorer sees: the box at its own scale."""
        return image if self.box == (0, 0, *image.size) else image.crop(self.box)

    def draw(self, image: Image.Image) -> Image.Image:
        """What training sees: the box at ``size``."""
        # Cropped first: given a box, Pillow's filters would also read the pixels around it.
        seen = self.crop(image)
        return seen if seen.size == self.size else seen.resize(self.size, Image.Resampling.LANCZOS)


@dataclass(frozen=True, kw_only=True)
class Framing:
    """The rule that makes a frame of a picture's size.

    ``square``: the middle square. ``bucket``: the middle of the nearest of SDXL's aspect ratios
    (Podell et al. 2023, arXiv 2307.01952, appendix I), whose sides are multiples of ``step`` and
    whose area is at most that of a square with the side ``resolution``. ``whole``: all of it, which
    training has to cut to one of the others.

    Pictures whose width is less than ``min_aspect`` times their height, or more than
    ``max_aspect`` times, are left out of a labelled folder, unless they are seen whole.
    """

    rule: Rule = "square"
    resolution: int = 1024
    step: int = 64
    min_aspect: float = 0.25
    max_aspect: float = 4.0

    def __post_init__(self) -> None:
        config.within(self, 1, MOST_SIDE, "step")
        least = self.step if self.rule == "bucket" else 1
        config.within(self, least, MOST_SIDE, "resolution")
        config.above_zero(self, "min_aspect")
        if not self.min_aspect <= 1 <= self.max_aspect:
            raise ValueError(
                f"min_aspect is {self.min_aspect} and max_aspect {self.max_aspect}; give at most 1 "
                "and at least 1"
            )

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> Framing:
        """That of a labelled folder; ``whole`` where it does not say. InputError if it cannot be
        read."""
        path = Path(folder, FRAMING)
        try:
            stored = json.loads(read_file(path))
        except FileNotFoundError:
            return cls(rule="whole")
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: not valid JSON; run `ric label` again") from error
        return config.from_dict(stored, cls, str(path))

    def buckets(self) -> tuple[Size, ...]:
        """The sizes that pictures are drawn at, narrow ones first; none if they are seen whole."""
        if self.rule == "whole":
            return ()
        if self.rule == "square":
            return ((self.resolution, self.resolution),)
        return _buckets(self.resolution, self.step, self.min_aspect, self.max_aspect)

    def frame(self, size: Size, *, resolution: int | None = None, step: int | None = None) -> Frame:
        """What is seen of a picture of this ``size``.

        With a ``resolution`` or a ``step`` it is drawn in the nearest bucket of those, and its box
        lies in the one it has without: where the buckets of both have the same aspect ratios,
        and that of squares always, it is the same box.
        """
        if self.rule == "whole":
            return Frame(box=(0, 0, *size), size=size)
        bucket = _nearest(self.buckets(), size)
        box = _middle((0, 0, *size), bucket)
        drawn = replace(
            self,
            resolution=self.resolution if resolution is None else resolution,
            step=self.step if step is None else step,
        )
        at = _nearest(drawn.buckets(), bucket)
        if at[0] * bucket[1] != at[1] * bucket[0]:
            box = _middle(box, at)
        return Frame(box=box, size=at)

    def reject_reason(self, size: Size) -> str | None:
        """Why a picture of this ``size`` is left out, or None."""
        aspect = size[0] / size[1]
        if self.rule == "whole" or self.min_aspect <= aspect <= self.max_aspect:
            return None
        wide = aspect > self.max_aspect
        limit = self.max_aspect if wide else self.min_aspect
        return (
            f"too {'wide' if wide else 'narrow'} ({size[0]}x{size[1]}: width / height is "
            f"{aspect:.3g}, {'at most' if wide else 'at least'} {limit:g})"
        )


@functools.cache
def _buckets(resolution: int, step: int, least: float, most: float) -> tuple[Size, ...]:
    """The square, and for each side the longest other one, upright and lying; narrow ones first."""
    square = resolution // step * step
    found = {(square, square)}
    for side in range(step, int(resolution * math.sqrt(max(most, 1 / least))) + 1, step):
        if other := resolution * resolution // side // step * step:
            found |= {(side, other), (other, side)}
    fitting = {size for size in found if least <= size[0] / size[1] <= most}
    return tuple(sorted(fitting, key=lambda size: size[0] / size[1]))


def _nearest(buckets: tuple[Size, ...], size: Size) -> Size:
    """The bucket whose aspect ratio is the nearest, in log space."""
    aspect = math.log(size[0] / size[1])
    return min(buckets, key=lambda bucket: abs(math.log(bucket[0] / bucket[1]) - aspect))


def _middle(box: Box, shape: Size) -> Box:
    """The largest box of the aspect ratio of ``shape`` in the middle of ``box``, to the pixel."""
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    if width * shape[1] > height * shape[0]:
        width = max(1, round(height * shape[0] / shape[1]))
    else:
        height = max(1, round(width * shape[1] / shape[0]))
    left += (right - left - width) // 2
    top += (bottom - top - height) // 2
    return left, top, left + width, top + height
