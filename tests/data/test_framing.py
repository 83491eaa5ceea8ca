"""Frames: which pixels of a picture are seen, at which size, and by which rule of a folder."""

import json
import random

import numpy as np
import pytest
from PIL import Image

from ric_diffusion.data.framing import FRAMING, Frame, Framing
from ric_diffusion.io import config
from ric_diffusion.io.errors import InputError

# Appendix I of the SDXL paper (arXiv 2307.01952), height: widths.
SDXL = {
    512: (2048, 1984, 1920, 1856),
    576: (1792, 1728, 1664),
    640: (1600, 1536),
    704: (1472, 1408, 1344),
    768: (1344, 1280),
    832: (1216, 1152),
    896: (1152, 1088),
    960: (1088, 1024),
    1024: (1024, 960),
    1088: (960, 896),
    1152: (896, 832),
    1216: (832,),
    1280: (768,),
    1344: (768,),
    1408: (704,),
    1472: (704,),
    1536: (640,),
    1600: (640,),
    1664: (576,),
    1728: (576,),
    1792: (576,),
    1856: (512,),
    1920: (512,),
    1984: (512,),
    2048: (512,),
}
SIZES = [
    (random.Random(i).randint(1, 3000), random.Random(-i).randint(1, 3000)) for i in range(500)
]


def inside(inner, outer):
    return all(a >= b for a, b in zip(inner[:2], outer[:2], strict=True)) and all(
        a <= b for a, b in zip(inner[2:], outer[2:], strict=True)
    )


def test_buckets_are_of_sdxls_table():
    table = {(width, height) for height, widths in SDXL.items() for width in widths}
    found = Framing(rule="bucket").buckets()
    assert set(found) <= table
    assert {height for _, height in found} == set(SDXL)  # every height, at the largest areas
    assert (1024, 1024) in found


@pytest.mark.parametrize(("resolution", "step"), [(512, 64), (64, 8), (1000, 64), (768, 32)])
def test_buckets_keep_to_step_area_and_aspect(resolution, step):
    found = Framing(rule="bucket", resolution=resolution, step=step).buckets()
    square = resolution // step * step
    assert (square, square) in found
    for width, height in found:
        assert width % step == height % step == 0
        assert width * height <= resolution**2
        assert 0.25 <= width / height <= 4
    assert {(height, width) for width, height in found} == set(found)


def test_a_small_model_has_one_bucket():
    assert Framing(rule="bucket", resolution=64).buckets() == ((64, 64),)
    assert Framing(resolution=64).buckets() == ((64, 64),)
    assert Framing(rule="whole").buckets() == ()


def test_the_middle_square():
    assert Framing(resolution=512).frame((300, 100)) == Frame(
        box=(100, 0, 200, 100), size=(512, 512)
    )
    assert Framing(resolution=512).frame((101, 300)).box == (0, 99, 101, 200)


def test_the_nearest_bucket_in_log_space():
    framing = Framing(rule="bucket")
    assert framing.frame((3000, 2000)) == Frame(box=(38, 0, 2961, 2000), size=(1216, 832))
    assert framing.frame((2000, 3000)).size == (832, 1216)
    assert framing.frame((448, 576)) == Frame(box=(0, 0, 448, 576), size=(896, 1152))


def test_whole_pictures_keep_their_size():
    assert Framing(rule="whole").frame((301, 77)) == Frame(box=(0, 0, 301, 77), size=(301, 77))


@pytest.mark.parametrize("rule", ["square", "bucket"])
@pytest.mark.parametrize("drawn", [{}, {"resolution": 512}, {"resolution": 64, "step": 8}])
def test_what_is_drawn_lies_in_the_frame_of_the_label(rule, drawn):
    framing = Framing(rule=rule)
    for size in SIZES:
        if framing.reject_reason(size):
            continue
        label, training = framing.frame(size), framing.frame(size, **drawn)
        assert inside(label.box, (0, 0, *size))
        assert inside(training.box, label.box)
        assert training.box[0] < training.box[2] and training.box[1] < training.box[3]
        assert training.size in Framing(rule=rule, **drawn).buckets()
        if rule == "square" or not drawn:
            assert training.box == label.box


def test_buckets_cut_little():
    framing = Framing(rule="bucket")
    cuts = [framing.frame(s).cut(s) for s in SIZES if min(s) > 99 and not framing.reject_reason(s)]
    assert max(cuts) < 0.1


def test_cut_is_the_share_outside_the_box():
    assert Framing().frame((300, 100)).cut((300, 100)) == pytest.approx(2 / 3)
    assert Framing(rule="whole").frame((300, 100)).cut((300, 100)) == 0


def test_pixels_outside_the_box_are_not_drawn():
    pixels = np.random.default_rng(0).integers(0, 256, (100, 300, 3), dtype=np.uint8)
    frame = Framing(resolution=64).frame((300, 100))
    other = pixels.copy()
    other[:, :100] = 0
    other[:, 200:] = 255
    first, second = (frame.draw(Image.fromarray(each)) for each in (pixels, other))
    assert first.size == (64, 64)
    assert np.array_equal(np.asarray(first), np.asarray(second))
    seen = frame.crop(Image.fromarray(pixels))
    assert np.array_equal(np.asarray(seen), pixels[:, 100:200])


def test_a_picture_of_the_size_drawn_is_left_alone():
    image = Image.fromarray(np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3))
    assert Framing(resolution=64).frame(image.size).draw(image) is image


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ((400, 100), None),
        ((401, 100), "too wide (401x100: width / height is 4.01, at most 4)"),
        ((100, 500), "too narrow (100x500: width / height is 0.2, at least 0.25)"),
    ],
)
def test_aspect_ratios_outside_are_left_out(size, reason):
    assert Framing().reject_reason(size) == reason
    assert Framing(rule="bucket").reject_reason(size) == reason
    assert Framing(rule="whole").reject_reason(size) is None


def test_read_gives_what_was_written(tmp_path):
    assert Framing.read(tmp_path) == Framing(rule="whole")
    framing = Framing(rule="bucket", resolution=512, max_aspect=2.0)
    (tmp_path / FRAMING).write_text(json.dumps(config.to_dict(framing)))
    assert Framing.read(tmp_path) == framing


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "not valid JSON"),
        ('{"rule": "circle"}', "rule: 'circle' is not one of the choices"),
        ('{"rule": "bucket", "resolution": 32}', "resolution is 32; give 64 or more"),
        ('{"min_aspect": 0}', "min_aspect is 0.0; give a number above 0"),
        ('{"min_aspect": 2}', "min_aspect is 2.0 and max_aspect 4.0"),
    ],
)
def test_a_damaged_framing_is_named(tmp_path, text, problem):
    (tmp_path / FRAMING).write_text(text)
    with pytest.raises(InputError) as error:
        Framing.read(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / FRAMING}: ")
    assert problem in str(error.value)


def test_what_is_drawn_smaller_is_filtered_by_lanczos():
    image = Image.effect_noise((40, 60), 90).convert("RGB")
    frame = Frame(box=(0, 10, 40, 50), size=(16, 16))
    expected = image.crop((0, 10, 40, 50)).resize((16, 16), Image.Resampling.LANCZOS)
    assert frame.draw(image).tobytes() == expected.tobytes()
