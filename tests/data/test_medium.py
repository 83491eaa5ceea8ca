"""Pictures and texts behind one interface: what is written comes back, what is bad has a reason."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from ric_diffusion.data.images import is_not_finite, not_finite
from ric_diffusion.data.medium import IMAGE, MEDIA, TEXT, read_named
from ric_diffusion.io.errors import InputError


@pytest.fixture
def sample(picture):
    """A sample of each medium for each seed."""
    return {
        "image": picture,
        "text": lambda seed: f"Zeile {seed}\r\nnaïve 😊\rend \n",
    }


def same(a, b):
    return a == b if isinstance(a, str) else np.array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize("name", ["image", "text"])
def test_what_is_written_comes_back_without_loss(name, sample, tmp_path):
    medium = MEDIA[name]
    path = tmp_path / "deep" / f"a{medium.suffix}"
    medium.write(sample[name](1), path)
    assert same(medium.read(path), sample[name](1))
    assert os.listdir(path.parent) == [path.name]
    medium.write(sample[name](2), path)  # over the old one
    assert same(medium.read(path), sample[name](2))


@pytest.mark.parametrize("name", ["image", "text"])
def test_digests_are_of_what_a_sample_holds(name, sample, tmp_path):
    medium = MEDIA[name]
    medium.write(sample[name](1), tmp_path / "a")
    digests = [medium.digest(sample[name](seed)) for seed in (1, 1, 2)]
    assert digests[0] == digests[1] == medium.digest(medium.read(tmp_path / "a")) != digests[2]
    assert all(len(digest) == 64 for digest in digests)


def test_metadata_go_into_a_picture_and_beside_a_text(sample, tmp_path):
    metadata = {"prompt": "süß", "targets": {"a": 1.5}}
    IMAGE.write(sample["image"](1), tmp_path / "a.png", metadata)
    with Image.open(tmp_path / "a.png") as image:
        assert image.text == {"prompt": "süß", "targets": '{"a": 1.5}'}
    TEXT.write("x", tmp_path / "a.txt", metadata)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == metadata
    assert (tmp_path / "a.txt").read_text() == "x"


def test_what_would_be_written_by_suffix(sample, tmp_path):
    about = {"prompt": "apple"}
    for medium, one in ((MEDIA["image"], sample["image"](1)), (MEDIA["text"], sample["text"](1))):
        for given in (None, about):
            medium.write(one, tmp_path / f"a{medium.suffix}", given)
            found = medium.files(one, given)
            assert next(iter(found)) == medium.suffix
            assert found == {p.suffix: p.read_bytes() for p in tmp_path.iterdir()}
            for path in tmp_path.iterdir():
                path.unlink()


def test_what_takes_the_place_of_nan_is_never_written_as_a_picture():
    stand_in = not_finite((3, 2))
    assert (stand_in.size, stand_in.mode) == ((3, 2), "RGB") and is_not_finite(stand_in)
    assert not is_not_finite(Image.new("RGB", (3, 2)))
    assert IMAGE.reject_reason(stand_in) is not None


def test_what_must_never_be_selected(picture):
    assert IMAGE.reject_reason(Image.new("RGB", (8, 8))) == "blank"
    assert IMAGE.reject_reason(picture(1)) is None
    for text in ("", " \n\t", "\ufeff", "\u200b\u2003", "\0\0"):
        assert TEXT.reject_reason(text) == "empty"
    assert TEXT.reject_reason("\ufeffa") is None


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("image", b"", "empty file"),
        ("image", b"no picture", "not a picture of a known format"),
        ("image", None, "missing file"),
        ("text", b"\xff\xfe", "not UTF-8 text"),
        ("text", None, "missing file"),
    ],
)
def test_a_file_without_a_sample_has_a_reason(name, data, reason, tmp_path):
    path = tmp_path / "a"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ValueError) as caught:
        MEDIA[name].read(path)
    assert str(caught.value) == reason


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("name", ["image", "text"])
def test_a_pipe_or_a_folder_is_not_waited_for(name, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for place in ("pipe", "folder"):
        with pytest.raises(ValueError, match=r"^not a file$"):
            MEDIA[name].read(tmp_path / place)


def test_a_text_that_may_not_be_read(tmp_path, monkeypatch):
    path = tmp_path / "x.txt"
    path.write_text("words")

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "read_bytes", refuse)
    with pytest.raises(ValueError, match=r"^no permission to read it$"):
        TEXT.read(path)


def test_a_named_file_that_holds_none_says_how_to_mend_it(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(b"caf\xe9")
    with pytest.raises(InputError) as caught:
        read_named(path, TEXT, mend="name another")
    assert str(caught.value) == f"{path}: not UTF-8 text; name another"
    path.write_text("café")
    assert read_named(path, TEXT, mend="name another") == "café"
