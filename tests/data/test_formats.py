"""Pictures as people have them: every suffix, long texts in a PNG, names of other systems."""

import io
import json
import os
import struct
import sys
import unicodedata
import zlib

import pytest
from PIL import Image, ImageCms, PngImagePlugin

from ric_diffusion.data import images, png
from ric_diffusion.data.images import (
    UnreadableImage,
    image_size,
    open_image,
    picture_suffix,
    pixel_digest,
)
from ric_diffusion.data.label import label_folder
from ric_diffusion.data.medium import IMAGE
from ric_diffusion.data.records import read_folder, read_labelled
from scorers import load
from support.shards import write_tar

GRAPH = json.dumps({"nodes": [{"id": 1, "type": "Sampler"}] * 60_000})  # as node editors write it
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes() + bytes(2_000_000)


def chunks(**texts):
    info = PngImagePlugin.PngInfo()
    for keyword, text in texts.items():
        info.add_itxt(keyword, text, zip=True)
    return info


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("x.jfif", {"format": "JPEG"}),
        ("x.jpe", {"format": "JPEG"}),
        ("x.apng", {"format": "PNG"}),
        ("x.tga", {}),
        ("x.pgm", {}),
        ("x.pbm", {}),
        ("x.j2k", {"format": "JPEG2000"}),
        ("x.dib", {}),
        ("x.heic", {"format": "HEIF"}),
        ("x.JXL", {"format": "JXL", "lossless": True}),
        ("x", {"format": "PNG"}),
        ("x.jpg_large", {"format": "JPEG"}),
        ("x.jpg?width=100", {"format": "WEBP"}),
        ("wrong.png", {"format": "JPEG"}),
    ],
)
def test_every_format_is_read_and_measured(tmp_path, picture, name, options):
    images._registered("HEIF"), images._registered("JXL")  # for Pillow to write them
    image = picture(3).convert("1" if name.endswith("pbm") else "RGB")
    image = image.convert("L") if name.endswith("pgm") else image
    image.save(tmp_path / name, **options)
    assert picture_suffix(tmp_path / name)
    assert open_image(tmp_path / name).size == image_size(tmp_path / name) == (16, 12)
    content, suffix = (tmp_path / name).read_bytes(), (tmp_path / name).suffix
    assert pixel_digest(open_image(content, suffix=suffix)) == pixel_digest(
        open_image(tmp_path / name)
    )
    assert image_size(content, suffix=suffix) == (16, 12)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_no_picture_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x")
    assert picture_suffix(tmp_path / "x") is None


def test_a_name_that_tells_of_no_picture_is_believed(tmp_path, picture):
    picture(1).save(tmp_path / "x.txt", format="PNG")
    assert picture_suffix(tmp_path / "x.txt") is None


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["x.tif", "x.jpg", "x.png", "x.webp"])
def test_on_its_side_it_is_measured_as_it_is_seen(tmp_path, picture, name, orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    picture(3).save(tmp_path / name, exif=exif)
    assert image_size(tmp_path / name) == open_image(tmp_path / name).size
    assert open_image(tmp_path / name).size == ((12, 16) if orientation > 4 else (16, 12))


def a_png(bits, kind, row, transparent):
    """Of one row of pixels; ``kind``: 0 is grey, 2 RGB."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(
            ">I", zlib.crc32(name + data)
        )  # fmt: skip

    header = struct.pack(">IIBBBBB", 2, 1, bits, kind, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"tRNS", transparent)
        + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    )  # fmt: skip


@pytest.mark.parametrize(
    ("bits", "kind", "row", "transparent", "expected"),
    [
        (1, 0, b"\x40", b"\0\0", (255, 255)),
        (2, 0, b"\x60", b"\0\1", (255, 170)),
        (4, 0, b"\x5a", b"\0\5", (255, 170)),
        (8, 0, b"\5\x0a", b"\0\5", (255, 10)),
        (16, 0, b"\x12\x34\x80\0", b"\x12\x34", (255, 128)),
        (16, 2, b"\x12\x34" * 3 + b"\x80\0" * 3, b"\x12\x34" * 3, (255, 128)),
    ],
)
def test_the_level_that_is_transparent_is_white(bits, kind, row, transparent, expected):
    image = open_image(a_png(bits, kind, row, transparent))
    assert [image.getpixel((x, 0)) for x in (0, 1)] == [(level,) * 3 for level in expected]


def a_tiff(bits, photometric, row, sample_format=1):
    """Grey, two pixels."""
    tags = [
        (256, 2), (257, 1), (258, bits), (259, 1), (262, photometric), (273, 8 + 2 + 10 * 12 + 4),
        (277, 1), (278, 1), (279, len(row)), (339, sample_format),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + row


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (a_tiff(16, 1, struct.pack("<HH", 0, 40000)), (0, 156)),
        (a_tiff(8, 0, b"\0\x64"), (255, 155)),
        (a_tiff(32, 1, struct.pack("<ii", 0, 40000), 2), (0, 156)),  # as Pillow itself writes I
        (a_tiff(16, 0, struct.pack("<HH", 0, 40000)), "with white as 0"),
        (a_tiff(12, 1, b"\xff\xf8\0"), "of 12 bits"),
        (a_tiff(32, 1, struct.pack("<II", 0, 2**31)), "of 32 bits"),
    ],
)
def test_grey_of_a_tiff_is_right_or_refused(data, found):
    if isinstance(found, str):
        with pytest.raises(UnreadableImage, match=f"a grey TIFF {found} is not read here; save"):
            open_image(data)
    else:
        assert [open_image(data).getpixel((x, 0))[0] for x in (0, 1)] == list(found)


@pytest.mark.parametrize("name", ["x.tga", "x.dib"])
def test_a_name_tells_what_bytes_do_not(picture, tmp_path, name):
    """In tars and parquet too."""
    picture(2).save(tmp_path / name)
    assert IMAGE.read((tmp_path / name).read_bytes(), name[1:]).size == (16, 12)
    write_tar(tmp_path / "in" / "0.tar", [
        (f"{i}.{ext}", data) for i in range(2) for ext, data in
        ((name[2:], tga(picture(i), name)), ("txt", b"one"))
    ])  # fmt: skip
    assert label_folder(tmp_path / "in", tmp_path / "out", [load("brightness")]).count == 2


def tga(image, name):
    file = io.BytesIO()
    image.save(file, {"x.tga": "TGA", "x.dib": "DIB"}[name])
    return file.getvalue()


def test_formats_of_packages_that_are_not_there(tmp_path, picture, monkeypatch):
    for name, options in {"x.heic": {"format": "HEIF"}, "x.jxl": {"format": "JXL"}}.items():
        images._registered("HEIF"), images._registered("JXL")
        picture(1).save(tmp_path / name, **options)
    images._registered.cache_clear()
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    for name in ("x.heic", "x.jxl"):
        with pytest.raises(UnreadableImage, match=r"pip install 'ric-diffusion\[formats\]'"):
            open_image(tmp_path / name)
    images._registered.cache_clear()


def test_what_is_a_picture_and_not_read_is_listed(tmp_path, picture):
    for i in range(3):
        picture(i).save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_text(f"scene {i}")
    (tmp_path / "layers.PSD").write_bytes(b"8BPS" + bytes(100))
    (tmp_path / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    (tmp_path / "notes").write_text("no picture")
    for name in ("layers", "phone"):
        (tmp_path / f"{name}.txt").write_text(name)
    report = label_folder(tmp_path, tmp_path.parent / "out", [load("brightness")], progress=False)
    assert report.count == 3
    assert report.skipped["layers.PSD"] == "PSD is not read here; save it as PNG or JPEG"
    assert report.skipped["phone.heic"] == "not a picture of a known format"
    assert set(report.skipped) == {"layers.PSD", "phone.heic"}


@pytest.mark.parametrize("place", ["before", "after"])
def test_pixels_of_a_png_with_long_texts(tmp_path, picture, place):
    picture(1).save(tmp_path / "x.png", pnginfo=chunks(workflow=GRAPH), icc_profile=PROFILE)
    if place == "after":  # which Pillow reads after the pixels
        data = (tmp_path / "x.png").read_bytes()
        parts = [
            data[start:end] for name, start, end in png._chunks(io.BytesIO(data)) if name == b"iTXt"
        ]
        rest = png.without_text(io.BytesIO(data)).read()
        (tmp_path / "x.png").write_bytes(rest[:-12] + parts[0] + rest[-12:])
    with pytest.raises(ValueError, match="MAX_TEXT"), Image.open(tmp_path / "x.png") as image:
        image.load()
    assert pixel_digest(open_image(tmp_path / "x.png")) == pixel_digest(picture(1))
    assert image_size(tmp_path / "x.png") == (16, 12)


def test_texts_of_a_png(tmp_path, picture):
    info = chunks(workflow=GRAPH, prompt="ein Apfel, größer")
    info.add_text("parameters", "old text é")
    info.add_text("packed", "again " * 9, zip=True)
    picture(1).save(tmp_path / "x.png", pnginfo=info)
    found = png.texts(io.BytesIO((tmp_path / "x.png").read_bytes()))
    assert found == {
        "workflow": GRAPH,
        "prompt": "ein Apfel, größer",
        "parameters": "old text é",
        "packed": "again " * 9,
    }
    assert png.texts(io.BytesIO(b"no PNG")) == {}


def test_a_text_bomb_is_left_out(tmp_path, picture, monkeypatch):
    monkeypatch.setattr(png, "MAX_TEXT", 1000)
    picture(1).save(tmp_path / "x.png", pnginfo=chunks(bomb="x" * 5000, prompt="red apple"))
    assert png.texts(io.BytesIO((tmp_path / "x.png").read_bytes())) == {"prompt": "red apple"}


@pytest.mark.parametrize(
    ("written", "there"),
    [
        (unicodedata.normalize("NFC", "Café.png"), unicodedata.normalize("NFD", "Café.png")),
        ("Photo.PNG", "photo.png"),
        ("sub\\b.png", "sub/b.png"),
    ],
)
@pytest.mark.parametrize("kind", ["metadata", "sidecar"])
def test_names_of_other_systems(tmp_path, picture, written, there, kind):
    (tmp_path / there).parent.mkdir(exist_ok=True)
    picture(0).save(tmp_path / there)
    if kind == "metadata":
        row = {"file_name": written, "text": "a scene"}
        (tmp_path / "metadata.jsonl").write_text(json.dumps(row) + "\n")
    else:
        text = (tmp_path / there).parent / f"{written.rpartition('.')[0].split(chr(92))[-1]}.txt"
        text.write_text("a scene")
    (record,) = read_folder(tmp_path)
    assert (record.file, record.captions) == (there, ("a scene",))


def test_a_name_that_fits_two_pictures_fits_none(tmp_path, picture):
    for i, name in enumerate(("photo.png", "PHOTO.png", "b.png")):
        picture(i).save(tmp_path / name)
    rows = [{"file_name": "Photo.png", "text": "x"}, {"file_name": "b.png", "text": "y"}]
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    captions = {record.file: record.captions for record in read_folder(tmp_path)}
    assert captions == {"Photo.png": ("x",), "b.png": ("y",), "PHOTO.png": (), "photo.png": ()}


def test_a_text_beside_its_own_picture_is_no_others(tmp_path, picture):
    for i, name in enumerate(("photo.png", "PHOTO.png")):
        picture(i).save(tmp_path / name)
    (tmp_path / "photo.txt").write_text("a scene")
    captions = {record.file: record.captions for record in read_folder(tmp_path)}
    assert captions == {"photo.png": ("a scene",), "PHOTO.png": ()}


def test_a_picture_is_stored_with_a_suffix_that_says_what_it_is(tmp_path, picture):
    for i, (name, kind) in enumerate({"a": "PNG", "b.jpg_large": "JPEG", "c.PNG": "PNG"}.items()):
        picture(i).save(tmp_path / name, format=kind)
        (tmp_path / f"{name.partition('.')[0]}.txt").write_text(f"scene {i}")
    out = tmp_path.parent / "stored"
    label_folder(tmp_path, out, [load("brightness")], progress=False)
    stored = {r.extra["original"]: r.file.rpartition(".")[2] for r in read_labelled(out)[0]}
    assert stored == {"a": "png", "b.jpg_large": "jpg", "c.PNG": "png"}
