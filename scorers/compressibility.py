"""How small a picture is as a JPEG file."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from scorers.base import BaseScorer, check_integer
from scorers.parallel import map_images
from scorers.rgb import RGB_FINGERPRINT, to_rgb

if TYPE_CHECKING:
    from PIL.Image import Image

_LARGEST_SIDE = 65500  # libjpeg's limit


class Compressibility(BaseScorer):
    """Minus the size of the JPEG in kB (1000 bytes), as in DDPO (arXiv 2305.13301, section 5).

    The paper's setting (Rewards-in-Context, arXiv 2402.10207) is the default: resized to 512x512,
    whatever the shape, with Pillow's bicubic filter, then encoded at quality 95 with Pillow's other
    defaults (4:2:0 chroma, baseline, standard Huffman tables, headers counted in).

    Options: ``quality`` 1 to 100; ``resize`` the side in pixels, or None for the native size.
    """

    name = "compressibility"
    unit = "kB"

    def __init__(self, *, quality: int = 95, resize: int | None = 512) -> None:
        self._quality = check_integer(self.name, "quality", quality, 1, 100)
        self._resize = resize
        if resize is not None:
            check_integer(self.name, "resize", resize, 1, _LARGEST_SIDE, otherwise=" or none")
        self.options = {"quality": quality, "resize": resize}
        size = "native" if resize is None else f"{resize}-bicubic"
        self.fingerprint = (
            f"{self.name} quality={quality} resize={size} {jpeg_encoder()} {RGB_FINGERPRINT}"
        )

    def _score(self, images: list[Image], prompts: list[str] | None) -> np.ndarray:
        return -self._kilobytes(images)

    def _kilobytes(self, images: list[Image]) -> np.ndarray:
        """N images -> sizes in kB, (N,)."""
        return np.array(map_images(self._count_bytes, images), dtype=np.float64) / 1000

    def _count_bytes(self, image: Image) -> int:
        from PIL.Image import Resampling

        rgb = to_rgb(image)
        if self._resize is not None:
            rgb = rgb.resize((self._resize, self._resize), Resampling.BICUBIC)
        buffer = io.BytesIO()
        rgb.save(buffer, format="JPEG", quality=self._quality)
        return buffer.tell()


class Incompressibility(Compressibility):
    """The size of the JPEG in kB: ``compressibility`` with the sign turned, same options."""

    name = "incompressibility"

    def _score(self, images: list[Image], prompts: list[str] | None) -> np.ndarray:
        return self._kilobytes(images)


def jpeg_encoder() -> str:
    """The JPEG encoder with its version: another one gives another number of bytes."""
    import PIL
    from PIL import features

    if features.check_feature("mozjpeg"):
        encoder = f"mozjpeg-{features.version_feature('mozjpeg')}"
    elif features.check_feature("libjpeg_turbo"):
        encoder = f"libjpeg-turbo-{features.version_feature('libjpeg_turbo')}"
    else:
        encoder = f"libjpeg-{features.version_codec('jpg')}"
    return f"pillow-{PIL.__version__} {encoder}"
