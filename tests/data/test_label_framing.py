"""What scorers see of pictures that are not square is what training draws."""

import json
import random

import numpy as np
import pytest
from PIL import Image

import scorers
from ric_diffusion.data.framing import FRAMING, Framing
from ric_diffusion.data.images import open_image
from ric_diffusion.data.label import label_folder
from ric_diffusion.data.records import read_labelled
from ric_diffusion.io.errors import InputError


def noise(seed, width, height):
    rng = np.random.default_rng(seed)
    high = 40 + 20 * (seed % 10)
    return rng.integers(0, high, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def mixed(tmp_path):
    """Sixteen noisy pictures of random sizes up to an aspect ratio of 3 to 1."""
    folder, draw = tmp_path / "mixed", random.Random(0)
    folder.mkdir()
    for i in range(16):
        short = draw.randint(20, 60)
        size = [short, round(short * draw.uniform(1, 3))]
        draw.shuffle(size)
        Image.fromarray(noise(i, *size)).save(folder / f"{i:02}.png")
        (folder / f"{i:02}.txt").write_text(f"view {i}")
    return folder


def run(folder, out, *with_scorers, **options):
    return label_folder(folder, out, with_scorers, progress=False, **options)


def test_scores_are_of_what_is_drawn(tmp_path):
    """Pictures whose sides say the opposite of the middle."""
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(12):
        middle, side = noise(i, 48, 48), noise(100 + i, 48, 48)
        grey = side if i % 2 else middle
        grey[:] = grey.mean(axis=2, keepdims=True)
        Image.fromarray(np.hstack([side, middle, side])).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"view {i}")
    colorfulness = scorers.load("colorfulness")
    out = tmp_path / "out"
    run(folder, out, colorfulness)
    records, _ = read_labelled(out)
    labels = [record.scores["colorfulness"] for record in records]
    framing = Framing.read(out)
    images = [open_image(out / record.file) for record in records]
    drawn = [framing.frame(image.size, resolution=48).draw(image) for image in images]
    assert labels == pytest.approx(colorfulness(drawn))
    run(folder, tmp_path / "whole", colorfulness, framing=Framing(rule="whole"))
    whole = [r.scores["colorfulness"] for r in read_labelled(tmp_path / "whole")[0]]
    assert np.corrcoef(labels, whole)[0, 1] < 0.5  # that is, the sides would have weighed


class Corners(scorers.BaseScorer):
    """Notes the pixels that it sees."""

    name, unit, fingerprint, options = "corners", "level", "corners-1", {}

    def __init__(self):
        self.seen = {}

    def _score(self, images, prompts):
        for image, prompt in zip(images, prompts, strict=True):
            self.seen[prompt] = np.asarray(image)
        return [float(np.mean(image)) for image in images]


@pytest.mark.parametrize("rule", ["square", "bucket"])
@pytest.mark.parametrize("drawn", [{}, {"resolution": 64, "step": 8}])
def test_every_pixel_that_is_drawn_was_scored(mixed, tmp_path, rule, drawn):
    framing, scorer = Framing(rule=rule, resolution=256, step=16), Corners()
    run(mixed, tmp_path / "out", scorer, framing=framing)
    records, _ = read_labelled(tmp_path / "out")
    assert len(records) == 16 and Framing.read(tmp_path / "out") == framing
    for record in records:
        image = open_image(tmp_path / "out" / record.file)
        pixels, scored = np.asarray(image), scorer.seen[record.captions[0]]
        label = framing.frame(image.size)
        left, top, right, bottom = framing.frame(image.size, **drawn).box
        assert np.array_equal(
            pixels[label.box[1] : label.box[3], label.box[0] : label.box[2]], scored
        )
        inner = scored[top - label.box[1] :, left - label.box[0] :][: bottom - top, : right - left]
        assert np.array_equal(pixels[top:bottom, left:right], inner)
        assert inner.shape == (bottom - top, right - left, 3)


def test_shards_see_frames_too(mixed, tmp_path):
    alone, shared = Corners(), Corners()
    run(mixed, tmp_path / "alone", alone)
    for k in range(2):
        run(mixed, tmp_path / "shared", shared, shard=(k, 2), batch_size=3)
    assert run(mixed, tmp_path / "shared", Corners()).scored == {"corners": 0}
    assert all(np.array_equal(alone.seen[prompt], shared.seen[prompt]) for prompt in alone.seen)
    for name in ("metadata.parquet", FRAMING):
        one, other = tmp_path / "alone" / name, tmp_path / "shared" / name
        assert one.read_bytes() == other.read_bytes()


def test_another_framing_is_another_run(mixed, tmp_path):
    run(mixed, tmp_path / "out", Corners())
    told = r'holds a run with other framing\.rule \("square", now "bucket"\)'
    with pytest.raises(InputError, match=told):
        run(mixed, tmp_path / "out", Corners(), framing=Framing(rule="bucket"))
    # Were it the same run, scores of other pixels would not be taken for those of these.
    stored = json.loads((tmp_path / "out" / "run.json").read_text())
    stored["identity"]["framing"]["rule"] = "whole"
    (tmp_path / "out" / "run.json").write_text(json.dumps(stored))
    report = run(mixed, tmp_path / "out", Corners(), framing=Framing(rule="whole"))
    cut = [path for path in mixed.glob("*.png") if len(set(Image.open(path).size)) == 2]
    assert report.scored == {"corners": len(cut)} and report.written
    assert Framing.read(tmp_path / "out").rule == "whole"


def test_blank_and_twice_are_judged_in_the_frame(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    square = noise(1, 30, 30)
    bars = {"a": 0, "b": 99}
    for name, level in bars.items():
        bar = np.full((30, 20, 3), level, np.uint8)
        Image.fromarray(np.hstack([bar, square, bar])).save(folder / f"{name}.png")
    flat = np.hstack([noise(2, 20, 30), np.zeros((30, 30, 3), np.uint8), noise(3, 20, 30)])
    Image.fromarray(flat).save(folder / "c.png")
    Image.fromarray(noise(4, 30, 30)).save(folder / "d.png")
    Image.fromarray(noise(5, 130, 30)).save(folder / "e.png")
    for name in "abcde":
        (folder / f"{name}.txt").write_text(name)
    report = run(folder, tmp_path / "square", Corners())
    assert report.skipped == {
        "b.png": "same as a.png",
        "c.png": "blank",
        "e.png": "too wide (130x30: width / height is 4.33, at most 4)",
    }
    report = run(folder, tmp_path / "whole", Corners(), framing=Framing(rule="whole"))
    assert (report.count, report.skipped) == (5, {})
