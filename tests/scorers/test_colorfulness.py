import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import scorers


def hasler_susstrunk(image):
    """The definition with plain sums over a list of pixels."""
    pixels = [tuple(map(int, pixel)) for pixel in np.asarray(image).reshape(-1, 3)]
    count = len(pixels)
    rg = [r - g for r, g, _ in pixels]
    yb = [0.5 * (r + g) - b for r, g, b in pixels]
    mean_rg, mean_yb = sum(rg) / count, sum(yb) / count
    var_rg = sum((value - mean_rg) ** 2 for value in rg) / count
    var_yb = sum((value - mean_yb) ** 2 for value in yb) / count
    return (var_rg + var_yb) ** 0.5 + 0.3 * (mean_rg**2 + mean_yb**2) ** 0.5


def test_against_the_definition(pictures):
    scores = scorers.load("colorfulness")(pictures)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, [hasler_susstrunk(i) for i in pictures], rtol=1e-6)


@pytest.mark.parametrize(
    ("colour", "expected"),
    [
        ((128, 128, 128), 0.0),
        ((255, 0, 0), 0.3 * (255**2 + 127.5**2) ** 0.5),
        ((0, 0, 255), 0.3 * 255),
        ((255, 255, 0), 0.3 * 255),
    ],
)
def test_flat_colours(colour, expected):
    (score,) = scorers.load("colorfulness")([Image.new("RGB", (6, 4), colour)])
    assert score == pytest.approx(expected, abs=1e-4)


def test_red_and_green_halves():
    image = Image.new("RGB", (8, 8), (255, 0, 0))
    image.paste((0, 255, 0), (0, 0, 4, 8))
    (score,) = scorers.load("colorfulness")([image])  # rg = +-255, yb = 127.5 throughout
    assert score == pytest.approx(255 + 0.3 * 127.5, abs=1e-4)


def test_batch_equals_one_by_one(pictures):
    scorer = scorers.load("colorfulness")
    one_by_one = np.concatenate([scorer([image]) for image in pictures])
    assert len(set(one_by_one.tolist())) == len(pictures)
    assert np.array_equal(scorer(pictures), one_by_one)


def test_grey_modes_score_zero():
    images = [Image.new(mode, (4, 4), 77) for mode in ("L", "LA", "I;16", "1")]
    assert scorers.load("colorfulness")(images).tolist() == [0, 0, 0, 0]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=12), st.randoms())
def test_the_place_of_a_pixel_does_not_matter(pixels, random):
    shuffled = list(pixels)
    random.shuffle(shuffled)
    images = [Image.fromarray(np.array([row], dtype=np.uint8)) for row in (pixels, shuffled)]
    first, second = scorers.load("colorfulness")(images)
    assert first == pytest.approx(second, rel=1e-5, abs=1e-5)
    assert first == pytest.approx(hasler_susstrunk(images[0]), rel=1e-5, abs=1e-5)


def test_what_it_says_of_itself():
    scorer = scorers.load("colorfulness")
    assert (scorer.name, scorer.unit, scorer.options) == ("colorfulness", "M3", {})
    assert scorers.RGB_FINGERPRINT in scorer.fingerprint
