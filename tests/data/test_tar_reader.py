"""What is read of a WebDataset tar, and that nothing in one can do harm."""

import io
import json
import tarfile

import pytest

from ric_diffusion.data.tar_reader import (
    BrokenShard,
    leads_out,
    read_tar,
    split_name,
    stored_name,
)
from support.shards import jpeg, sample, write_tar

NAMES = ["a.jpg", "a.seg.PNG", "d/e.f/g.h.jpg", ".hidden.jpg", "d/.x.jpg", "none", "d.e/none", "a."]


def read(path, captions="whole", table=None):
    with path.open("rb") as file:
        return list(read_tar(file, path.name, captions, table or {}))


def test_keys_end_at_the_first_dot_of_the_name():
    assert [split_name(name) for name in NAMES] == [
        ("a", "jpg"),
        ("a", "seg.png"),
        ("d/e.f/g", "h.jpg"),
        None,
        None,
        None,
        None,
        None,
    ]
    assert split_name("./a.jpg") == ("a", "jpg")
    assert stored_name("d/g", "h.jpg") == "d/g.jpg"


def test_samples_are_those_of_webdataset(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    members = [(name, jpeg(i)) for i, name in enumerate(NAMES)]
    members += [*sample("000", 20), *sample("001", 21), *sample("d/001", 22)]
    path = write_tar(tmp_path / "0.tar", members)
    theirs = [
        (one["__key__"], one["jpg"], one.get("txt", b"").decode())
        for one in webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False)
        if "jpg" in one
    ]
    ours = [
        (split_name(one.record.file.partition("/")[2])[0], one.source, *one.record.captions[:1])
        for one in read(path)
        if one.record.captions and not one.reason
    ]
    assert ours == [one for one in theirs if one[2]] and len(ours) == 3
    assert {one.record.file for one in read(path)} >= {f"0.tar/{key}.jpg" for key, *_ in theirs[:1]}


def test_captions_come_from_the_text_then_json_then_the_table(tmp_path):
    picture = ("jpg", jpeg(0))
    parts = {
        "a": [picture, ("txt", b" told \n"), ("json", b'{"caption": "noted", "prompt": "told"}')],
        "b": [picture, ("txt", b"\n"), ("json", b'{"caption": "noted", "score_x": 2, "n": null}')],
        "c": [picture, ("caption", b"spoken")],
        "d": [picture],
        "e": [picture],
    }
    path = write_tar(
        tmp_path / "0.tar", [(f"{key}.{ext}", data) for key in parts for ext, data in parts[key]]
    )
    table = {
        "a": {"text": "row", "license": "CC0"},
        "d": {"text": "row", "captions": ["x"], "n": 1},
    }
    found = {one.record.file[6]: one.record for one in read(path, table=table)}
    assert {key: record.captions for key, record in found.items()} == {
        "a": ("told",),
        "b": ("noted",),
        "c": ("spoken",),
        "d": ("row", "x"),
        "e": (),
    }
    assert found["a"].extra == {"caption": "noted", "license": "CC0"}
    assert (found["b"].extra, found["b"].scores) == ({}, {"x": 2.0})
    assert found["d"].extra == {"n": 1}


def test_alternatives_stay_where_the_text_is_one_of_them(tmp_path):
    members = [(f"{key}.{ext}", data) for key in "ab" for ext, data in
               (("jpg", jpeg(0)), ("txt", b"one"))]  # fmt: skip
    path = write_tar(tmp_path / "0.tar", members)
    table = {"a": {"text": "one", "captions": ["one", "two"]}, "b": {"captions": ["two", "three"]}}
    found = [one.record for one in read(path, table=table)]
    assert [record.captions for record in found] == [("one", "two"), ("one",)]
    assert [record.extra for record in found] == [{}, {}]


@pytest.mark.parametrize("zeros", [0, 512, 3 * 2**20])
def test_tars_that_were_joined_are_read_to_the_end(tmp_path, zeros):
    one = write_tar(tmp_path / "1.tar", [("a.jpg", jpeg(0)), ("a.txt", b"one")])
    two = write_tar(tmp_path / "2.tar", [("b.jpg", jpeg(1)), ("b.txt", b"two")])
    both = tmp_path / "0.tar"
    both.write_bytes(one.read_bytes() + bytes(zeros) + two.read_bytes())
    assert [sample.record.captions for sample in read(both)] == [("one",), ("two",)]
    both.write_bytes(one.read_bytes() + bytes(zeros) + b"words" * 400)
    with pytest.raises(BrokenShard):
        read(both)


def test_a_caption_with_zeros_in_it_costs_its_sample(tmp_path):
    members = [("a.jpg", jpeg(0)), ("a.txt", "red".encode("utf-16-le")), ("b.jpg", jpeg(1)),
               ("b.json", b'{"caption": "r\\u0000"}')]  # fmt: skip
    found = read(write_tar(tmp_path / "0.tar", members))
    assert all("UTF-16 without its mark; save" in one.reason for one in found) and len(found) == 2


def test_each_line_of_a_text_may_be_a_caption(tmp_path):
    path = write_tar(tmp_path / "0.tar", [("a.jpg", jpeg(0)), ("a.txt", b"one\r\ntwo\n\none")])
    assert [one.record.captions for one in read(path, "lines")] == [("one", "two")]
    assert [one.record.captions for one in read(path)] == [("one\ntwo\n\none",)]


def test_what_is_wrong_with_one_sample_is_said_of_that_one(tmp_path):
    text = ("txt", b"a caption")
    parts = {
        "/abs": [("jpg", jpeg(0)), text],
        "../up": [("jpg", jpeg(0)), text],
        "d/../../up": [("jpg", jpeg(0)), text],
        "C:\\x": [("jpg", jpeg(0)), text],
        "none": [text],
        "two": [("jpg", jpeg(0)), ("png", jpeg(1)), text],
        "again": [("jpg", jpeg(0)), ("jpg", jpeg(1)), text],
        "list": [("jpg", jpeg(0)), ("json", b"[1]"), text],
        "torn": [("jpg", jpeg(0)), ("json", b"{"), text],
        "deep": [("jpg", jpeg(0)), ("json", b"[" * 100_000), text],
        "number": [("jpg", jpeg(0)), ("json", b'{"caption": 5}')],
        "latin": [("jpg", jpeg(0)), ("txt", "ü".encode("latin-1"))],
        "fine": [("jpg", jpeg(0)), ("depth.png", b""), ("pickle", b"x"), text],
    }
    members = [(f"{key}.{ext}", data) for key, some in parts.items() for ext, data in some]
    path = write_tar(tmp_path / "0.tar", [*members, ("none.jpg", jpeg(3)), ("fine.jpg", jpeg(2))])
    found = [(one.record.file.removeprefix("0.tar/"), one.reason) for one in read(path)]
    out = "its name leads out of the tar"
    assert found == [
        ("/abs.jpg", out),
        ("../up.jpg", out),
        ("d/../../up.jpg", out),
        ("C:\\x.jpg", out),
        ("none", "no picture"),
        ("two.jpg", "2 pictures, jpg and png"),
        ("again.jpg", "two members are its .jpg"),
        ("list.jpg", "its .json is not a JSON object"),
        ("torn.jpg", "its .json is not JSON"),
        ("deep.jpg", "its .json is not JSON"),
        ("number.jpg", "its metadata: 5 is no caption; captions are text"),
        ("latin.jpg", "its .txt is not UTF-8"),
        ("fine.jpg", ""),
        ("none.jpg", ""),
        ("fine.jpg", "its name is that of an earlier sample"),
    ]


@pytest.mark.parametrize(
    ("kind", "size"),
    [(tarfile.SYMTYPE, 0), (tarfile.LNKTYPE, 0), (tarfile.CHRTYPE, 0), (tarfile.FIFOTYPE, 0)],
)
def test_links_and_devices_are_not_followed(tmp_path, kind, size):
    path = tmp_path / "0.tar"
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo("a.jpg")
        member.type, member.linkname = kind, "/etc/hostname"
        tar.addfile(member)
        folder = tarfile.TarInfo("folder.jpg")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        text = tarfile.TarInfo("a.txt")
        text.size = 1
        tar.addfile(text, io.BytesIO(b"x"))
    found = [(one.record.file, one.source, one.reason) for one in read(path)]
    assert found == [("0.tar/a.jpg", b"", "a link or a device, which is not followed")]


def test_a_tar_that_is_cut_anywhere_is_broken(tmp_path):
    whole = write_tar(tmp_path / "0.tar", [*sample("a", 0), *sample("b", 1)]).read_bytes()
    with tarfile.open(tmp_path / "0.tar") as tar:
        end = tar.getmembers()[-1].offset_data + 512
    for length in (10, 512, 600, 1024, 1500, end - 512, end - 1, end, end + 511):
        cut = tmp_path / "cut.tar"
        cut.write_bytes(whole[:length])
        with pytest.raises(BrokenShard):
            read(cut)
    cut.write_bytes(whole[: end + 512])
    assert len(read(cut)) == 2


def test_what_is_no_tar_is_broken(tmp_path):
    path = tmp_path / "0.tar"
    negative = tarfile.TarInfo("a.jpg")
    negative.size = -1536
    endless = bytearray(negative.tobuf(tarfile.GNU_FORMAT))
    for data in (b"", b"words" * 500, bytes(endless) + bytes(10240), jpeg(0)):
        path.write_bytes(data)
        with pytest.raises(BrokenShard):
            read(path)
    whole = write_tar(path, sample("a", 0)).read_bytes()
    path.write_bytes(whole[:512] + b"\1" * 512 + whole[1024:])  # damaged data are the picture's
    assert len(read(path)) == 1
    with tarfile.open(path) as tar:
        second = tar.getmembers()[1].offset
    path.write_bytes(whole[:second] + b"\1" * 512 + whole[second + 512 :])
    with pytest.raises(BrokenShard, match="its end mark is missing"):
        read(path)
    path.write_bytes(bytes(1024))  # of no members
    assert read(path) == []


def test_long_and_odd_names(tmp_path):
    names = ["n" * 90 + "/" + "m" * 200, "ü/é", "a b,c"]
    path = write_tar(tmp_path / "0.tar", [m for n in names for m in sample(n, 1)])
    assert [one.record.file for one in read(path)] == [f"0.tar/{name}.jpg" for name in names]
    assert leads_out("a\\..\\b") and not leads_out("a..b/c:d")


def test_cells_keep_their_types(tmp_path):
    cells = {"width": 5, "nested": {"a": [1]}, "similarity": 0.25, "none": None}
    path = write_tar(
        tmp_path / "0.tar",
        [("a.jpg", jpeg(0)), ("a.json", json.dumps({**cells, "text": "t"}).encode())],
    )
    (one,) = read(path)
    assert one.record.extra == {"width": 5, "nested": {"a": [1]}, "similarity": 0.25}
