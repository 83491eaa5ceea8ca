"""ric score."""

import json

import pytest
from PIL import Image

import scorers

SCORERS = ["--scorers", "compressibility:resize=none", "colorfulness"]


def expected(path):
    with Image.open(path) as image:
        return {
            "compressibility": scorers.load("compressibility:resize=none")([image])[0],
            "colorfulness": scorers.load("colorfulness")([image])[0],
        }


@pytest.fixture
def folder(tmp_path, tiny):
    folder = tmp_path / "pictures"
    tiny.write_pictures(folder)
    return folder


def test_files_in_the_order_given(ric, folder):
    paths = [folder / "3.png", folder / "0.png"]
    done = ric("score", *paths, *SCORERS)
    assert (done.code, done.err) == (0, "")
    head, *rows = [line.split("\t") for line in done.out.splitlines()]
    assert head == ["file", "compressibility (kB)", "colorfulness (M3)"]
    assert [row[0] for row in rows] == [str(path) for path in paths]
    for path, row in zip(paths, rows, strict=True):
        assert [float(v) for v in row[1:]] == pytest.approx([*expected(path).values()], abs=1e-4)


def test_folder_with_its_subfolders(ric, folder):
    (folder / "more").mkdir()
    (folder / "0.png").rename(folder / "more" / "Z.PNG")
    (folder / ".tmp-1-2-0.png").write_bytes(b"half")  # what a killed process leaves
    (folder / ".hidden").mkdir()
    (folder / "1.png").rename(folder / ".hidden" / "1.png")
    (folder / "notes.txt").write_text("no picture")
    done = ric("score", folder, *SCORERS)
    assert (done.code, done.err) == (0, "")
    names = [line.split("\t")[0] for line in done.out.splitlines()[1:]]
    assert len(names) == 13 and names == sorted(names)
    assert str(folder / "more" / "Z.PNG") in names and str(folder / "1.png") not in names


def test_json(ric, folder):
    done = ric("score", folder / "5.png", folder / "6.png", *SCORERS, "--json")
    assert done.code == 0
    rows = [json.loads(line) for line in done.out.splitlines()]
    for row, name in zip(rows, ["5.png", "6.png"], strict=True):
        assert row.pop("file") == str(folder / name)
        assert row == pytest.approx(expected(folder / name))


def test_json_in_a_process(ric_process, folder):
    done = ric_process("score", folder, *SCORERS, "--json")
    assert (done.code, done.err) == (0, "")
    assert len([json.loads(line) for line in done.out.splitlines()]) == 14


def test_more_than_a_batch(ric, folder):
    done = ric("score", *[folder, folder, folder], *SCORERS, "--json")
    assert len(done.out.splitlines()) == 3 * 14


def test_unreadable_is_skipped_with_a_line(ric, folder):
    (folder / "4.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "7.png").write_bytes(b"")
    done = ric("score", folder, *SCORERS, "--json")
    assert done.code == 0
    assert len(done.out.splitlines()) == 12
    lines = done.err.splitlines()
    assert len(lines) == 2 and all(line.endswith("; skipped") for line in lines)
    assert str(folder / "4.png") in lines[0]
    assert lines[1] == f"ric score: {folder / '7.png'}: empty file; skipped"


def test_none_readable(ric, tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_text("no picture")
    done = ric("score", tmp_path, *SCORERS, "--json")
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 1
    assert "none of 2 files is a readable picture" in done.err and "a.png" in done.err


@pytest.mark.parametrize(
    "args, said",
    [
        (["{}/gone.png", *SCORERS], "gone.png: no such file"),
        (["{}/pictures", *SCORERS], "no pictures"),
        (["{}/p.png", "--scorers", "colourfulness"], "did you mean 'colorfulness'?"),
        (["{}/p.png", "--scorers", "compressibility:qualty=5"], "did you mean 'quality'?"),
        (["{}/p.png", "--scorers", "compressibility:quality=101"], "quality=101"),
        (["{}/p.png", "--scorers", "compressibility:quality"], "not an option"),
        (["{}/p.png", *SCORERS, "colorfulness"], "colorfulness is given twice"),
        (["{}/p.png"], "--scorers"),
        ([*SCORERS], "PATH"),
    ],
)
def test_bad_input(ric, tmp_path, args, said):
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (8, 8), "red").save(tmp_path / "p.png")
    done = ric("score", *[arg.format(tmp_path) for arg in args])
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 1 and said in done.err
    assert done.err.startswith("ric score: ")
