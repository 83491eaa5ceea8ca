"""A folder of pictures as one file."""

import shutil

import pytest

from packed import pack, unpacked
from ric_diffusion.io.errors import InputError


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "data"
    for name, content in (("train/a b/1.png", b"\x89PNG"), ("train/metadata.jsonl", b"{}\n")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_packed_and_unpacked(folder, tmp_path):
    pack(folder, tmp_path / "one.tar.gz")
    with unpacked(tmp_path / "one.tar.gz") as found:
        assert contents(found) == contents(folder)
        assert found != folder
    assert not found.exists()
    with unpacked(folder) as found:
        assert found == folder
    assert folder.exists()


def test_the_same_files_are_the_same_bytes(folder, tmp_path):
    pack(folder, tmp_path / "one.tar.gz")
    shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile)
    pack(tmp_path / "copy", tmp_path / "two.tar.gz")
    assert (tmp_path / "one.tar.gz").read_bytes() == (tmp_path / "two.tar.gz").read_bytes()


def test_what_is_neither_a_folder_nor_packed(tmp_path):
    (tmp_path / "x.tar.gz").write_bytes(b"no tar file")
    for source in ("x.tar.gz", "missing"):
        with (
            pytest.raises(InputError, match=f"{source}: neither a folder of pictures nor a file"),
            unpacked(tmp_path / source),
        ):
            pass
    with pytest.raises(InputError, match="missing: no folder"):
        pack(tmp_path / "missing", tmp_path / "y.tar.gz")
