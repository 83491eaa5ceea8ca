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
    assert looked_at == []
    noted = (tmp_path / "cache" / STAMPS).read_bytes()
    check(labelled, tmp_path / "cache")
    assert looked_at == [] and (tmp_path / "cache" / STAMPS).read_bytes() == noted


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


def test_others_with_their_names_sizes_and_times_are_named(labelled, tmp_path):
    """Half of the pictures are put in the places of the others between two starts of a run."""
    files = sorted((labelled / "images").iterdir())
    for file in files:  # so that they may be of one size
        file.write_bytes(file.read_bytes().ljust(4096, b"\0"))
        os.utime(file, ns=(1, 1))
    check(labelled, tmp_path / "cache")
    check(labelled, tmp_path / "cache")
    for file, other in zip(files[::2], files[1::2], strict=True):
        before = file.stat()
        file.write_bytes(other.read_bytes())
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert (file.stat().st_size, file.stat().st_mtime_ns) == (4096, 1)
    said = refusal(labelled, tmp_path / "cache")
    named = ", ".join(map(str, files[::2]))
    assert said.partition(": ")[0] in named
    assert said.endswith(
        "not the image that was labelled (and 4 other files likewise); run `ric label` again"
    )


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


@pytest.mark.parametrize(
    "name", ["metadata.parquet", "reward_space.json", "framing.json", "skipped.json", STAMPS]
)
def test_a_flipped_bit_anywhere_is_named_until_it_is_labelled_again(
    labelled, folder, name, make_scorer
):
    path = labelled / name
    data = path.read_bytes()
    for place in range(0, len(data), max(1, len(data) // 40)):
        flipped = data[place] ^ (1 << place % 8)
        path.write_bytes(data[:place] + bytes([flipped]) + data[place + 1 :])
        with pytest.raises(InputError) as caught:
            read_labelled(labelled)
        assert str(caught.value) == (
            f"{path}: is damaged; it is not what was written; run `ric label` again"
        )
    report = label_folder(folder, labelled, [make_scorer()], progress=False)
    assert report.written and report.scored == {"brightness": 0}
    assert path.read_bytes() == data
    read_labelled(labelled)


def test_a_damaged_manifest_is_named(labelled):
    path = labelled / "manifest.json"
    for data in (b"", b"{", b'{"sha256": []}', b'{"sha256": {}}', b"\xff"):
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"manifest\.json: is damaged.*; run `ric label` aga"):
            read_labelled(labelled)
    path.unlink()
    with pytest.raises(InputError, match=r"manifest\.json: is missing; run `ric label` again"):
        read_labelled(labelled)
