"""How colourful a picture looks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from scorers.base import BaseScorer
from scorers.parallel import map_images
from scorers.rgb import RGB_FINGERPRINT, to_rgb

if TYPE_CHECKING:
    from PIL.Image import Image

_BLOCK = 8192  # pixels at a time: what is made of them stays in the cache
_ONES = np.ones(_BLOCK)  # a product with them is a sum, in a third of the time


class Colorfulness(BaseScorer):
    """Hasler & Süsstrunk, Measuring colourfulness in natural images, 2003: their M^(3).

    0 for grey; their observers called 15 slightly, 45 averagely and 109 extremely colourful.
    No options.
    """

    name = "colorfulness"
    unit = "M3"
    light = True

    def __init__(self) -> None:
        self.options = {}
        self.fingerprint = f"{self.name} hasler-susstrunk-m3 {RGB_FINGERPRINT}"

    def _score(self, images: list[Image], prompts: list[str] | None) -> list[float]:
        return map_images(colorfulness, images)


def colorfulness(image: Image) -> float:
    """M^(3) = sigma_rgyb + 0.3 mu_rgyb of one picture, on pixels from 0 to 255.

    The sums of rg = R - G, of twice yb = (R + G) / 2 - B, and of their squares are whole numbers,
    and exact: only the last steps round.
    """
    bands = to_rgb(image).split()
    red, green, blue = (np.frombuffer(band.tobytes(), np.uint8) for band in bands)  # (H * W,)
    count = len(red)
    rg_sum = rg_squares = yb_sum = yb_squares = 0
    for start in range(0, count, _BLOCK):
        r, g, b = (band[start : start + _BLOCK] for band in (red, green, blue))
        difference = np.subtract(r, g, dtype=np.int16)
        doubled = np.add(r, g, dtype=np.int16)
        doubled -= b
        doubled -= b
        rg, yb = difference.astype(np.float64), doubled.astype(np.float64)
        ones = _ONES[: len(rg)]
        rg_sum += int(rg @ ones)
        rg_squares += int(rg @ rg)
        yb_sum += int(yb @ ones)
        yb_squares += int(yb @ yb)
    rg_spread = math.sqrt(count * rg_squares - rg_sum**2)  # count times the standard deviation
    yb_spread = math.sqrt(count * yb_squares - yb_sum**2) / 2
    sigma = math.hypot(rg_spread, yb_spread) / count
    mu = math.hypot(rg_sum, yb_sum / 2) / count
    return sigma + 0.3 * mu
