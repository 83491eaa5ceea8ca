import numpy as np
import pytest
from PIL import Image

import scorers


def test_against_the_definition(pictures):
    scores = scorers.load("warmth")(pictures)
    expected = [
        sum(r - b for r, _, b in np.asarray(image).reshape(-1, 3).tolist()) / np.prod(image.size)
        for image in pictures
    ]
    assert scores.dtype == np.float32
    assert min(expected) < -5 and max(expected) > 5
    np.testing.assert_allclose(scores, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("colour", "expected"),
    [
        ((255, 0, 0), 255),
        ((255, 255, 0), 255),
        ((0, 0, 255), -255),
        ((0, 255, 255), -255),
        ((0, 255, 0), 0),
        ((90, 90, 90), 0),
        ((200, 30, 150), 50),
    ],
)
def test_flat_colours(colour, expected):
    (score,) = scorers.load("warmth")([Image.new("RGB", (6, 4), colour)])
    assert score == expected


def test_warm_and_cool_halves_cancel_out():
    image = Image.new("RGB", (4, 4), (255, 128, 0))
    image.paste((0, 128, 255), (0, 0, 2, 4))
    (score,) = scorers.load("warmth")([image])
    assert score == 0


def test_batch_equals_one_by_one_and_repeats(pictures):
    scorer = scorers.load("warmth")
    one_by_one = np.concatenate([scorer([image]) for image in pictures])
    assert len(set(one_by_one.tolist())) == len(pictures)
    assert np.array_equal(scorer(pictures), one_by_one)


def test_what_is_transparent_is_white():
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    clear.paste((255, 0, 0, 255), (0, 0, 2, 4))
    (score,) = scorers.load("warmth")([clear])
    assert score == 127.5


def test_what_it_says_of_itself():
    scorer = scorers.load("warmth")
    assert (scorer.name, scorer.unit, scorer.options) == ("warmth", "levels", {})
    assert scorers.RGB_FINGERPRINT in scorer.fingerprint
