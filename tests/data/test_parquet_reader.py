"""What is read of parquet: the hub's pictures, and tables about the samples of a tar."""

import datetime
import io

import pyarrow as pa
import pyarrow.parquet as pq
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


def test_names_of_pictures_that_pillow_alone_does_not_know(tmp_path):
    heic = b"\0\0\0\x18ftypheic\0\0\0\0"
    rows = [
        {"image": {"bytes": data, "path": path}, "text": "one"}
        for data, path in [(heic, None), (b"\xff\x0a.", ""), (b"\0\0\2", "a.TGA"), (b"..", "a.md")]
    ]
    found = read(write_parquet(tmp_path / "a.parquet", rows))
    suffixes = [one.record.file.rpartition(".")[2] for one in found]
    assert suffixes == ["heic", "jxl", "tga", "bin"]


def test_values_that_python_has_not_are_text(tmp_path):
    """Dates after the year 9999, and zones that nobody knows."""
    table = pa.table(
        {
            "key": ["a", "b"],
            "late": pa.array([10**12, None], pa.timestamp("s")),
            "zoned": pa.array([0, 1], pa.timestamp("s", "Mars/Olympus")),
            "good": pa.array([0, 1], pa.date32()),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    with (tmp_path / "a.parquet").open("rb") as file:
        found = read_table(file, "a")
    assert found["a"]["good"] == datetime.date(1970, 1, 1)
    assert (found["a"]["late"], found["b"]["late"]) == (10**15, None)  # stored as ms
    assert (found["a"]["zoned"], found["b"]["zoned"]) == (0, 1000)


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
