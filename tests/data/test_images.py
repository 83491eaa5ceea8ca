"""Bounded decoding: every kind of picture, and everything that is none."""

import contextlib
import gc
import io
import math
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ric_diffusion.data.images import UnreadableImage, is_blank, open_image, pixel_digest


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
def test_every_mode_becomes_rgb(tmp_path, picture, mode):
    image = picture(3).convert("I").convert("I;16") if mode == "I;16" else picture(3).convert(mode)
    saved = 0
    for suffix in ("png", "jpg", "webp", "tif", "gif"):
        try:
            image.save(tmp_path / f"x.{suffix}")
        except (OSError, ValueError):
            continue  # a format does not hold every mode
        saved += 1
        decoded = open_image(tmp_path / f"x.{suffix}")
        assert (decoded.mode, decoded.size) == ("RGB", (16, 12))
    assert saved


def test_first_frame_of_an_animation(tmp_path, picture):
    frames = [picture(seed) for seed in range(3)]
    frames[0].save(tmp_path / "x.webp", save_all=True, append_images=frames[1:], lossless=True)
    assert pixel_digest(open_image(tmp_path / "x.webp")) == pixel_digest(frames[0])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"just words", "not a picture of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture of a known format"),
        (png_header(100_000, 100_000), "too large"),
        (png_header(12_000, 12_000), "too large"),  # Pillow only warns about this size
        (png_header(0, 5), "no"),
        (png_header(300, 300), "broken picture"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), ""),
        (b"\xff\xd8\xff\xe0" + bytes(40), ""),
        (b"RIFF\x24\0\0\0WEBPVP8 " + bytes(20), ""),
        (b"GIF89a" + bytes(20), ""),
        (b"II*\0" + bytes(40), ""),
    ],
)
@pytest.mark.filterwarnings("ignore")  # Pillow's, about size and corrupt tags
def test_what_is_no_picture(tmp_path, data, reason):
    path = tmp_path / "x.png"
    path.write_bytes(data)
    with pytest.raises(UnreadableImage) as caught:
        open_image(path)
    assert caught.value.reason.startswith(reason)
    assert "\n" not in caught.value.reason


def test_every_truncation_is_unreadable_or_whole(tmp_path, picture):
    path = tmp_path / "x"
    for kind in ("PNG", "JPEG", "WEBP", "GIF"):
        buffer = io.BytesIO()
        picture(1).save(buffer, kind)
        whole = buffer.getvalue()
        for length in range(0, len(whole) - 12, 17):
            path.write_bytes(whole[:length])
            with pytest.raises(UnreadableImage):
                open_image(path)


@pytest.mark.filterwarnings("ignore")
def test_bit_flips_never_raise_anything_else(tmp_path, picture):
    path = tmp_path / "x"
    rng = np.random.default_rng(0)
    for kind in ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP"):
        buffer = io.BytesIO()
        picture(1).save(buffer, kind)
        for _ in range(60):
            data = np.frombuffer(buffer.getvalue(), np.uint8).copy()
            data[rng.integers(0, len(data), 4)] = rng.integers(0, 256, 4)
            path.write_bytes(data.tobytes())
            with contextlib.suppress(UnreadableImage):
                assert open_image(path).mode == "RGB"


def test_size_limit_counts_pixels(tmp_path, picture):
    picture(1, (20, 10)).save(tmp_path / "x.png")
    assert open_image(tmp_path / "x.png", max_pixels=200).size == (20, 10)
    with pytest.raises(UnreadableImage, match="20x10, at most 199"):
        open_image(tmp_path / "x.png", max_pixels=199)


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to("loop.png")
    for name, reason in [("pipe", "not a file"), ("folder", "not a file"), ("gone", "missing")]:
        with pytest.raises(UnreadableImage, match=reason):
            open_image(tmp_path / f"{name}.png")
    with pytest.raises(UnreadableImage):
        open_image(tmp_path / "loop.png")
    with pytest.raises(UnreadableImage):
        open_image(tmp_path / "nul\0.png")


def test_no_permission(tmp_path, picture, monkeypatch):
    path = tmp_path / "x.png"
    picture(1).save(path)
    path.chmod(0)
    if os.geteuid() == 0:  # root may read anything

        def refuse(*args, **kwargs):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(UnreadableImage, match="no permission"):
        open_image(path)


def test_trouble_of_ours_is_not_the_pictures(tmp_path, picture, monkeypatch):
    picture(1).save(tmp_path / "x.png")

    def refuse(*args, **kwargs):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        open_image(tmp_path / "x.png")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts handles in /proc")
@pytest.mark.filterwarnings("error::ResourceWarning", "ignore::UserWarning")
def test_no_handle_is_left_open(tmp_path, picture):
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    picture(1).save(good)
    bad.write_bytes(good.read_bytes()[:60])
    kept = []
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        kept.append(open_image(good))
        with pytest.raises(UnreadableImage):
            open_image(bad)
    assert len(os.listdir("/proc/self/fd")) == before
    gc.collect()


def test_blank(picture):
    assert is_blank(Image.new("RGB", (9, 9), "white"))
    assert is_blank(Image.new("L", (9, 9), 0))
    assert is_blank(Image.new("RGB", (1, 1), "red"))
    nearly = np.full((9, 9, 3), 250, np.uint8)
    nearly[4, 4] = 253
    assert is_blank(Image.fromarray(nearly))
    nearly[4, 4, 2] = 240
    assert not is_blank(Image.fromarray(nearly))
    assert not is_blank(picture(1))


def test_a_nan_picture_is_blank():
    with np.errstate(invalid="ignore"):
        pixels = np.full((8, 8, 3), np.nan).astype(np.uint8)
    assert is_blank(Image.fromarray(pixels))


def test_digest_tells_pictures_apart_and_files_not(tmp_path, picture):
    picture(1).save(tmp_path / "a.png")
    picture(1).save(tmp_path / "b.png", compress_level=0)
    picture(1).save(tmp_path / "c.webp", lossless=True)
    picture(2).save(tmp_path / "d.png")
    digests = {name: pixel_digest(open_image(tmp_path / name)) for name in os.listdir(tmp_path)}
    assert digests["a.png"] == digests["b.png"] == digests["c.webp"] != digests["d.png"]
    flat = Image.new("RGB", (4, 6))
    assert pixel_digest(flat) != pixel_digest(Image.new("RGB", (6, 4)))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_picture_of_floats_is_read_unless_one_is_no_number(tmp_path, value):
    pixels = np.linspace(0, 255, 64, dtype=np.float32).reshape(8, 8)
    Image.fromarray(pixels).save(tmp_path / "a.tiff")
    assert open_image(tmp_path / "a.tiff").size == (8, 8)
    pixels[7, 3] = value
    Image.fromarray(pixels).save(tmp_path / "b.tiff")
    with pytest.raises(UnreadableImage, match=r"^not finite$"):
        open_image(tmp_path / "b.tiff")


def test_an_error_without_words_is_told_by_its_name(tmp_path, picture, monkeypatch):
    path = tmp_path / "x.png"
    picture(1).save(path)

    def fail(*_args, **_kwargs):
        raise ValueError

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(UnreadableImage, match=r"broken picture \(ValueError\)"):
        open_image(path)
