"""Files of tensors: the same bytes each time, readable by others, and errors of the system."""

import errno
import os
import subprocess
import sys

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from ric_diffusion.io.tensors import save_tensors, system_errors

TENSORS = {"b": torch.arange(6.0).reshape(2, 3).T, "a": torch.zeros(4, dtype=torch.float16)}
METADATA = {letter: f'é\n\x01"{letter}' for letter in "qwertyuiop"}


def test_the_same_bytes_each_time(tmp_path):
    """Also by another process, whose hashes have other seeds."""
    for name in ("0", "1", "2"):
        save_tensors(tmp_path / name, TENSORS, METADATA)
    found = {(tmp_path / name).read_bytes() for name in ("0", "1", "2")}
    code = (
        "import sys, pathlib, test_tensors as t; "
        "t.save_tensors(pathlib.Path(sys.argv[1]), t.TENSORS, t.METADATA)"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path]),
    }
    subprocess.run([sys.executable, "-c", code, tmp_path / "3"], env=environment, check=True)
    assert {*found, (tmp_path / "3").read_bytes()} == found and len(found) == 1


def test_what_is_read_is_what_was_written(tmp_path):
    save_tensors(tmp_path / "x", TENSORS, METADATA)
    read = load_file(tmp_path / "x")
    assert read.keys() == TENSORS.keys()
    assert all(torch.equal(read[name], TENSORS[name]) for name in TENSORS)
    with safe_open(tmp_path / "x", framework="pt") as file:
        assert file.metadata() == METADATA
    save_tensors(tmp_path / "none", TENSORS)
    with safe_open(tmp_path / "none", framework="pt") as file:
        assert not file.metadata()


@pytest.mark.skipif(os.name == "nt", reason="modes are those of POSIX")
def test_new_files_have_the_mode_that_others_have(tmp_path):
    before = os.umask(0o027)
    try:
        save_tensors(tmp_path / "x", TENSORS)
        (tmp_path / "y").touch()
    finally:
        os.umask(before)
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "y").stat().st_mode


def test_an_error_of_the_system_is_one(tmp_path):
    with pytest.raises(OSError, match="No space left") as caught, system_errors(tmp_path / "x"):
        raise SafetensorError("I/O error: No space left on device (os error 28)")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "x"))
    with pytest.raises(SafetensorError, match="invalid"), system_errors(tmp_path / "x"):
        raise SafetensorError("invalid header")
    with pytest.raises(OSError):
        save_tensors(tmp_path / "no such folder" / "x", TENSORS)


def test_a_full_disk_is_said_with_the_file_s_name(tmp_path, monkeypatch):
    def full(*given, **options):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("ric_diffusion.io.tensors.save_file", full)
    with pytest.raises(OSError) as caught:
        save_tensors(tmp_path / "x", TENSORS)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "x"))
