"""The one conversion to 8-bit RGB, which every scorer uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from PIL.Image import Image

# Part of every fingerprint: raise the number when to_rgb changes what it gives. What it uses of
# Pillow has been settled for years; scorers that resize or encode probe what Pillow does with that.
RGB_FINGERPRINT = "rgb-1"

_ORIENTATION = 0x0112  # EXIF tag
_BAND = 2**20  # pixels that are looked at, or converted, at a time


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
    return turned(flattened(image), orientation(image))


def flattened(image: Image) -> Image:
    """``to_rgb`` without the orientation."""
    from PIL import Image as images

    image.load()
    # Not an image of a file: that may yet be closed, or go to its next frame.
    if type(image) is images.Image and image.mode == "RGB" and not image.info:
        return image
    if image.mode == "I" or image.mode.startswith("I;16"):
        rgb = _in_bands(image, _from_16_bit)
    elif image.has_transparency_data:
        rgb = _in_bands(image, _on_white)
    else:
        rgb = image.convert("RGB")
    rgb.info = {}
    return rgb


def orientation(image: Image) -> int:
    """That of the EXIF, 1 for upright and for what cannot be read."""
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # Pillow raises nearly anything on corrupt EXIF, SyntaxError included
        return 1
    return found if isinstance(found, int) else 1


def turned(image: Image, orientation: int) -> Image:
    """The image, turned as an EXIF orientation says; of an upright one the image itself.

    Not ImageOps.exif_transpose, which also rewrites the other tags and fails where one is corrupt.
    """
    from PIL.Image import Transpose

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


def _in_bands(image: Image, convert: Callable[[Image], Image]) -> Image:
    """``convert``, of a band at a time where the picture is large: what it takes beside the
    picture and its RGB is then little."""
    from PIL import Image as images

    if image.width * image.height <= _BAND:
        return convert(image)
    rgb, top = images.new("RGB", image.size), 0
    for band in bands(image):
        rgb.paste(convert(band), (0, top))
        top += band.height
    return rgb


def bands(image: Image) -> Iterator[Image]:
    """A picture in parts of all its width, from the top: some rows at a time where it is large, a
    small one as it is."""
    rows = max(1, _BAND // image.width)
    if rows >= image.height:
        yield image
        return
    for top in range(0, image.height, rows):
        yield image.crop((0, top, image.width, min(top + rows, image.height)))


def _on_white(image: Image) -> Image:
    from PIL import Image as images

    if image.mode == "La":  # Pillow converts premultiplied grey to LA only
        image = image.convert("LA")
    white = images.new("RGBA", image.size, "white")
    white.alpha_composite(image.convert("RGBA"))
    return white.convert("RGB")


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
