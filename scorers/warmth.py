"""How warm the colours of a picture are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scorers.base import BaseScorer
from scorers.parallel import map_images
from scorers.rgb import RGB_FINGERPRINT, to_rgb

if TYPE_CHECKING:
    from PIL.Image import Image


class Warmth(BaseScorer):
    """Mean of R - B over all pixels, in sRGB's levels: 255 for red or yellow all over, -255 for
    blue or cyan, 0 for grey, for green, and for as much of one as of the other. No options.
    """

    name = "warmth"
    unit = "levels"
    light = True

    def __init__(self) -> None:
        self.options = {}
        self.fingerprint = f"{self.name} srgb-r-minus-b {RGB_FINGERPRINT}"

    def _score(self, images: list[Image], prompts: list[str] | None) -> list[float]:
        return map_images(warmth, images)


def warmth(image: Image) -> float:
    """Mean of R - B of one picture; both sums are whole numbers, and exact."""
    levels = np.arange(256)
    red, _, blue = (np.array(band.histogram()) for band in to_rgb(image).split())  # (256,) each
    return float((red - blue) @ levels / red.sum())
