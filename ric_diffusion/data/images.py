"""Picture files: decoding what nobody vouches for, to RGB or not at all; writing our own."""

import errno
import hashlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from ric_diffusion.io.files import replacing
from scorers import to_rgb

MAX_PIXELS = 64 * 2**20  # 192 MiB of RGB; beyond twice Pillow's own limit Pillow refuses anyway
# Asked for by name: Pillow's others include PostScript, which it hands to an outside program.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
_SUFFIXES = "png jpg jpeg webp gif bmp tif tiff ppm jp2 avif"
SUFFIXES = {f".{suffix}" for suffix in _SUFFIXES.split()}
_BLANK_RANGE = 3  # of 255: what JPEG leaves of a flat colour
_ORIENTATION = 0x0112  # of EXIF
_TURNED = range(5, 9)  # on its side
_NOT_THE_PICTURE = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}  # too many open files, no memory


class UnreadableImage(ValueError):
    """No picture could be had from a file; `reason` says why, in words for the user."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def open_image(path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode the file `path` to RGB, the first frame of an animation.

    Raises UnreadableImage for anything that is not one whole picture of at most `max_pixels`. The
    size is judged from the header, so a decompression bomb is refused before it is unpacked.
    """
    try:
        _check_file(path)
        with Image.open(path, formats=FORMATS) as image:
            _check_size(*image.size, max_pixels)
            return to_rgb(image)
    except UnreadableImage:
        raise
    except Exception as error:  # decoders meet broken files with every kind of error
        if isinstance(error, OSError) and error.errno in _NOT_THE_PICTURE:
            raise
        raise UnreadableImage(_reason(error)) from error


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Width and height of what `open_image` gives, from the header alone.

    Raises UnreadableImage as it does.
    """
    try:
        _check_file(path)
        with Image.open(path, formats=FORMATS) as image:
            width, height = image.size
            turned = image.getexif().get(_ORIENTATION, 1) in _TURNED
    except UnreadableImage:
        raise
    except Exception as error:
        raise UnreadableImage(_reason(error)) from error
    return (height, width) if turned else (width, height)


def save_png(path: Path, image: Image.Image, metadata: Mapping[str, Any] | None = None) -> None:
    """Write a PNG, in one move, with one text chunk for each entry of ``metadata``."""
    chunks = PngInfo()
    for key, value in (metadata or {}).items():
        chunks.add_itxt(key, value if isinstance(value, str) else json.dumps(value))
    with replacing(path) as temporary:
        image.save(temporary, format="PNG", pnginfo=chunks)


def is_blank(image: Image.Image) -> bool:
    """True if all pixels are nearly equal: all white, all black, or a NaN that turned black."""
    bands = image.convert("RGB").getextrema()
    return all(high - low <= _BLANK_RANGE for low, high in bands)  # type: ignore[misc]


def pixel_digest(image: Image.Image) -> str:
    """SHA-256 over size and RGB bytes, in hex: equal for equal pictures, however stored."""
    digest = hashlib.sha256(f"{image.width}x{image.height}\n".encode())
    digest.update(image.convert("RGB").tobytes())
    return digest.hexdigest()


def _check_file(path: str | os.PathLike[str]) -> None:
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):  # reading a pipe could wait for ever
        raise UnreadableImage("not a file")
    if status.st_size == 0:
        raise UnreadableImage("empty file")


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise UnreadableImage(f"no pixels ({width}x{height})")
    if width * height > max_pixels:
        raise UnreadableImage(f"too large ({width}x{height}, at most {max_pixels} pixels)")


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "missing file"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if isinstance(error, UnidentifiedImageError):
        return "not a picture of a known format"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return "too large: a decompression bomb"
    lines = str(error).splitlines()
    return f"broken picture ({lines[0] if lines else type(error).__name__})"
