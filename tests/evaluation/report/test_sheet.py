"""Sheets: every picture whole, every text on the paper and clear of the rest."""

from itertools import combinations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ric_diffusion.evaluation.grid import Point
from ric_diffusion.evaluation.report.sheet import draw_sheet, sweep_captions, sweep_sheet, tile_size
from ric_diffusion.evaluation.runner import Sweep
from support.scores import space

PROMPT = "a photograph of a red apple on a wooden table, beside a cat, in the evening light " * 6
THREE = [
    ["colorfulness", "+0.5 → +0.7", "incompressibility", "-1.0 → -12.3", "aesthetic", "auto → +0.1"]
]


@pytest.fixture
def drawn(monkeypatch):
    """What is drawn where: boxes (left, top, right, bottom) of the texts and of the pictures."""
    texts, pictures = [], []
    text, paste = ImageDraw.ImageDraw.text, Image.Image.paste

    def spy_text(self, xy, words, *args, **kwargs):
        assert "\n" not in words
        box = self.textbbox(xy, words, font=kwargs["font"])
        texts.append((words, box))
        return text(self, xy, words, *args, **kwargs)

    def spy_paste(self, image, xy, *args):
        if isinstance(xy, tuple) and len(xy) == 2 and isinstance(image, Image.Image):
            pictures.append((image, (*xy, xy[0] + image.width, xy[1] + image.height)))
        return paste(self, image, xy, *args)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", spy_text)
    monkeypatch.setattr(Image.Image, "paste", spy_paste)
    return texts, pictures


def rows_of(rows, columns, size=(64, 64)):
    rng = np.random.default_rng(0)

    def picture():
        return Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))

    return [[picture() for _ in range(columns)] for _ in range(rows)]


def overlap(a, b):
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


CASES = {
    "bare": {},
    "title": {"title": "red apple   seed 0"},
    "long prompt": {"title": PROMPT + "  seed 0"},
    "prompt of several lines": {"title": "red apple\non a table\r\n\nseed 0"},
    "one long word": {"title": "a" * 400},
    "captions": {"captions": THREE * 11},
    "wide captions": {"captions": [["a_reward_with_a_very_long_name_indeed", "+1.0"]] * 11},
    "fewer captions": {"captions": THREE * 2},
    "row titles": {"row_titles": ["red apple", "cat"]},
    "long row titles": {"row_titles": [PROMPT, "cat\nface"]},
    "empty row title": {"row_titles": ["", ""]},
    "all": {"title": PROMPT, "captions": THREE * 11, "row_titles": [PROMPT, "b" * 60]},
}


@pytest.mark.parametrize("columns", [1, 11])
@pytest.mark.parametrize("name", CASES)
def test_nothing_overlaps_or_leaves_the_sheet(drawn, name, columns):
    given = dict(CASES[name])
    if "captions" in given:
        given["captions"] = given["captions"][:columns]
    images = rows_of(2, columns)
    sheet = draw_sheet(images, **given)
    texts, pictures = drawn
    assert len(pictures) == 2 * columns
    boxes = [box for _, box in texts] + [box for _, box in pictures]
    for left, top, right, bottom in boxes:
        assert min(left, top) >= 0
        assert right <= sheet.width and bottom <= sheet.height
    for a, b in combinations(boxes, 2):
        assert not overlap(a, b)
    for shown, box in pictures:  # still there at the end
        assert np.array_equal(np.array(sheet.crop(box)), np.array(shown))
    for _, (left, top, right, bottom) in texts:  # and so is the writing
        cut = sheet.crop((int(left), int(top), int(right) + 1, int(bottom) + 1))
        assert min(low for low, _ in cut.getextrema()) < 200


def test_texts_are_all_there(drawn):
    draw_sheet(rows_of(1, 11), title=PROMPT, captions=THREE * 11, row_titles=["cat face"])
    words = [text for text, _ in drawn[0]]
    assert " ".join(words).startswith(" ".join(PROMPT.split()))
    for text in THREE[0]:
        assert words.count(text) == 11


def test_long_prompt_does_not_stretch_the_sheet():
    images = rows_of(1, 11)
    assert draw_sheet(images, title=PROMPT).width == draw_sheet(images).width


def test_size_of_a_demo_sheet():
    sheet = draw_sheet(rows_of(1, 11), title="red apple", captions=[["a", "b"]] * 11)
    assert sheet.mode == "RGB"
    # 11 pictures of 128 with gaps of 8 between margins of 12; title, gap, two lines of 16.
    assert sheet.size == (12 + 11 * 128 + 10 * 8 + 12, 12 + 30 + 128 + 8 + 2 * 16 + 12)


@pytest.mark.parametrize(
    "side, shown", [(64, 128), (112, 112), (56, 112), (100, 200), (512, 256), (1, 112), (300, 256)]
)
def test_tiles(side, shown):
    assert tile_size([[Image.new("RGB", (side, side))]]) == shown


def test_order_is_rows_then_columns(drawn):
    colours = [["red", "lime"], ["blue", "white"]]
    images = [[Image.new("RGB", (64, 64), c) for c in row] for row in colours]
    draw_sheet(images)
    found = [(image.getpixel((5, 5)), box[:2]) for image, box in drawn[1]]
    assert found == [
        ((255, 0, 0), (12, 12)),
        ((0, 255, 0), (148, 12)),
        ((0, 0, 255), (12, 148)),
        ((255, 255, 255), (148, 148)),
    ]


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_any_mode_of_picture(mode):
    assert draw_sheet([[Image.new(mode, (64, 64))]]).mode == "RGB"


def test_a_sweep_says_what_was_asked_and_obtained(drawn):
    own = space()
    points = [Point(targets={"colorfulness": -1.0}), Point(targets={"colorfulness": 1.26})]
    z = np.array([[0.5, -0.84], [0.25, 2.0]]).reshape(2, 1, 1, 2)
    samples = [[[Image.new("RGB", (64, 64))]] for _ in points]
    sweep = Sweep(points=points, prompts=["red apple"], seeds=[3], samples=samples, scores=z, z=z)
    assert sweep_captions(sweep, own) == [
        ["compressibility", "auto » +0.5", "colorfulness", "-1.0 » -0.8"],
        ["compressibility", "auto » +0.2", "colorfulness", "+1.3 » +2.0"],
    ]
    sweep_sheet(sweep, own, "red apple · seed 3")
    texts, pictures = drawn
    assert texts[0][0] == "red apple · seed 3" and len(pictures) == 2
