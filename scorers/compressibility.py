"""How small a picture is as a JPEG file."""

from __future__ import annotations

import io
from functools import cache, cached_property
from typing import TYPE_CHECKING

import numpy as np

from scorers import probes
from scorers.base import BaseScorer, check_integer
from scorers.parallel import map_images
from scorers.rgb import RGB_FINGERPRINT, to_rgb

if TYPE_CHECKING:
    from PIL.Image import Image

_LARGEST_SIDE = 65500  # libjpeg's limit
_PROBE_SIDE = 128  # the filter and the encoder are the same at any size


class Compressibility(BaseScorer):
    """Minus the size of the JPEG in kB (1000 bytes), as in DDPO (arXiv 2305.13301, section 5).

    The paper's setting (Rewards-in-Context, arXiv 2402.10207) is the default: resized to 512x512,
    whatever the shape, with Pillow's bicubic filter, then encoded at quality 95 with Pillow's other
    defaults (4:2:0 chroma, baseline, standard Huffman tables, headers counted in).

    Options: ``quality`` 1 to 100; ``resize`` the side in pixels, or None for the native size.
    """

    name = "compressibility"
    unit = "kB"
    light = True

    def __init__(self, *, quality: int = 95, resize: int | None = 512) -> None:
        self._quality = check_integer(self.name, "quality", quality, 1, 100)
        self._resize = resize
        if resize is not None:
            check_integer(self.name, "resize", resize, 1, _LARGEST_SIDE, otherwise=" or none")
        self.options = {"quality": quality, "resize": resize}

    @cached_property
    def fingerprint(self) -> str:  # type: ignore[override]  # set by nobody
        """With a digest of what the installed encoder does: another may give other sizes."""
        size = "native" if self._resize is None else f"{self._resize}-bicubic"
        encoder = encoder_digest(self._quality, self._resize is not None)
        return f"{self.name} quality={self._quality} resize={size} jpeg-{encoder} {RGB_FINGERPRINT}"

    def _score(self, images: list[Image], prompts: list[str] | None) -> np.ndarray:
        return -self._kilobytes(images)

    def _kilobytes(self, images: list[Image]) -> np.ndarray:
        """N images -> sizes in kB, (N,)."""
        return np.array(map_images(self._count_bytes, images), dtype=np.float64) / 1000

    def _count_bytes(self, image: Image) -> int:
        return count_bytes(to_rgb(image), self._quality, self._resize)


class Incompressibility(Compressibility):
    """The size of the JPEG in kB: ``compressibility`` with the sign turned, same options."""

    name = "incompressibility"

    def _score(self, images: list[Image], prompts: list[str] | None) -> np.ndarray:
        return self._kilobytes(images)


def count_bytes(rgb: Image, quality: int, side: int | None) -> int:
    """The size of an RGB picture as a JPEG, resized to ``side`` x ``side`` before unless None."""
    from PIL.Image import Resampling

    if side is not None:
        rgb = rgb.resize((side, side), Resampling.BICUBIC)
    buffer = io.BytesIO()
    rgb.save(buffer, format="JPEG", quality=quality)
    return buffer.tell()


@cache
def encoder_digest(quality: int, resized: bool) -> str:
    """8 hex digits of the sizes that the installed Pillow gives for fixed pictures."""
    side = _PROBE_SIDE if resized else None
    return probes.digest([count_bytes(picture, quality, side) for picture in probes.pictures()])
