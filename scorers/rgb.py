"""The one conversion to 8-bit RGB, which every scorer uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

# Part of every fingerprint: raise the number when to_rgb changes what it gives. What it uses of
# Pillow has been settled for years; scorers that resize or encode probe what Pillow does with that.
RGB_FINGERPRINT = "rgb-1"

_ORIENTATION = 0x0112  # EXIF tag


def to_rgb(image: Image) -> Image:
    """An 8-bit RGB image of what the picture looks like, on white: the picture itself if it is one
    and nothing is to be done, else a new one. The input stays as it is.

    - EXIF orientation is applied; EXIF that cannot be read counts as upright.
    - Transparency (RGBA, LA, PA, premultiplied, palettes with alpha, ``info["transparency"]``) is
      composed over white.
    - Grey and black-and-white are expanded. 16-bit grey (I;16 in either byte order, and I, where
      Pillow keeps 16-bit files) is scaled by its range, 65535 to 255; I outside it is clipped.
    - Palette, CMYK, YCbCr, LAB, HSV and float go through Pillow's own conversion (float is taken
      as 0 to 255). Colour profiles are not applied.
    - Nothing of ``info`` is kept, so comments and profiles cannot weigh in an encoded file.

    Of an animation it takes the current frame.
    """
    from PIL import Image as images

    upright = _turn_upright(image)
    # Not an image of a file: that may yet be closed, or go to its next frame.
    if type(upright) is images.Image and upright.mode == "RGB" and not upright.info:
        return upright
    if upright.mode == "I" or upright.mode.startswith("I;16"):
        rgb = _from_16_bit(upright)
    elif upright.has_transparency_data:
        if upright.mode == "La":  # Pillow converts premultiplied grey to LA only
            upright = upright.convert("LA")
        white = images.new("RGBA", upright.size, "white")
        white.alpha_composite(upright.convert("RGBA"))
        rgb = white.convert("RGB")
    else:
        rgb = upright.convert("RGB")
    rgb.info = {}
    return rgb


def _turn_upright(image: Image) -> Image:
    """The image, turned as its EXIF orientation says. Without one: the image itself.

    Not ImageOps.exif_transpose, which also rewrites the other tags and fails where one is corrupt.
    """
    from PIL.Image import Transpose

    image.load()
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Pillow raises nearly anything on corrupt EXIF, SyntaxError included
        orientation = 1
    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    return image.transpose(turns[orientation]) if orientation in turns else image


def _from_16_bit(image: Image) -> Image:
    """16-bit grey -> RGB; the grey level named by ``info["transparency"]`` becomes white."""
    import numpy as np
    from PIL import Image as images

    level = np.asarray(image).astype(np.int64).clip(0, 65535)  # (H, W)
    grey = ((level + 128) // 257).astype(np.uint8)  # 65535 = 255 * 257, rounded to nearest
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[level == transparent] = 255
    return images.fromarray(grey).convert("RGB")
