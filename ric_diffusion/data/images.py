"""Picture files: decoding what nobody vouches for, to RGB or not at all; writing our own."""

import errno
import functools
import hashlib
import io
import json
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile, PngInfo
from PIL.TiffImagePlugin import TiffImageFile

from ric_diffusion.data import png
from ric_diffusion.data.budget import decoding
from ric_diffusion.io.files import write_bytes
from scorers.rgb import bands, flattened, orientation, turned

MAX_PIXELS = 64 * 2**20  # 256 MiB as Pillow has RGB; beyond twice its own limit it refuses anyway
MAX_BYTES = 640 * 2**20  # of a file, and that decoding it may take beside those
_DECODED = 4  # bytes a pixel: Pillow pads RGB
# Bytes a pixel at the peak, the file's own mode and RGB among them, as measured.
_DECODING = {"AVIF": 13, "WEBP": 20, "HEIF": 20, "JXL": 20, "JPEG2000": 25}
_ROWS, _PROGRESSIVE = 9, 10  # of all others, which come row by row or in passes
# Asked for by name: Pillow's others include PostScript, which it hands to an outside program.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
_SUFFIXES = """
    png apng jpg jpeg jpe jfif webp gif bmp dib tif tiff ppm pgm pbm pnm jp2 j2k j2c jpc jpf jpx
    avif tga heic heif hif jxl
"""
SUFFIXES = {f".{suffix}" for suffix in _SUFFIXES.split()}
# Pictures too, which nothing here decodes: they are listed with that reason and not passed over.
_NOT_READ = """
    psd psb xcf kra svg svgz eps ai pdf ico icns cur pcx dds qoi exr hdr emf wmf
    raw dng cr2 cr3 nef arw orf raf rw2
"""
NOT_READ = {f".{suffix}" for suffix in _NOT_READ.split()}
_OTHERS = {".txt", ".caption", ".json", ".jsonl", ".csv", ".parquet", ".npz", ".safetensors"}
_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"GIF8": ".gif",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
    b"\0\0\0\x0cjP  ": ".jp2",
    b"\0\0\0\x0cJXL ": ".jxl",
    b"\xff\x0a": ".jxl",
}
_BRANDS = {b"avif": ".avif", b"avis": ".avif"} | dict.fromkeys(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"), ".heic"
)
NOT_FINITE = "not finite"
_NOT_FINITE = "ric_not_finite"  # in a picture's info: True, where a file has texts alone
HEADER = 16  # bytes of a file that tell a format
# Without a signature, so nearly anything would pass for one.
UNSIGNED = {".tga": "TGA", ".dib": "DIB"}
# Formats that register with Pillow from packages of their own, in the extra `formats`.
PLUGIN_OF = dict.fromkeys((".heic", ".heif", ".hif"), "HEIF") | {".jxl": "JXL"}
_BLANK_RANGE = 3  # of 255: what JPEG leaves of a flat colour
_SOME = (8, 8)  # pixels of a picture, evenly spread
_TURNED = range(5, 9)  # EXIF orientations: on its side
_BITS, _PHOTOMETRIC, _WHITE_IS_ZERO, _FORMAT, _SIGNED = 258, 262, 0, 339, 2  # of TIFF 6.0
_NOT_THE_PICTURE = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}  # too many open files, no memory

T = TypeVar("T")
Source = str | os.PathLike[str] | bytes  # a file, or what one holds


class UnreadableImage(ValueError):
    """No picture could be had from a file; `reason` says why, in words for the user."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def picture_suffix(path: Path) -> str | None:
    """The suffix, in small letters, that tells what picture a file is: its own, or where that tells
    nothing the one of its first bytes. None if it is no picture."""
    suffix = path.suffix.lower()
    if suffix in SUFFIXES or suffix in NOT_READ:
        return suffix
    if suffix in _OTHERS or not path.is_file():  # reading a pipe could wait for ever
        return None
    try:
        with path.open("rb") as file:
            return signature(file.read(HEADER))
    except OSError:
        return None


def open_image(source: Source, max_pixels: int = MAX_PIXELS, *, suffix: str = "") -> Image.Image:
    """Decode a file, or the bytes of one, to RGB, the first frame of an animation. ``suffix``: of
    the name that bytes have.

    Raises UnreadableImage for anything that is not one whole picture of at most `max_pixels`. The
    size is judged from the header, so a decompression bomb is refused before it is unpacked, and
    memory for it is asked of `data.budget`, where others may have to give theirs back first.
    """

    with ExitStack() as memory:

        def decode(image: Image.Image) -> tuple[Image.Image, int]:
            others = _PROGRESSIVE if "progressive" in image.info else _ROWS
            each = _DECODING.get(image.format or "", others)
            _check_size(*image.size, min(max_pixels, MAX_BYTES // each))
            _check_grey(image)
            _mend_transparency(image)
            pixels = image.width * image.height
            memory.close()  # that of an attempt before
            memory.enter_context(decoding(each * pixels, _DECODED * pixels))
            image.load()
            _check_finite(image)
            return flattened(image), orientation(image)

        # Turned when the file's own pixels are gone: beside those would be both of these.
        return turned(*_opened(source, suffix, decode))


def image_size(source: Source, *, suffix: str = "") -> tuple[int, int]:
    """Width and height of what `open_image` gives, from the header alone.

    Raises UnreadableImage as it does.
    """

    def measure(image: Image.Image) -> tuple[int, int]:
        width, height = image.size
        # Of a TIFF Pillow tells the size that it has when it is turned.
        on_its_side = image.format != "TIFF" and orientation(image) in _TURNED
        return (height, width) if on_its_side else (width, height)

    return _opened(source, suffix, measure)


def save_png(path: Path, image: Image.Image, metadata: Mapping[str, Any] | None = None) -> None:
    """Write a PNG, in one move, with one text chunk for each entry of ``metadata``."""
    write_bytes(path, png_bytes(image, metadata))


def png_bytes(image: Image.Image, metadata: Mapping[str, Any] | None = None) -> bytes:
    """What `save_png` writes: the same for the same picture and metadata."""
    chunks = PngInfo()
    for key, value in (metadata or {}).items():
        # tEXt where Latin-1 will do, which every viewer reads, else iTXt.
        chunks.add_text(key, value if isinstance(value, str) else json.dumps(value))
    file = io.BytesIO()
    image.save(file, format="PNG", pnginfo=chunks)
    return file.getvalue()


def not_finite(size: tuple[int, int]) -> Image.Image:
    """What takes the place of a picture that came out as NaN or Inf, of which 8 bits would make
    colours: a black one that `is_not_finite`."""
    image = Image.new("RGB", size)
    image.info[_NOT_FINITE] = True
    return image


def is_not_finite(image: Image.Image) -> bool:
    """Whether it only takes the place of one."""
    return image.info.get(_NOT_FINITE) is True


def is_blank(image: Image.Image) -> bool:
    """True if all pixels are nearly equal: all white, all black."""
    rgb = _as_rgb(image)
    some = rgb.resize(_SOME, Image.Resampling.NEAREST)  # which tell it of most pictures
    return _is_flat(some) and _is_flat(rgb)


def _is_flat(rgb: Image.Image) -> bool:
    return all(high - low <= _BLANK_RANGE for low, high in rgb.getextrema())  # type: ignore[misc]


def pixel_digest(image: Image.Image) -> str:
    """SHA-256 over size and RGB bytes, in hex: equal for equal pictures, however stored."""
    digest = hashlib.sha256(f"{image.width}x{image.height}\n".encode())
    for band in bands(_as_rgb(image)):  # each of which is copied
        digest.update(band.tobytes())
    return digest.hexdigest()


def _as_rgb(image: Image.Image) -> Image.Image:
    """Not a copy, as Pillow's own conversion is."""
    return image if image.mode == "RGB" else image.convert("RGB")


def _opened(source: Source, suffix: str, use: Callable[[Image.Image], T]) -> T:
    """What ``use`` makes of the picture. UnreadableImage for whatever goes wrong."""
    if not isinstance(source, bytes):
        suffix = Path(source).suffix
    suffix = suffix.lower()
    try:
        _check_source(source)
        with io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb") as file:
            formats = _formats(file.read(HEADER), suffix)
            file.seek(0)
            try:
                with Image.open(file, formats=formats) as image:
                    return use(image)
            except ValueError as error:
                # Pillow unpacks at most 1 MB of text or colour profile, and makers of pictures
                # write more; neither is part of what the picture looks like here.
                if not png.is_too_long(error):
                    raise
                with Image.open(png.without_text(file), formats=formats) as image:
                    return use(image)
    except UnreadableImage:
        raise
    except Exception as error:  # decoders meet broken files with every kind of error
        if isinstance(error, OSError) and error.errno in _NOT_THE_PICTURE:
            raise
        raise UnreadableImage(_reason(error, suffix)) from error


def _formats(header: bytes, suffix: str) -> tuple[str, ...]:
    """The names of the formats that a file may have. UnreadableImage if it takes a package that is
    not there."""
    if suffix in UNSIGNED:
        return (*FORMATS, UNSIGNED[suffix])
    plugin = PLUGIN_OF.get(signature(header) or "")
    if plugin is None:
        return FORMATS
    if not _registered(plugin):
        raise UnreadableImage(
            f"{plugin} takes a package of its own: pip install 'ric-diffusion[formats]'"
        )
    return (plugin,)


def signature(header: bytes) -> str | None:
    """The suffix of the format that the first bytes of a file tell."""
    if header[:4] == b"RIFF" and header[8:12] == b"WEBP":
        return ".webp"
    if header[4:8] == b"ftyp":
        return _BRANDS.get(header[8:12])
    return next((found for start, found in _SIGNATURES.items() if header.startswith(start)), None)


@functools.cache
def _registered(plugin: str) -> bool:
    """Whether a format of another package can be read here."""
    try:
        if plugin == "HEIF":
            import pillow_heif

            pillow_heif.register_heif_opener()
        else:
            import pillow_jxl  # noqa: F401  registers as it is imported
    except ImportError:
        return False
    return True


def _check_source(source: Source) -> None:
    if isinstance(source, bytes):
        size = len(source)
    else:
        status = os.stat(source)
        if not stat.S_ISREG(status.st_mode):  # reading a pipe could wait for ever
            raise UnreadableImage("not a file")
        size = status.st_size
    if size == 0:
        raise UnreadableImage("empty file")
    if size > MAX_BYTES:
        raise UnreadableImage(f"too large ({size} bytes, at most {MAX_BYTES})")


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise UnreadableImage(f"no pixels ({width}x{height})")
    if width * height > max_pixels:
        raise UnreadableImage(f"too large ({width}x{height}, at most {max_pixels} pixels)")


def _check_grey(image: Image.Image) -> None:
    """UnreadableImage for a TIFF in grey of more than 8 bits of which Pillow does not tell which
    level is white: it takes all for those of 16 bits, with 0 for black."""
    if not isinstance(image, TiffImageFile) or image.mode[:1] != "I":
        return
    bits, signed = image.tag_v2.get(_BITS, (1,))[0], image.tag_v2.get(_FORMAT, (1,))[0] == _SIGNED
    if bits < 16 or (bits > 16 and not signed):  # Pillow's own of 32 bits are signed
        raise UnreadableImage(f"a grey TIFF of {bits} bits is not read here; save it as PNG")
    if image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        raise UnreadableImage("a grey TIFF with white as 0 is not read here; save it as PNG")


def _mend_transparency(image: Image.Image) -> None:
    """What a PNG's tRNS says, in the levels that Pillow expands its pixels to: it keeps those of
    the file, of 2, 4 or 16 bits."""
    level = image.info.get("transparency")
    raw = image.tile[0].args if isinstance(image, PngImageFile) and image.tile else None
    if raw in ("L;2", "L;4") and isinstance(level, int):
        image.info["transparency"] = level * 255 // (2 ** int(raw[-1]) - 1)
    elif raw == "RGB;16B" and isinstance(level, tuple):
        image.info["transparency"] = tuple(part >> 8 for part in level)


def _check_finite(image: Image.Image) -> None:
    """UnreadableImage for a TIFF with NaN or Inf, of which 8 bits would make colours."""
    if image.mode == "F":
        for band in bands(image):
            if not np.isfinite(np.asarray(band)).all():
                raise UnreadableImage(NOT_FINITE)


def _reason(error: Exception, suffix: str) -> str:
    if isinstance(error, FileNotFoundError):
        return "missing file"
    if isinstance(error, PermissionError):
        return "no permission to read it"
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return "a link to itself"
    if isinstance(error, UnidentifiedImageError):
        if suffix in NOT_READ:
            return f"{suffix[1:].upper()} is not read here; save it as PNG or JPEG"
        return "not a picture of a known format"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return "too large: a decompression bomb"
    lines = str(error).splitlines()
    return f"broken picture ({lines[0] if lines else type(error).__name__})"
