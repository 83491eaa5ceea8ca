"""Files that only what wrote them may replace."""

import pytest

from ric_diffusion.io import own
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.own import OwnFiles


@pytest.fixture
def files(tmp_path):
    return OwnFiles(tmp_path, "notes/own.json")


def test_what_was_written_is_replaced(files, tmp_path):
    for text in (b"1", b"2", b"2"):
        files.write({"a.txt": text, "b.txt": b"same"})
        assert (tmp_path / "a.txt").read_bytes() == text
    files.write({"b.txt": b"new"})
    files.check(["a.txt", "b.txt", "c.txt"])


@pytest.mark.parametrize("name", ["a.txt", "c.txt"])
def test_what_somebody_else_wrote_is_not(files, tmp_path, name):
    files.write({"a.txt": b"1"})
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(InputError, match=f"{name}: is there already, and is not what this wrote"):
        files.check(["a.txt", "c.txt"])
    with pytest.raises(InputError, match="is there already"):
        files.write({"new.txt": b"2", "a.txt": b"2", "c.txt": b"2"})
    assert (tmp_path / name).read_bytes() == b"mine" and not (tmp_path / "new.txt").exists()


def test_a_folder_in_the_place_of_a_file_is_not(files, tmp_path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(InputError, match="is there already"):
        files.write({"a.txt": b"1"})


@pytest.mark.parametrize("left", [1, 2])
def test_after_an_interruption_all_are_own(files, tmp_path, monkeypatch, left):
    """Some as they were, some as they were to be."""
    files.write({"a.txt": b"1", "b.txt": b"1"})
    usual, written = own.write_bytes, []

    def interrupted(path, data):
        if len(written) == left:
            raise KeyboardInterrupt
        written.append(path)
        usual(path, data)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(own, "write_bytes", interrupted)
        files.write({"a.txt": b"2", "b.txt": b"2", "c.txt": b"2"})
    files.write({"a.txt": b"3", "b.txt": b"3", "c.txt": b"3"})
    assert [(tmp_path / name).read_bytes() for name in ("a.txt", "b.txt")] == [b"3"] * 2


@pytest.mark.parametrize("note", [b"", b"[]", b'{"sha256": 1}', b'{"sha256": {"a.txt": 1}}'])
def test_without_its_note_nothing_is_own(files, tmp_path, note):
    files.write({"a.txt": b"1"})
    files.note.write_bytes(note)
    with pytest.raises(InputError, match="is there already"):
        files.check(["a.txt"])
