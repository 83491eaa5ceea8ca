"""Memory for pictures is asked for before they are decoded, and nobody waits for ever."""

import subprocess
import sys
import threading
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from ric_diffusion.data import budget as budget_module
from ric_diffusion.data import samples
from ric_diffusion.data.budget import Budget, Ended, Place, decoding, holding, one_picture
from ric_diffusion.data.images import open_image
from support.processes import ENVIRONMENT


def started(function):
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def test_who_asks_for_more_than_is_there_waits():
    budget, order = Budget(10), []
    budget.take(6)

    def second():
        budget.take(5)
        order.append("second")

    thread = started(second)
    thread.join(0.05)
    assert thread.is_alive()
    order.append("first")
    budget.give(6)
    thread.join(10)
    assert order == ["first", "second"]


def test_one_who_asks_for_more_than_all_goes_alone():
    budget = Budget(10)
    budget.take(50)
    thread = started(lambda: budget.take(1))
    thread.join(0.05)
    assert thread.is_alive()
    budget.give(50)
    thread.join(10)
    assert not thread.is_alive()
    thread = started(lambda: budget.take(50))  # beside the 1 that is lent now
    thread.join(0.05)
    assert thread.is_alive()
    budget.give(1)
    thread.join(10)
    assert not thread.is_alive()


def test_who_is_first_in_line_waits_for_nobody():
    budget = Budget(10)
    later, first = Place(budget), Place(budget)
    with later.decoding(10, 8):
        pass
    assert later.held == 8
    thread = started(lambda: budget.take(5, first))
    thread.join(0.05)
    assert thread.is_alive()
    budget.prefer(first)
    thread.join(10)
    assert not thread.is_alive()


def test_whoever_waits_is_told_of_the_end():
    budget, told = Budget(10), []
    budget.take(10)

    def wait():
        with pytest.raises(Ended):
            budget.take(1)
        told.append(True)

    thread = started(wait)
    budget.end()
    thread.join(10)
    assert told == [True]


def test_what_fails_to_decode_is_given_back_at_once():
    place = Place(budget := Budget(10))
    with pytest.raises(ValueError), holding(place), decoding(10, 8):
        raise ValueError
    assert place.held == 0
    budget.take(10)


def test_a_picture_is_its_block_s(tmp_path, monkeypatch):
    monkeypatch.setattr(budget_module, "_others", budget := Budget(1000))
    Image.new("RGB", (10, 10)).save(tmp_path / "a.png")
    with one_picture():
        open_image(tmp_path / "a.png")
        budget.take(600)  # beside its 400
        thread = started(lambda: budget.take(100))
        thread.join(0.05)
        assert thread.is_alive()
    thread.join(10)
    assert not thread.is_alive()
    with pytest.raises(ValueError):
        open_image(b"no picture")


@pytest.mark.parametrize("held", [1, 2**30])
def test_pictures_that_take_all_memory_come_in_order(tmp_path, monkeypatch, held):
    """Sixteen to a share, as their files are small, more shares than threads, no two of them in
    memory at once, and a reader that stops halfway."""
    monkeypatch.setattr(samples, "cores", lambda: 4)
    monkeypatch.setattr(samples, "SHARE_HELD", held)
    monkeypatch.setattr(samples, "Budget", lambda: Budget(64 * 64 * 4))
    paths = []
    for i in range(70):
        Image.new("RGB", (64, 64), (i, 0, 0)).save(tmp_path / f"{i}.png")
        paths.append(tmp_path / f"{i}.png")

    def read(path):
        return open_image(path).getpixel((0, 0))[0]

    assert list(samples.in_threads(read, paths, lambda path: 1)) == list(range(70))
    reading = samples.in_threads(read, paths, lambda path: 1)
    assert [next(reading) for _ in range(20)] == list(range(20))
    before = Counter(thread.name for thread in threading.enumerate())
    reading.close()
    assert len(threading.enumerate()) < sum(before.values())


LABEL = """
import resource, sys
from pathlib import Path
import ric_diffusion.data.samples as samples
import scorers
from ric_diffusion.data.label import label_folder

def peak():
    [line] = [x for x in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in x]
    return int(line.split()[1]) / 1024

samples.cores = lambda: 8
folder, out = sys.argv[1:]
using = [scorers.load("compressibility"), scorers.load("brightness")]
before = peak()
report = label_folder(folder, out, using, progress=False)
print(report.count, peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_pictures_of_the_largest_size_label_in_a_gibibyte(tmp_path):
    """In 16 bits, and with transparency and on their side, in eight threads."""
    folder, side = tmp_path / "pictures", 8192
    folder.mkdir()
    for i in range(4):
        shades, more = np.linspace(20 * i, 255, side).astype(np.uint8), {}
        if i % 2:
            row = np.stack([shades, shades[::-1], shades, shades], axis=-1)
            more = {"exif": Image.Exif()}
            more["exif"][0x0112] = 6
        else:
            row = shades.astype(np.uint16) * 257
        image = Image.fromarray(np.tile(row, (side, *[1] * row.ndim)))
        image.save(folder / f"{i}.png", compress_level=1, **more)
        (folder / f"{i}.txt").write_text(f"picture {i}")
    done = subprocess.run(
        [sys.executable, "-c", LABEL, folder, tmp_path / "out"],
        env=ENVIRONMENT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    count, taken = done.stdout.split()
    assert count == "4" and float(taken) <= 1024, taken
