"""Labelled folders that are no longer what was labelled: found by name, and read only in doubt."""

import json
import os
import shutil
from dataclasses import replace

import pytest
from PIL import Image

from ric_diffusion.data import unchanged
from ric_diffusion.data.label import label_folder
from ric_diffusion.data.medium import IMAGE
from ric_diffusion.data.records import read_labelled
from ric_diffusion.data.unchanged import STAMPS, check_unchanged
from ric_diffusion.io.errors import InputError


@pytest.fixture
def labelled(folder, tmp_path, make_scorer):
    label_folder(folder, tmp_path / "labelled", [make_scorer()], progress=False)
    return tmp_path / "labelled"


@pytest.fixture
def looked_at(monkeypatch):
    """The names of the files that are read."""
    names, usual = [], unchanged.seen

    def seen(path, *args):
        names.append(path.name)
        return usual(path, *args)

    monkeypatch.setattr(unchanged, "seen", seen)
    return names


def check(folder, cache):
    check_unchanged(folder, read_labelled(folder)[0], IMAGE, cache)


def refusal(folder, cache):
    with pytest.raises(InputError) as caught:
        check(folder, cache)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_as_it_was_labelled_is_not_read(labelled, tmp_path, looked_at):
    check(labelled, tmp_path / "cache")
    assert looked_at == [] and not (tmp_path / "cache").exists()


def test_stamps_are_of_the_files_in_the_folder(labelled):
    stamps = json.loads((labelled / STAMPS).read_text())
    assert len(stamps) == 10
    for file, (size, time) in stamps.items():
        status = (labelled / file).stat()
        assert (status.st_size, status.st_mtime_ns) == (size, time)


def test_a_copied_folder_is_read_once(labelled, tmp_path, looked_at):
    copied = tmp_path / "copied"
    shutil.copytree(labelled, copied)
    for path in (copied / "images").iterdir():
        os.utime(path, (1, 1))
    check(copied, tmp_path / "cache")
    assert len(looked_at) == 10
    check(copied, tmp_path / "cache")
    assert len(looked_at) == 10
    (copied / STAMPS).unlink()  # of an earlier release
    check(copied, tmp_path / "other cache")
    assert len(looked_at) == 20


def test_a_damaged_picture_is_named(labelled, tmp_path, looked_at):
    file = sorted((labelled / "images").iterdir())[3]
    file.write_bytes(file.read_bytes()[:100])
    said = refusal(labelled, tmp_path / "cache")
    assert said.startswith(f"{file}: broken picture (") and said.endswith("run `ric label` again")
    assert looked_at == [file.name]


def test_another_picture_of_the_same_size_is_named(labelled, tmp_path, picture):
    file, other, *_ = sorted((labelled / "images").iterdir())
    image = Image.open(other)
    image.load()
    image.save(file)
    os.utime(other, (1, 1))
    said = refusal(labelled, tmp_path / "cache")
    assert said == f"{file}: not the image that was labelled; run `ric label` again"
    other.write_bytes(b"")
    assert "(and 1 other file likewise)" in refusal(labelled, tmp_path / "cache")


def test_the_same_picture_in_other_bytes_is_the_same(labelled, tmp_path):
    file = sorted((labelled / "images").iterdir())[0]
    image = Image.open(file)
    image.load()
    image.save(file, compress_level=0)
    check(labelled, tmp_path / "cache")


def test_names_of_others_say_nothing_of_what_is_in_the_file(labelled, tmp_path, looked_at):
    records = read_labelled(labelled)[0]
    mine = replace(records[0], file="images/mine.png")
    (labelled / records[0].file).rename(labelled / "images" / "mine.png")
    check_unchanged(labelled, [mine], IMAGE, tmp_path / "cache")
    assert looked_at == ["mine.png"]
