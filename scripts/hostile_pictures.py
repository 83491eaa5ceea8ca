"""Write every kind of file that a folder of pictures from strangers may hold, each with a caption.

    python scripts/hostile_pictures.py FOLDER
    ric label FOLDER --scorers compressibility colorfulness --out labelled/

Pictures that look odd and are whole, and what is none: torn, bombs, lying headers, other things
under a picture's name, pipes and links in the place of files, names that a terminal or a page would
take for something else. FOLDER/../hostile.json says of each whether it is to be labelled, or the
reason why not. scripts/faults.py and tests/faults/test_hostile_pictures.py label and score them.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import pickle
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

SIDE = 24
SIGNATURE = b"\x89PNG\r\n\x1a\n"
NO_PICTURE = "not a picture of a known format"
BROKEN = "broken picture ("
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
ORIENTATION = 0x0112
CASES = "hostile.json"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A file: its ``name``, what it holds or what makes it, and how the ``reason`` begins why it is
    left out, "" where it is labelled, None where it is not even listed."""

    name: str
    data: bytes | Callable[[Path], object]
    reason: str | None = ""
    caption: bytes | None = b"a picture"


def noise(seed: int, side: int = SIDE, bands: int = 3) -> np.ndarray:
    """(side, side, bands) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (side, side, bands), dtype=np.uint8)


def saved(seed: int, kind: str, mode: str = "RGB", **options: Any) -> bytes:
    """A picture of its own in this format."""
    file = io.BytesIO()
    Image.fromarray(noise(seed)).convert(mode).save(file, kind, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes, check: int | None = None, length: int | None = None) -> bytes:
    found = zlib.crc32(kind + data) if check is None else check
    return (
        struct.pack(">I", len(data) if length is None else length)
        + kind
        + data
        + struct.pack(">I", found)
    )


def png(
    seed: int,
    *,
    width: int = SIDE,
    height: int = SIDE,
    depth: int = 8,
    colour: int = 2,
    interlace: int = 0,
    before: bytes = b"",
    after: bytes = b"",
    rows: bytes | None = None,
    end: bytes | None = None,
) -> bytes:
    """One written chunk by chunk; its rows are noise unless they are given."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace))
    if rows is None:
        channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 1)
        each = -(-width * channels * depth // 8)
        random = np.random.default_rng(seed)
        rows = b"".join(b"\0" + random.bytes(each) for _ in range(min(height, SIDE)))
    data = chunk(b"IDAT", zlib.compress(rows))
    return (
        SIGNATURE + header + before + data + after + (chunk(b"IEND", b"") if end is None else end)
    )


def turned(orientation: Any) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def flat(value: Any, mode: str = "RGB", size: tuple[int, int] = (SIDE, SIDE)) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, value).save(file, "PNG")
    return file.getvalue()


def floats(seed: int, value: float | None) -> bytes:
    pixels = noise(seed)[..., 0].astype(np.float32)
    if value is not None:
        pixels[3, 3] = value
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "TIFF")
    return file.getvalue()


def several(seed: int, kind: str, **options: Any) -> bytes:
    frames = [Image.fromarray(noise(seed + i)) for i in range(3)]
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:], **options)
    return file.getvalue()


def with_text(seed: int, key: str, value: str, *, compressed: bool) -> bytes:
    texts = PngImagePlugin.PngInfo()
    texts.add_text(key, value, zip=compressed)
    return saved(seed, "PNG", pnginfo=texts)


def tiff(entries: list[tuple[int, int, int, int]], following: int = 0, tail: bytes = b"") -> bytes:
    """Of tags (number, type, count, value) alone."""
    found = b"II*\0" + struct.pack("<IH", 8, len(entries))
    found += b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return found + struct.pack("<I", following) + tail


def jpeg_of_size(seed: int, width: int, height: int) -> bytes:
    """Its header lies."""
    data = bytearray(saved(seed, "JPEG"))
    start = data.index(b"\xff\xc0") + 5
    data[start : start + 4] = struct.pack(">HH", height, width)
    return bytes(data)


class Canary:
    """Unpickled, it would leave a mark."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("hostile-pickle-was-run",)


def sparse(size: int, start: bytes) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_bytes(start)
        os.truncate(path, size)

    return write


def bound_socket(path: Path) -> None:
    before = os.getcwd()
    os.chdir(path.parent)  # addresses are short
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
    finally:
        os.chdir(before)


def cases() -> Iterator[Case]:
    yield from _whole()
    yield from _blank_or_shaped()
    yield from _torn()
    yield from _lying()
    yield from _bombs()
    yield from _no_pictures()
    yield from _no_files()
    yield from _names()
    yield from _captions()


def _whole() -> Iterator[Case]:
    """Odd, and pictures all the same."""
    for seed, (kind, mode) in enumerate(
        [
            ("PNG", "1"),
            ("PNG", "L"),
            ("PNG", "LA"),
            ("PNG", "P"),
            ("PNG", "RGBA"),
            ("PNG", "I;16"),
            ("JPEG", "L"),
            ("JPEG", "CMYK"),
            ("GIF", "P"),
            ("WEBP", "RGB"),
            ("WEBP", "RGBA"),
            ("TIFF", "CMYK"),
            ("TIFF", "LAB"),
            ("TIFF", "I;16"),
            ("BMP", "P"),
            ("PPM", "L"),
            ("JPEG2000", "RGB"),
            ("AVIF", "RGB"),
            ("TGA", "RGB"),
        ]
    ):
        name = f"{kind}-{mode.replace(';', '')}.{kind.lower()}".replace("jpeg2000", "jp2")
        if mode == "I;16":
            pixels = noise(seed)[..., 0].astype(np.uint16) * 257
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, kind)
            yield Case(name=name, data=file.getvalue())
        elif mode == "LAB":
            file = io.BytesIO()
            Image.merge("LAB", Image.fromarray(noise(seed)).split()).save(file, kind)
            yield Case(name=name, data=file.getvalue())
        else:
            yield Case(name=name, data=saved(seed, kind, mode))
    yield Case(name="16-bit-rgb.png", data=png(30, depth=16))
    yield Case(name="16-bit-rgba.png", data=png(31, depth=16, colour=6))
    yield Case(name="2-bit.png", data=png(32, depth=2, colour=0))
    palette = chunk(b"PLTE", noise(33)[:16, :16].tobytes())
    yield Case(
        name="palette-half-transparent.png",
        data=png(33, colour=3, before=palette + chunk(b"tRNS", bytes(range(256)))),
    )
    yield Case(
        name="palette-too-short.png",
        data=png(34, colour=3, before=chunk(b"PLTE", bytes(9) + b"\xff\x10\x80")),
    )
    yield Case(
        name="grey-with-transparent-level.png",
        data=png(35, colour=0, before=chunk(b"tRNS", b"\0\x80")),
    )
    yield Case(name="profile-broken.png", data=png(36, before=chunk(b"iCCP", b"x\0\0no zlib")))
    yield Case(name="profile-broken.jpg", data=saved(37, "JPEG", icc_profile=b"no profile" * 9))
    yield Case(name="gamma-zero.png", data=png(38, before=chunk(b"gAMA", bytes(4))))
    for orientation in (2, 3, 4, 5, 6, 7, 8, 99):
        yield Case(
            name=f"turned-{orientation}.jpg",
            data=saved(40 + orientation, "JPEG", exif=turned(orientation)),
        )
    yield Case(name="exif-torn.jpg", data=saved(50, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f"))
    yield Case(
        name="exif-endless.png",
        data=png(51, before=chunk(b"eXIf", b"II*\0\x08\0\0\0\xff\xff" + bytes(40))),
    )
    yield Case(name="animated.png", data=several(52, "PNG"))
    yield Case(name="animated.webp", data=several(55, "WEBP", lossless=True))
    yield Case(name="animated.gif", data=several(58, "GIF"))
    yield Case(name="several-pages.tiff", data=several(61, "TIFF"))
    yield Case(name="float.tiff", data=floats(64, None))
    yield Case(name="nan.tiff", data=floats(65, float("nan")), reason="not finite")
    yield Case(name="infinite.tiff", data=floats(66, float("inf")), reason="not finite")
    yield Case(name="interlaced.png", data=saved(67, "PNG") + b"more behind it" * 99)
    yield Case(name="jpeg-named.png", data=saved(68, "JPEG"))
    yield Case(name="png-named.jpg", data=saved(69, "PNG"))
    yield Case(name="progressive.jpg", data=saved(70, "JPEG", progressive=True))
    yield Case(
        name="text-of-3-MB.png", data=with_text(71, "prompt", "x" * 3_000_000, compressed=False)
    )


def _blank_or_shaped() -> Iterator[Case]:
    yield Case(name="white.png", data=flat("white"), reason="blank")
    yield Case(name="transparent.png", data=flat((9, 80, 200, 0), "RGBA"), reason="blank")
    yield Case(name="black.png", data=flat(0, "L"), reason="blank")
    yield Case(name="one-pixel.png", data=flat("red", size=(1, 1)), reason="blank")
    wide = np.random.default_rng(80).integers(0, 256, (1, 3000, 3), dtype=np.uint8)
    for name, pixels, reason in (
        ("wide", wide, "too wide (3000x1"),
        ("narrow", wide.transpose(1, 0, 2), "too narrow (1x3000"),
    ):
        file = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG")
        yield Case(name=f"{name}.png", data=file.getvalue(), reason=reason)
    yield Case(name="twice.bmp", data=saved(69, "BMP"), reason="same as png-named.jpg")


def _torn() -> Iterator[Case]:
    for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000", "AVIF"):
        whole = saved(90, kind)
        reason = NO_PICTURE if kind in ("GIF", "AVIF") else BROKEN
        yield Case(
            name=f"half.{kind.lower()}".replace("jpeg2000", "jp2"),
            data=whole[: len(whole) // 2],
            reason=reason,
        )
    yield Case(name="header-alone.png", data=saved(91, "PNG")[:33], reason=NO_PICTURE)
    yield Case(name="signature-alone.png", data=SIGNATURE, reason=NO_PICTURE)
    yield Case(name="start-alone.jpg", data=b"\xff\xd8\xff\xe0" + bytes(40), reason=NO_PICTURE)
    yield Case(name="without-end.png", data=png(92, end=b""), reason="")
    yield Case(
        name="bad-checksum.png",
        data=SIGNATURE
        + chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0), check=1),
        reason=NO_PICTURE,
    )
    yield Case(
        name="bad-checksum-of-pixels.png",
        data=saved(93, "PNG").replace(b"IEND", b"IENX"),
        reason="",
    )
    yield Case(
        name="no-pixels-at-all.png",
        data=SIGNATURE
        + chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0))
        + chunk(b"IEND", b""),
        reason=BROKEN,
    )
    yield Case(
        name="rubbish-for-pixels.png",
        data=SIGNATURE
        + chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", b"rubbish")
        + chunk(b"IEND", b""),
        reason=BROKEN,
    )
    yield Case(name="lzw-rubbish.gif", data=saved(94, "GIF")[:800] + b"\xff" * 200, reason=BROKEN)


def _lying() -> Iterator[Case]:
    bomb = "too large: a decompression bomb"
    for width, height, reason in (
        (0, 9, NO_PICTURE),
        (9, 0, NO_PICTURE),
        (2**31 - 1, 2**31 - 1, bomb),
        (2**32 - 1, 1, bomb),
        (100_000, 100_000, bomb),
    ):
        yield Case(
            name=f"says-{width}x{height}.png",
            data=png(100, width=width, height=height, rows=b"\0" * 99),
            reason=reason,
        )
    yield Case(
        name="says-12000.png",
        data=png(101, width=12_000, height=12_000, rows=b"\0"),
        reason="too large (12000x12000, at most 67108864 pixels)",
    )
    yield Case(
        name="says-300.png", data=png(102, width=300, height=300, rows=bytes(1000)), reason=BROKEN
    )
    yield Case(name="depth-7.png", data=png(103, depth=7), reason=NO_PICTURE)
    yield Case(name="colour-5.png", data=png(104, colour=5), reason=NO_PICTURE)
    yield Case(name="no-palette.png", data=png(105, colour=3), reason=BROKEN)
    yield Case(
        name="chunk-of-2-GB.png",
        data=png(106, before=chunk(b"tEXt", b"x", length=2**31 - 1)),
        reason=BROKEN,
    )
    yield Case(
        name="two-headers.png",
        data=png(
            107, before=chunk(b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0))
        ),
        reason=bomb,
    )
    yield Case(name="says-65535.jpg", data=jpeg_of_size(108, 65_535, 65_535), reason="too large")
    yield Case(name="says-0.jpg", data=jpeg_of_size(109, 0, 0), reason=NO_PICTURE)
    gif = bytearray(saved(110, "GIF"))
    gif[6:10] = struct.pack("<HH", 65_535, 65_535)
    yield Case(name="says-65535.gif", data=bytes(gif), reason="too large")
    webp = bytearray(saved(111, "WEBP"))
    webp[4:8] = struct.pack("<I", 2**32 - 1)
    yield Case(name="riff-of-4-GB.webp", data=bytes(webp), reason=BROKEN)
    bmp = bytearray(saved(112, "BMP"))
    bmp[18:26] = struct.pack("<ii", 60_000, 60_000)
    yield Case(name="says-60000.bmp", data=bytes(bmp), reason="too large")
    bmp[18:26] = struct.pack("<ii", SIDE, -SIDE)
    yield Case(name="upside-down.bmp", data=bytes(bmp), reason="")
    yield Case(
        name="says-100000.ppm", data=b"P6 100000 100000 255\n" + bytes(99), reason="too large"
    )
    yield Case(
        name="largest-value-0.ppm",
        data=b"P6 9 9 0\n" + bytes(243),
        reason="broken picture (maxval must be greater than 0",
    )
    size = [(256, 3, 1, 9), (257, 3, 1, 9), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    yield Case(
        name="tag-of-4-GB.tiff",
        data=tiff([*size, (270, 2, 2**32 - 1, 8), (273, 4, 1, 9), (279, 4, 1, 81)]),
        reason=NO_PICTURE,
    )
    yield Case(
        name="strips-elsewhere.tiff",
        data=tiff([*size, (273, 4, 1, 2**31), (278, 3, 1, 9), (279, 4, 1, 81)]),
        reason=BROKEN,
    )
    yield Case(
        name="pages-in-a-circle.tiff",
        data=tiff(
            [*size, (273, 4, 1, 8), (278, 3, 1, 9), (279, 4, 1, 81)],
            following=8,
            tail=noise(113).tobytes(),
        ),
        reason="",
    )


def _bombs() -> Iterator[Case]:
    rows = (b"\0" + bytes(12_000)) * 4000
    yield Case(
        name="bomb-48-million.png",
        data=png(120, width=4000, height=4000, rows=rows),
        reason="blank",
    )
    yield Case(
        name="bomb-900-million.png",
        data=png(121, width=30_000, height=30_000, rows=bytes(9**6)),
        reason="too large",
    )
    yield Case(name="text-bomb.png", data=with_text(122, "prompt", "x" * 2**26, compressed=True))
    yield Case(
        name="profile-bomb.png",
        data=png(123, before=chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(2**26)))),
    )
    yield Case(
        name="text-bomb-with-a-long-tail.png",
        data=sparse(2**33, with_text(124, "prompt", "x" * 2**26, compressed=True)),
        reason="too large",
    )
    yield Case(name="sparse.png", data=sparse(2**33, b""), reason="too large")
    yield Case(
        name="a-thousand-frames.gif",
        data=saved(
            125,
            "GIF",
            save_all=True,
            append_images=[Image.new("L", (SIDE, SIDE), i % 256) for i in range(1000)],
        ),
    )


def _no_pictures() -> Iterator[Case]:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("../../escaped.png", b"x")
    for name, data, reason in (
        ("empty.png", b"", "empty file"),
        ("zeros.png", bytes(4096), NO_PICTURE),
        ("random.jpg", np.random.default_rng(130).bytes(4096), NO_PICTURE),
        ("words.png", b"just words", NO_PICTURE),
        ("words-16.png", "just words".encode("utf-16"), NO_PICTURE),
        ("page.png", b"<html><script>alert(1)</script>", NO_PICTURE),
        (
            "drawing.svg",
            b"<svg onload='alert(1)'/>",
            "SVG is not read here",
        ),
        ("drawing.png", b"<svg onload='alert(1)'/>", NO_PICTURE),
        (
            "script.eps",
            POSTSCRIPT,
            "EPS is not read here",
        ),
        ("script.png", POSTSCRIPT, NO_PICTURE),
        ("document.pdf", b"%PDF-1.7\n", "PDF is not read here"),
        ("layers.psd", b"8BPS\0\1" + bytes(40), "PSD is not read here"),
        ("icon.ico", b"\0\0\1\0\1\0" + bytes(40), "ICO is not read here"),
        ("archive.png", archive.getvalue(), NO_PICTURE),
        ("pickle.png", pickle.dumps(Canary()), NO_PICTURE),
        ("program.png", b"#!/bin/sh\ntouch hostile-program-was-run\n", NO_PICTURE),
        ("rubbish-before.png", b"xx" + saved(131, "PNG"), NO_PICTURE),
        ("no.tga", b"\0\0\2" + bytes(90), NO_PICTURE),
    ):
        yield Case(name=name, data=data, reason=reason)


def _no_files() -> Iterator[Case]:
    yield Case(name="pipe.png", data=os.mkfifo, reason="not a file")
    yield Case(name="socket.png", data=bound_socket, reason="not a file")
    yield Case(name="folder.png", data=Path.mkdir, reason=None)
    yield Case(
        name="link-to-nothing.png",
        data=lambda path: path.symlink_to("nothing"),
        reason="missing file",
    )
    yield Case(
        name="link-to-itself.png",
        data=lambda path: path.symlink_to(path.name),
        reason="a link to itself",
    )


def leading_out() -> Iterator[Case]:
    """Links for which the whole folder is refused."""
    for name, to in (
        ("link-out", "/etc/passwd"),
        ("link-to-a-device", "/dev/zero"),
        ("link-to-a-folder", "/"),
    ):
        yield Case(name=f"{name}.png", data=lambda path, to=to: path.symlink_to(to))


def _names() -> Iterator[Case]:
    for seed, name in enumerate(
        (
            "two\nlines.png",
            "return\rhere.png",
            "\x1b[31mred\x1b[0m.png",
            "bell\x07.png",
            "tab\there.png",
            "\u202egnp.txt.png",
            "zero\u200bwidth.png",
            "cafe\u0301.png",
            "\U0001f34e.png",
            "<script>alert(1)<\u2215script>.png",
            "' or 1=1 --.png",
            "$(touch hostile-name-was-run).png",
            "%s%n{0}.png",
            "--out.png",
            " spaces around .png",
            "train-00000.png",
            "con.png",
            "a" * 200 + ".png",
            "a.b.c.d.png",
            "PNG.PNG",
        )
    ):
        yield Case(name=name, data=saved(140 + seed, "PNG"))
    yield Case(
        name="\udcff\udcfe.png", data=saved(170, "PNG"), reason="its name is not UTF-8; rename it"
    )
    yield Case(name=".hidden.png", data=saved(171, "PNG"), reason=None)


def _captions() -> Iterator[Case]:
    for name, caption, reason in (
        ("caption-missing.png", None, "no caption or prompt"),
        ("caption-empty.png", b"", "no caption or prompt"),
        (
            "caption-latin.png",
            b"caf\xe9",
            "its caption caption-latin.txt cannot be read",
        ),
        ("caption-with-a-zero.png", b"a\0b", ""),
        ("caption-of-a-megabyte.png", b"word " * 200_000, ""),
        ("caption-of-escapes.png", b"\x1b[2J\x1b]0;title\x07", ""),
        ("caption-of-rewards.png", b"<|compressibility|> 9.9 <script>alert(1)</script>", ""),
    ):
        yield Case(name=name, data=saved(sum(name.encode()), "PNG"), caption=caption, reason=reason)


def write(folder: Path) -> dict[str, str | None]:
    """Write all of them to a folder that is not there yet; the reason of each by its name."""
    folder.mkdir(parents=True)
    found: dict[str, str | None] = {}
    for case in cases():
        path = folder / case.name
        assert case.name not in found, case.name
        if isinstance(case.data, bytes):
            path.write_bytes(case.data)
        else:
            case.data(path)
        if case.caption is not None:
            path.with_suffix(".txt").write_bytes(case.caption)
        found[case.name] = case.reason
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="a new one")
    folder = parser.parse_args().folder
    if os.path.lexists(folder):
        parser.error(f"{folder}: is there already; name a new folder")
    reasons = write(folder)
    (folder.parent / CASES).write_text(json.dumps(reasons, indent=2))
    print(f"{len(reasons)} kinds in {folder}")


if __name__ == "__main__":
    main()
