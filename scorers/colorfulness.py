"""How colourful a picture looks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scorers.base import BaseScorer
from scorers.parallel import map_images
from scorers.rgb import RGB_FINGERPRINT, to_rgb

if TYPE_CHECKING:
    from PIL.Image import Image


class Colorfulness(BaseScorer):
    """Hasler & Süsstrunk, Measuring colourfulness in natural images, 2003: their M^(3).

    0 for grey; their observers called 15 slightly, 45 averagely and 109 extremely colourful.
    No options.
    """

    name = "colorfulness"
    unit = "M3"

    def __init__(self) -> None:
        self.options = {}
        self.fingerprint = f"{self.name} hasler-susstrunk-m3 {RGB_FINGERPRINT}"

    def _score(self, images: list[Image], prompts: list[str] | None) -> list[float]:
        return map_images(colorfulness, images)


def colorfulness(image: Image) -> float:
    """M^(3) = sigma_rgyb + 0.3 mu_rgyb of one picture, on pixels from 0 to 255."""
    red, green, blue = np.moveaxis(np.asarray(to_rgb(image), dtype=np.float64), -1, 0)  # (H, W)
    rg = red - green
    yb = (red + green) / 2 - blue
    sigma = np.hypot(rg.std(), yb.std())
    mu = np.hypot(rg.mean(), yb.mean())
    return float(sigma + 0.3 * mu)
