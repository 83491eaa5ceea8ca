"""Names that count on: nothing is replaced, whatever lies there and whoever else writes."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from ric_diffusion.data.numbered import file_name, next_number, write_numbered


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("red apple", "0007-red-apple-seed3.png"),
        ("Ein roter Äpfel 🍎!", "0007-ein-roter-apfel-seed3.png"),
        ("../../etc/passwd\n\0", "0007-etc-passwd-seed3.png"),
        ("红苹果", "0007-红苹果-seed3.png"),
        ("🍎", "0007-seed3.png"),
        ("", "0007-seed3.png"),
        ("a very long prompt " * 9, "0007-a-very-long-prompt-a-very-long-prompt-a-seed3.png"),
        ("x" * 300, f"0007-{'x' * 40}-seed3.png"),
        ("𠀀" * 300, f"0007-{'𠀀' * 25}-seed3.png"),
    ],
)
def test_a_name_tells_number_prompt_and_seed(prompt, name):
    assert file_name(7, prompt, 3) == name
    assert len(name.encode()) < 140


def test_numbers_go_on_from_the_highest(tmp_path):
    assert next_number(tmp_path / "nowhere") == next_number(tmp_path) == 1
    for name in ("0002-a-seed1.png", "0004-seed7.txt", "2024-holiday.png", "0009-x.png", "3.png"):
        (tmp_path / name).touch()
    assert next_number(tmp_path) == 5
    (tmp_path / "12345-a-seed0.json").touch()
    assert next_number(tmp_path) == 12346


def test_the_files_of_a_sample_share_a_number_and_replace_nothing(tmp_path, monkeypatch):
    path = write_numbered(tmp_path, "a cat", 1, {".txt": b"one", ".json": b"{}"})
    assert path == tmp_path / "0001-a-cat-seed1.txt" and path.read_bytes() == b"one"
    # Another process took the next two numbers in the meantime, one of them for half a sample.
    monkeypatch.setattr("ric_diffusion.data.numbered.next_number", lambda folder: 1)
    (tmp_path / "0002-a-cat-seed1.json").write_bytes(b"theirs")
    path = write_numbered(tmp_path, "a cat", 1, {".txt": b"two", ".json": b"{}"})
    assert path.name == "0003-a-cat-seed1.txt"
    assert not (tmp_path / "0002-a-cat-seed1.txt").exists()
    assert (tmp_path / "0002-a-cat-seed1.json").read_bytes() == b"theirs"
    assert (tmp_path / "0001-a-cat-seed1.txt").read_bytes() == b"one"


def test_several_at_once_lose_nothing(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        write = lambda i: write_numbered(tmp_path, "a", 0, {".png": b"%d" % i})  # noqa: E731
        paths = list(pool.map(write, range(24)))
    assert len(set(paths)) == 24
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {b"%d" % i for i in range(24)}


def test_a_sample_that_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    from ric_diffusion.data import numbered

    create = numbered.create_bytes

    def full(path, data):
        if path.suffix == ".json":
            raise OSError("No space left on device")
        return create(path, data)

    monkeypatch.setattr(numbered, "create_bytes", full)
    with pytest.raises(OSError, match="No space"):
        write_numbered(tmp_path, "a", 0, {".txt": b"x", ".json": b"{}"})
    assert list(tmp_path.iterdir()) == []
