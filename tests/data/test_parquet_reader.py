"""What is read of parquet: the hub's pictures, and tables about the samples of a tar."""

import io

import pytest
from PIL import Image

from ric_diffusion.data.parquet_reader import read_parquet, read_table
from ric_diffusion.data.tar_reader import BrokenShard
from support.shards import jpeg, write_parquet


def read(path):
    with path.open("rb") as file:
        return list(read_parquet(file, path.name))


def png(seed):
    buffer = io.BytesIO()
    Image.open(io.BytesIO(jpeg(seed))).save(buffer, "PNG")
    return buffer.getvalue()


def test_pictures_with_captions_and_the_other_columns(tmp_path):
    rows = [
        {"image": {"bytes": jpeg(0), "path": "x.png"}, "caption": "one", "label": 3},
        {"image": {"bytes": png(1), "path": None}, "caption": "two", "label": None},
        {"image": {"bytes": None, "path": "y.jpg"}, "caption": "three", "label": 4},
        {"image": None, "caption": "four", "label": 5},
        {"image": {"bytes": b"words", "path": "z.jpg"}, "caption": " ", "label": 6},
    ]
    for row in rows:
        row["mask"] = {"bytes": b"other", "path": ""}
        row["sound"] = b"bytes"
    found = read(write_parquet(tmp_path / "a.parquet", rows))
    assert [one.record.file.removeprefix("a.parquet/") for one in found] == [
        "00000000.jpg",
        "00000001.png",
        "00000002",
        "00000003",
        "00000004.bin",
    ]
    assert [one.reason for one in found] == [
        "",
        "",
        "no bytes of a picture, only the path 'y.jpg'",
        "no bytes of a picture",
        "",
    ]
    assert [one.record.captions for one in found] == [("one",), ("two",), (), (), ()]
    assert [one.record.extra for one in found[:2]] == [{"label": 3}, {}]
    assert found[1].source == rows[1]["image"]["bytes"]


def test_a_caption_that_is_no_text(tmp_path):
    rows = [{"image": {"bytes": jpeg(0), "path": ""}, "text": 5}]
    (one,) = read(write_parquet(tmp_path / "a.parquet", rows))
    assert one.reason == "its metadata: 5 is no caption; captions are text"


def test_which_column_has_the_pictures(tmp_path):
    picture = {"bytes": jpeg(0), "path": ""}
    one = write_parquet(tmp_path / "1.parquet", [{"photo": picture, "text": "t"}])
    assert read(one)[0].source == jpeg(0)
    for row, said in {
        ("a", "b"): "several with pictures, a, b, and no column 'image'",
        (): "no pictures, and no column 'image' of structs with bytes; its columns are text",
    }.items():
        path = write_parquet(tmp_path / "2.parquet", [{**dict.fromkeys(row, picture), "text": "t"}])
        with pytest.raises(BrokenShard, match=said):
            read(path)


def test_damaged_files_are_broken(tmp_path):
    rows = [{"image": {"bytes": jpeg(i), "path": ""}, "text": f"t{i}"} for i in range(200)]
    path = write_parquet(tmp_path / "a.parquet", rows)
    whole = path.read_bytes()
    for data in (b"", b"words" * 9, whole[:-1], whole[: len(whole) // 2], b"PAR1" + whole[900:]):
        path.write_bytes(data)
        with pytest.raises(BrokenShard, match="not a whole parquet file"):
            read(path)


def test_tables(tmp_path):
    def table(rows):
        with write_parquet(tmp_path / "0.parquet", rows).open("rb") as file:
            return read_table(file, "0.tar")

    assert table([{"key": "a", "caption": "x", "jpg": b"y"}, {"key": None, "caption": "z"}]) == {
        "a": {"key": "a", "caption": "x"}
    }
    ours = {"file_name": "shards/0.tar/d/b.jpg", "text": "x"}
    assert table([ours]) == {"d/b": ours}
    with pytest.raises(BrokenShard, match="no column 'key'"):
        table([{"caption": "x"}])
