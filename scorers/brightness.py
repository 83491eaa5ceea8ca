"""How much light a picture gives off."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scorers.base import BaseScorer
from scorers.parallel import map_images
from scorers.rgb import RGB_FINGERPRINT, to_rgb

if TYPE_CHECKING:
    from PIL.Image import Image

_WEIGHTS = (0.2126, 0.7152, 0.0722)  # of red, green and blue in luminance, ITU-R BT.709


class Brightness(BaseScorer):
    """Mean relative luminance in per cent: 0 for black, 100 for white.

    Pixels are taken as sRGB and averaged as linear light, so that a fine chequerboard of black and
    white is as bright as the grey that a screen shows of it from afar: 50. No options.
    """

    name = "brightness"
    unit = "%"
    light = True

    def __init__(self) -> None:
        self.options = {}
        self.fingerprint = f"{self.name} srgb-linear-bt709 {RGB_FINGERPRINT}"

    def _score(self, images: list[Image], prompts: list[str] | None) -> list[float]:
        return map_images(brightness, images)


def brightness(image: Image) -> float:
    """Mean of 0.2126 R + 0.7152 G + 0.0722 B of one picture's linear light, in per cent."""
    linear = linear_light(np.arange(256) / 255)  # of each level, (256,)
    counts = np.array(to_rgb(image).histogram()).reshape(3, 256)  # of each level in each band
    means = counts @ linear / counts[0].sum()  # (3,)
    return float(100 * means @ np.array(_WEIGHTS))


def linear_light(encoded: np.ndarray) -> np.ndarray:
    """sRGB from 0 to 1 -> linear light from 0 to 1, same shape (IEC 61966-2-1)."""
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
