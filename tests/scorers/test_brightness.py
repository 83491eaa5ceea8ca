import numpy as np
import pytest
from PIL import Image

import scorers


def luminance(image):
    """The definition with plain sums over a list of pixels."""

    def linear(level):
        c = level / 255
        return c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4

    pixels = np.asarray(image).reshape(-1, 3).tolist()
    weighted = [0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b) for r, g, b in pixels]
    return 100 * sum(weighted) / len(weighted)


def test_against_the_definition(pictures):
    scores = scorers.load("brightness")(pictures)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, [luminance(i) for i in pictures], rtol=1e-6)


@pytest.mark.parametrize(
    ("colour", "expected"),
    [
        ((0, 0, 0), 0.0),
        ((255, 255, 255), 100.0),
        ((128, 128, 128), 21.586),  # sRGB's middle is far from the middle of light
        ((188, 188, 188), 50.289),
        ((10, 10, 10), 100 * 10 / 255 / 12.92),  # on the straight piece near black
        ((255, 0, 0), 21.26),
        ((0, 255, 0), 71.52),
        ((0, 0, 255), 7.22),
    ],
)
def test_flat_colours(colour, expected):
    (score,) = scorers.load("brightness")([Image.new("RGB", (6, 4), colour)])
    assert score == pytest.approx(expected, abs=1e-3)


def test_light_is_averaged_and_not_levels():
    board = np.indices((8, 8)).sum(axis=0) % 2 * 255
    image = Image.fromarray(board.astype(np.uint8))
    (score,) = scorers.load("brightness")([image])
    assert score == pytest.approx(50.0, abs=1e-4)


def test_batch_equals_one_by_one_and_repeats(pictures):
    scorer = scorers.load("brightness")
    one_by_one = np.concatenate([scorer([image]) for image in pictures])
    assert len(set(one_by_one.tolist())) == len(pictures)
    assert np.array_equal(scorer(pictures), one_by_one)
    assert np.array_equal(scorer(pictures), scorer(pictures))


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1"])
def test_other_modes_score_as_the_rgb_they_show(mode, pictures):
    scorer = scorers.load("brightness")
    images = [image.convert(mode) for image in pictures]
    shown = [image.convert("RGB") for image in images]
    assert np.array_equal(scorer(images), scorer(shown))


def test_what_is_transparent_is_white():
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    clear.paste((0, 0, 0, 255), (0, 0, 2, 4))
    (score,) = scorers.load("brightness")([clear])
    assert score == pytest.approx(50.0, abs=1e-4)


def test_what_it_says_of_itself():
    scorer = scorers.load("brightness")
    assert (scorer.name, scorer.unit, scorer.options) == ("brightness", "%", {})
    assert scorers.RGB_FINGERPRINT in scorer.fingerprint
