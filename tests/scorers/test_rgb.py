import numpy as np
import pytest
from PIL import Image

import scorers

ORIENTATION = 0x0112
# how a camera stored the picture, so that showing it needs the orientation's turn
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def pixels(image):
    return np.asarray(scorers.to_rgb(image)).astype(int)


def with_orientation(image, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    image.info["exif"] = exif.tobytes()
    return image


def over_white(colour, alpha):
    return colour * (alpha / 255) + 255 * (1 - alpha / 255)


@pytest.fixture
def colour(rng):
    return rng.integers(0, 256, (5, 7, 3)).astype(np.uint8)


@pytest.fixture
def alpha(rng):
    return rng.integers(0, 256, (5, 7, 1)).astype(np.uint8)


def test_rgb_is_left_alone(colour):
    converted = scorers.to_rgb(Image.fromarray(colour))
    assert converted.mode == "RGB"
    assert np.array_equal(np.asarray(converted), colour)


def test_rgba_is_composed_over_white(colour, alpha):
    image = Image.fromarray(np.concatenate([colour, alpha], axis=2))
    assert np.abs(pixels(image) - over_white(colour, alpha)).max() <= 1


def test_opaque_rgba_equals_rgb(colour):
    image = Image.fromarray(colour)
    opaque = image.convert("RGBA")
    assert np.array_equal(pixels(opaque), colour)


def test_grey_with_alpha_is_composed_over_white(colour, alpha):
    grey = colour[..., :1]
    image = Image.fromarray(np.concatenate([grey, alpha], axis=2), mode="LA")
    expected = np.repeat(over_white(grey, alpha), 3, axis=2)
    assert np.abs(pixels(image) - expected).max() <= 1


@pytest.mark.parametrize(("mode", "straight"), [("La", "LA"), ("RGBa", "RGBA")])
def test_premultiplied_alpha_is_composed_over_white(mode, straight, colour, alpha):
    bands = colour[..., :1] if mode == "La" else colour
    alpha = np.maximum(alpha, 64)  # premultiplied dark pixels have lost their colour
    image = Image.fromarray(np.concatenate([bands, alpha], axis=2), mode=straight).convert(mode)
    assert np.abs(pixels(image) - over_white(bands, alpha)).max() <= 3


def test_grey_is_expanded(colour):
    grey = colour[..., 0]
    assert np.array_equal(pixels(Image.fromarray(grey)), np.repeat(grey[..., None], 3, axis=2))


def test_black_and_white_is_expanded():
    image = Image.new("1", (2, 1))
    image.putpixel((1, 0), 1)
    assert pixels(image).tolist() == [[[0, 0, 0], [255, 255, 255]]]


def palette_image():
    """Pixels 0, 1, 2 that are red, green and blue."""
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    return image


def test_palette():
    assert pixels(palette_image()).tolist() == [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]


def test_palette_with_one_transparent_colour():
    image = palette_image()
    image.info["transparency"] = 1
    assert pixels(image).tolist() == [[[255, 0, 0], [255, 255, 255], [0, 0, 255]]]


def test_palette_with_alpha_per_colour():
    image = palette_image()
    image.info["transparency"] = bytes([255, 0, 51])
    assert pixels(image).tolist() == [[[255, 0, 0], [255, 255, 255], [204, 204, 255]]]


@pytest.mark.parametrize(
    ("mode", "value", "transparency"), [("L", 9, 9), ("RGB", (1, 2, 3), (1, 2, 3)), ("1", 0, 0)]
)
def test_a_transparent_colour_in_info_becomes_white(mode, value, transparency):
    image = Image.new(mode, (2, 1), value)
    image.putpixel((1, 0), 255 if mode != "RGB" else (200, 0, 0))
    image.info["transparency"] = transparency
    first, second = pixels(image)[0].tolist()
    assert first == [255, 255, 255]
    assert second == ([200, 0, 0] if mode == "RGB" else [255, 255, 255])


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_16_bit_is_scaled_by_its_range(mode):
    levels = np.array([[0, 128, 129, 257, 32768, 65535]])
    dtype = {"I;16": "<u2", "I;16B": ">u2", "I": "<i4"}[mode]
    image = Image.frombytes(mode, (6, 1), levels.astype(dtype).tobytes())
    grey = pixels(image)[..., 0]
    assert grey.tolist() == [[0, 0, 1, 1, 128, 255]]


def test_16_bit_png_from_disk(tmp_path):
    path = tmp_path / "grey16.png"
    Image.fromarray(np.array([[0, 65535, 25700]], dtype=np.uint16)).save(path)
    with Image.open(path) as image:
        assert pixels(image)[..., 2].tolist() == [[0, 255, 100]]


def test_16_bit_transparent_level_becomes_white():
    image = Image.fromarray(np.array([[257, 514]], dtype=np.uint16))
    image.info["transparency"] = 257
    assert pixels(image)[..., 0].tolist() == [[255, 2]]


def test_32_bit_grey_outside_16_bits_is_clipped():
    image = Image.fromarray(np.array([[-5, 70000]], dtype=np.int32))
    assert pixels(image)[..., 0].tolist() == [[0, 255]]


def test_cmyk(colour):
    image = Image.fromarray(colour).convert("CMYK")
    assert np.abs(pixels(image) - colour).max() <= 1


@pytest.mark.parametrize("mode", ["HSV", "YCbCr", "LAB", "F", "PA", "RGBX", "I;16L", "I;16N"])
def test_other_modes_convert(mode):
    converted = scorers.to_rgb(Image.new(mode, (3, 2)))
    assert (converted.mode, converted.size) == ("RGB", (3, 2))


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "I;16"])
def test_exif_orientation_is_applied(orientation, mode, colour):
    if mode == "I;16":
        upright = Image.fromarray(colour[..., 0].astype(np.uint16) * 257)
    else:
        upright = Image.fromarray(colour).convert(mode)
    stored = with_orientation(upright.transpose(STORED[orientation]), orientation)
    assert np.array_equal(pixels(stored), pixels(upright))


def test_exif_orientation_is_read_from_a_file(colour, tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    path = tmp_path / "turned.png"
    Image.fromarray(colour).transpose(STORED[6]).save(path, exif=exif)
    with Image.open(path) as image:
        assert np.array_equal(pixels(image), colour)


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"", b"II*\0\x08\0\0\0\xff\xff"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_corrupt_exif_counts_as_upright(exif, colour):
    image = Image.fromarray(colour)
    image.info["exif"] = exif
    assert np.array_equal(pixels(image), colour)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "I;16", "CMYK"])
def test_the_input_stays_as_it_is(mode, colour):
    source = Image.fromarray(colour[..., 0].astype(np.uint16) if mode == "I;16" else colour)
    image = with_orientation(source if mode == "I;16" else source.convert(mode), 6)
    image.info["comment"] = b"kept"
    before = (image.mode, image.size, image.tobytes(), dict(image.info))
    converted = scorers.to_rgb(image)
    converted.putpixel((0, 0), (1, 2, 3))
    assert (image.mode, image.size, image.tobytes(), dict(image.info)) == before
    assert converted.info == {}
