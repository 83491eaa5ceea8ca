"""Records: every format read, whatever is written read back, and every way out refused."""

import csv
import json
import os
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ric_diffusion.data.records import Record, read_folder, read_labelled, write_metadata
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.manifest import write_manifest
from ric_diffusion.rewards import RewardSpace

ROWS = [
    {"file_name": "b.png", "text": "bee", "captions": ["bee", "insect"], "year": 1999},
    {"file_name": "a.png", "text": "ant", "captions": ["ant"], "year": 2001},
]


def write_rows(folder, rows, kind):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"metadata.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            for row in rows:
                lists = {k: json.dumps(v) for k, v in row.items() if isinstance(v, list)}
                writer.writerow(row | lists)


def error_of(folder):
    with pytest.raises(InputError) as caught:
        read_folder(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv"])
def test_metadata(tmp_path, kind):
    write_rows(tmp_path, ROWS, kind)
    (tmp_path / "a.png").touch()
    (tmp_path / "b.png").touch()
    year = str if kind == "csv" else int
    assert read_folder(tmp_path) == [
        Record(file="b.png", captions=("bee", "insect"), extra={"year": year(1999)}),
        Record(file="a.png", captions=("ant",), extra={"year": year(2001)}),
    ]


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv"])
@pytest.mark.parametrize("column", ["text", "caption", "prompt"])
def test_caption_columns(tmp_path, kind, column):
    write_rows(tmp_path, [{"file_name": "a.png", column: " an apple\n"}], kind)
    assert read_folder(tmp_path) == [Record(file="a.png", captions=("an apple",))]


def test_first_caption_column_wins_and_the_other_is_passed_through(tmp_path):
    write_rows(tmp_path, [{"prompt": "p", "file_name": "a.png", "caption": "c"}], "jsonl")
    assert read_folder(tmp_path) == [Record(file="a.png", captions=("c",), extra={"prompt": "p"})]


def test_alternatives_alone_or_as_one_text(tmp_path):
    rows = [
        {"file_name": "a.png", "captions": ["a", "b", "a", ""]},
        {"file_name": "b.png", "captions": "a cat, asleep"},
        {"file_name": "c.png", "captions": None},
    ]
    write_rows(tmp_path, rows, "jsonl")
    found = [record.captions for record in read_folder(tmp_path)]
    assert found == [("a", "b"), ("a cat, asleep",), ()]


def test_scores_are_read_and_other_columns_are_not_touched(tmp_path):
    row = {"file_name": "a.png", "text": "t", "score_x": 2, "score_y": "5", "score_z": True}
    extra = {"n": {"k": [1, None]}, "score": 1.5}
    write_rows(tmp_path, [row | extra], "jsonl")
    (record,) = read_folder(tmp_path)
    assert record.scores == {"x": 2.0}
    assert record.extra == {"score_y": "5", "score_z": True, **extra}
    write_rows(tmp_path / "c", [row], "csv")
    (record,) = read_folder(tmp_path / "c")
    assert record.scores == {"x": 2.0, "y": 5.0}
    assert record.extra == {"score_z": "True"}


def test_sidecars(folder):
    records = read_folder(folder)
    names = [f"{i}.png" for i in range(7)] + [f"more/{i}.png" for i in (7, 8, 9)]
    assert [record.file for record in records] == names
    assert records[8] == Record(file="more/8.png", captions=("picture 8",))


def test_sidecar_kinds(tmp_path):
    for name in ("a.JPG", "b.webp", "c.c.png", "d.png", "e.png", ".hidden.png", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "a.txt").write_text("\ufeffa caption\r\n\r\nanother\r\n", encoding="utf-8")
    (tmp_path / "b.caption").write_text("b caption")
    (tmp_path / "c.c.txt").write_text("c caption")
    (tmp_path / "d.txt").write_text(" \n")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "f.png").touch()
    assert [(record.file, record.captions) for record in read_folder(tmp_path)] == [
        ("a.JPG", ("a caption\n\nanother",)),
        ("b.webp", ("b caption",)),
        ("c.c.png", ("c caption",)),
        ("d.png", ()),
        ("e.png", ()),
    ]


def test_each_line_a_caption(tmp_path):
    (tmp_path / "a.png").touch()
    (tmp_path / "a.txt").write_bytes("one\r\n\ntwo\rthree\u2028still three\none".encode())
    (record,) = read_folder(tmp_path, captions="lines")
    assert record.captions == ("one", "two", "three\u2028still three")
    (record,) = read_folder(tmp_path)
    assert record.captions == ("one\n\ntwo\nthree\u2028still three\none",)


@pytest.mark.parametrize(
    ("files", "caption"),
    [
        ({"a.txt": b"", "a.caption": b"a boat"}, "a boat"),
        ({"a.TXT": b"a bird"}, "a bird"),
        ({"a.Caption": b"a bee", "a.txt": b" "}, "a bee"),
        ({"a.TXT": b"loud", "a.txt": b"soft"}, "soft"),
        ({"a.caption": b"second", "a.txt": b"first"}, "first"),
    ],
)
def test_which_text_file_counts(tmp_path, files, caption):
    (tmp_path / "a.png").touch()
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    if len(os.listdir(tmp_path)) <= len(files):
        pytest.skip("the file system does not tell capitals")
    assert [record.captions for record in read_folder(tmp_path)] == [(caption,)]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_text_files_with_a_mark(tmp_path, encoding):
    (tmp_path / "a.png").touch()
    (tmp_path / "a.txt").write_bytes("ein Bär\n".encode(encoding))
    assert [record.captions for record in read_folder(tmp_path)] == [("ein Bär",)]


def test_the_first_caption_column_that_is_not_blank(tmp_path):
    rows = [
        {"file_name": "a.png", "text": "", "caption": " a cat", "prompt": "p"},
        {"file_name": "b.png", "text": " ", "caption": "", "prompt": None},
    ]
    write_rows(tmp_path, rows, "jsonl")
    assert read_folder(tmp_path) == [
        Record(file="a.png", captions=("a cat",), extra={"prompt": "p"}),
        Record(file="b.png", captions=()),
    ]


def test_metadata_in_subfolders_and_sidecars_together(tmp_path):
    write_rows(tmp_path / "train", ROWS, "csv")
    write_rows(tmp_path / "test", ROWS[:1], "csv")
    for name in ("train/a.png", "train/b.png", "test/b.png", "train/extra.png", "z.png"):
        (tmp_path / name).touch()
    (tmp_path / "z.txt").write_text("zebra")
    files = [(record.file, record.captions[:1]) for record in read_folder(tmp_path)]
    assert files == [
        ("test/b.png", ("bee",)),
        ("train/b.png", ("bee",)),
        ("train/a.png", ("ant",)),
        ("train/extra.png", ()),
        ("z.png", ("zebra",)),
    ]


def test_rows_about_one_file_are_one_record(tmp_path):
    rows = [
        {"file_name": "a.png", "text": "one", "n": 1},
        {"file_name": "b.png", "text": "bee", "n": 2},
        {"file_name": "./a.png", "text": "two", "n": 3},
    ]
    write_rows(tmp_path, rows, "jsonl")
    assert read_folder(tmp_path) == [
        Record(file="a.png", captions=("one", "two"), extra={"n": 1}),
        Record(file="b.png", captions=("bee",), extra={"n": 2}),
    ]


def test_missing_files_are_reported(tmp_path, caplog):
    write_rows(tmp_path, ROWS, "jsonl")
    (tmp_path / "a.png").touch()
    assert len(read_folder(tmp_path)) == 2
    assert "1 of 2 files missing, 'b.png' first" in caplog.text


def test_strange_names_and_captions(tmp_path):
    long = "very " * 2000 + "long"
    names = ["with space.png", "äpfel 🍎.png", "-rf.png", "a'b\"c.png", "new\nline.png", "%s{}.png"]
    for name in names:
        (tmp_path / name).touch()
        (tmp_path / name).with_suffix(".txt").write_text(long, encoding="utf-8")
    records = read_folder(tmp_path)
    assert [record.file for record in records] == sorted(names)
    assert {record.captions for record in records} == {(long,)}
    write_metadata(tmp_path, records)
    assert read_folder(tmp_path) == records


def test_lone_surrogates_become_question_marks(tmp_path):
    row = '{"file_name": "a.png", "text": "x \\ud800", "\\ud801": "\\ud802"}\n'
    (tmp_path / "metadata.jsonl").write_text(row)
    records = read_folder(tmp_path)
    assert records[0].captions == ("x ?",)
    assert records[0].extra == {"?": "\ud802"}
    write_metadata(tmp_path / "out", records)
    assert read_folder(tmp_path / "out")[0].extra == {"?": '"\\ud802"'}


# What is refused.


def test_no_folder(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    assert error_of(tmp_path / "gone").endswith("gone: no such folder")
    assert "a file; name the folder" in error_of(tmp_path / "file")
    assert "no pictures in it" in error_of(tmp_path / "empty")


def test_no_captions(tmp_path):
    (tmp_path / "a.png").touch()
    assert "no captions; add metadata.jsonl" in error_of(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metadata.jsonl", '{"file_name": "a", "text": "b"}\n\n{"file', "line 3: not JSON"),
        ("metadata.jsonl", "[1]\n", "line 1: not a JSON object"),
        ("metadata.jsonl", "[" * 100_000, "line 1: not JSON"),
        ("metadata.jsonl", '{"text": "b"}', "no column 'file_name'"),
        ("metadata.jsonl", '{"file_name": "a", "txt": 1}', "no captions; put them in"),
        (
            "metadata.jsonl",
            '{"file_name": "a", "text": "b"}\n{"text": "b"}',
            "line 2: file_name is",
        ),
        ("metadata.jsonl", '{"file_name": 7, "text": "b"}', "line 1: file_name is 7"),
        ("metadata.jsonl", '{"file_name": "", "text": "b"}', "line 1: file_name is ''"),
        ("metadata.jsonl", '{"file_name": "a\\u0000", "text": "b"}', "line 1: file_name is"),
        ("metadata.jsonl", '{"file_name": "\\ud800", "text": "b"}', "line 1: file_name is"),
        ("metadata.jsonl", '{"file_name": "a", "text": 7}', "line 1: 7 is no caption"),
        ("metadata.jsonl", '{"file_name": "a", "captions": 7}', "line 1: captions is 7"),
        ("metadata.jsonl", '{"file_name": "a", "captions": ["b", {}]}', "line 1: {} is no caption"),
        ("metadata.jsonl", "", "holds no rows"),
        ("metadata.csv", "", "holds no rows"),
        ("metadata.csv", "file_name,text\n", "holds no rows"),
        ("metadata.csv", "file_name,text\na,b\na,b,c\n", "line 3: 3 cells under 2 columns"),
        ("metadata.csv", 'file_name,text\na,"b\n', "line 2: not CSV"),
        ("metadata.csv", "file_name,text,text\na,b,c\n", "line 1: two columns"),
        ("metadata.csv", 'file_name,captions\na,"[""b"\n', "line 2: captions is not a JSON list"),
        ("metadata.csv", "file_name;text\na;b\n", "no column 'file_name'"),
        ("metadata.parquet", "words", "not a readable parquet file"),
        ("metadata.parquet", "", "not a readable parquet file"),
        ("metadata.jsonl", '{"file_name": "a"}'.encode("utf-16"), "line 1: not UTF-8"),
        ("metadata.csv", "file_name,text\na,b".encode("utf-16"), "line 1: not UTF-8"),
    ],
)
def test_malformed_metadata(tmp_path, name, text, message):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    error = error_of(tmp_path)
    assert error.startswith(str(tmp_path / name))
    assert message in error


def test_torn_parquet(tmp_path):
    write_metadata(tmp_path, [Record(file=f"{i}.png", captions=(str(i),)) for i in range(50)])
    whole = (tmp_path / "metadata.parquet").read_bytes()
    for length in range(0, len(whole), 97):
        (tmp_path / "metadata.parquet").write_bytes(whole[:length])
        assert "not a readable parquet file" in error_of(tmp_path)


@pytest.mark.parametrize("caption", ["[V] dog", "[]x", "[1girl] on a hill", "[ null"])
def test_a_caption_may_begin_with_a_bracket(tmp_path, caption):
    """Only what begins as a list of texts is one."""
    (tmp_path / "a.png").touch()
    (tmp_path / "metadata.csv").write_text(f"file_name,captions\na.png,{caption}\n")
    if caption in ("[]x", "[ null"):
        assert "not a JSON list" in error_of(tmp_path)
    else:
        assert read_folder(tmp_path)[0].captions == (caption,)


def test_a_long_cell_is_a_column_like_any_other(tmp_path):
    (tmp_path / "a.png").touch()
    graph = "x" * 500_000
    (tmp_path / "metadata.csv").write_text(f"file_name,text,workflow\na.png,cat,{graph}\n")
    assert read_folder(tmp_path)[0].extra == {"workflow": graph}


def test_an_absolute_path_inside_the_folder(tmp_path):
    (tmp_path / "a b.png").touch()
    rows = [{"file_name": str(tmp_path.resolve() / "a b.png"), "text": "cat"}]
    write_rows(tmp_path, rows, "jsonl")
    assert [record.file for record in read_folder(tmp_path)] == ["a b.png"]


def test_two_metadata_files(tmp_path):
    write_rows(tmp_path, ROWS, "csv")
    write_rows(tmp_path, ROWS, "jsonl")
    assert "more than one of" in error_of(tmp_path)


def test_a_caption_that_is_not_utf8_is_the_problem_of_its_sample(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.png").touch()
        (tmp_path / f"{i}.txt").write_bytes(b"a bowl")
    (tmp_path / "1.txt").write_bytes(b"a dog\x92s bowl")
    (tmp_path / "2.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "3.png").touch()
    (tmp_path / "3.txt").write_bytes("a bowl".encode("utf-16-le"))
    found = read_folder(tmp_path)
    assert [record.captions for record in found] == [("a bowl",), (), (), ()]
    assert [record.problem for record in found] == [
        "",
        "its caption 1.txt cannot be read (not UTF-8)",
        "its caption 2.txt cannot be read (not UTF-16)",
        "its caption 3.txt cannot be read (not text, or UTF-16 without its mark; save it as UTF-8)",
    ]
    (tmp_path / "0.txt").unlink()
    assert error_of(tmp_path) == (
        f"{tmp_path}: no captions that can be read: its caption 1.txt cannot be read (not UTF-8)"
    )


@pytest.mark.parametrize(
    ("kind", "damage"), [("jsonl", b"dog\x92s bowl"), ("csv", b"dog\x92s bowl"), ("csv", b"b\0o\0")]
)
def test_a_line_that_is_not_utf8_is_the_problem_of_its_sample(tmp_path, kind, damage):
    write_rows(tmp_path, [{"file_name": f"{i}.png", "text": f"bowl {i}"} for i in range(3)], kind)
    path = tmp_path / f"metadata.{kind}"
    path.write_bytes(path.read_bytes().replace(b"bowl 1", damage))
    for i in range(3):
        (tmp_path / f"{i}.png").touch()
    found = read_folder(tmp_path)
    assert [(record.file, record.captions) for record in found] == [
        ("0.png", ("bowl 0",)),
        ("1.png", ()),
        ("2.png", ("bowl 2",)),
    ]
    line = {"jsonl": 2, "csv": 3}[kind]
    said = "not UTF-8 text" if b"\x92" in damage else "not text, or UTF-16 without its mark"
    assert [record.problem for record in found] == [
        "",
        f"{path}, line {line}: {said}; save it as UTF-8",
        "",
    ]


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv"])
def test_a_caption_with_zeros_is_the_problem_of_its_sample(tmp_path, kind):
    texts = ["r\0e\0d\0", "\0r\0e\0d", "a stray\0 one"]
    write_rows(tmp_path, [{"file_name": f"{i}.png", "text": t} for i, t in enumerate(texts)], kind)
    for i in range(3):
        (tmp_path / f"{i}.png").touch()
    found = read_folder(tmp_path)
    assert [record.captions for record in found] == [(), (), ("a stray\0 one",)]
    assert ["UTF-16 without its mark" in record.problem for record in found] == [True, True, False]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv"])
def test_a_pipe_is_not_waited_for(tmp_path, kind):
    path = tmp_path / f"metadata.{kind}"
    os.mkfifo(path)
    assert error_of(tmp_path) == f"{path}: cannot be read (not a regular file)"


def test_a_folder_that_may_not_be_read_is_said_to_be_that(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert error_of(tmp_path) == f"{tmp_path}: no permission to read this folder"
    with pytest.raises(InputError, match="no permission to read this folder"):
        read_labelled(tmp_path)


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv"])
@pytest.mark.parametrize("file", ["../a.png", "x/../../a.png", "/etc/passwd", "C:\\a.png", ".."])
def test_paths_that_lead_out(tmp_path, kind, file):
    rows = [{"file_name": "fine.png", "text": "t"}, {"file_name": file, "text": "t"}]
    write_rows(tmp_path / "in", rows, kind)
    place = {"parquet": "row 2", "jsonl": "line 2", "csv": "line 3"}[kind]
    assert f"{place}: file_name {file!r} leads out" in error_of(tmp_path / "in")


def test_links_that_lead_out(tmp_path):
    (tmp_path / "secret.png").touch()
    (tmp_path / "secret.txt").write_text("secret")
    inner = tmp_path / "in"
    inner.mkdir()
    (inner / "a.png").touch()
    (inner / "a.txt").symlink_to(tmp_path / "secret.txt")
    assert "a.txt: leads out" in error_of(inner)
    (inner / "a.txt").unlink()
    (inner / "a.txt").write_text("fine")
    (inner / "b.png").symlink_to("../secret.png")
    assert "b.png: leads out" in error_of(inner)
    (inner / "b.png").unlink()
    (inner / "c").symlink_to(tmp_path)
    assert "leads out" in error_of(inner)
    write_rows(inner, [{"file_name": "c/secret.png", "text": "t"}], "jsonl")
    (inner / "c").unlink()
    (inner / "c").mkdir()
    (inner / "c" / "secret.png").symlink_to(tmp_path / "secret.png")
    assert "leads out" in error_of(inner)


def test_links_inside_are_fine(tmp_path):
    inner = tmp_path / "in"
    (inner / "sub").mkdir(parents=True)
    (inner / "sub" / "a.png").touch()
    (inner / "sub" / "a.txt").write_text("a")
    (inner / "b.png").symlink_to("sub/a.png")
    (inner / "b.txt").write_text("b")
    (inner / "again").symlink_to("sub")
    (inner / "sub" / "loop").symlink_to("..")
    (tmp_path / "link").symlink_to("in")
    assert [record.file for record in read_folder(tmp_path / "link")] == ["b.png", "sub/a.png"]


# What is written can be read.

words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
captions = words.map(str.strip).filter(lambda caption: caption and "\0" not in caption)
values = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=2),
    max_leaves=5,
)
columns = st.sampled_from(["style", "year", "source", "Δ", "score", "nested"])
records = st.builds(
    Record,
    file=st.uuids().map(lambda id: f"images/{id}.png"),
    captions=st.lists(captions, max_size=3, unique=True).map(tuple),
    scores=st.dictionaries(st.sampled_from(["x", "y_z"]), st.floats(allow_nan=False)),
)


@settings(max_examples=25, deadline=None)
@given(
    found=st.lists(records, min_size=1, max_size=6, unique_by=lambda record: record.file),
    data=st.data(),
)
def test_round_trip(tmp_path_factory, found, data):
    folder = tmp_path_factory.mktemp("round")
    kinds = [st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), words, st.booleans()]
    for name in data.draw(st.sets(columns)):
        column = data.draw(st.sampled_from(kinds))
        found = [replace(r, extra={**r.extra, name: data.draw(column)}) for r in found]
    found[0] = replace(found[0], captions=("a caption",))
    write_metadata(folder, found)
    assert read_folder(folder) == found
    first = (folder / "metadata.parquet").read_bytes()
    write_metadata(folder, read_folder(folder))
    assert (folder / "metadata.parquet").read_bytes() == first


@settings(max_examples=40, deadline=None)
@given(extras=st.lists(st.dictionaries(columns, values), min_size=1, max_size=5))
def test_any_extra_can_be_written_and_is_text_at_worst(tmp_path_factory, extras):
    folder = tmp_path_factory.mktemp("extra")
    found = [Record(file=f"{i}.png", captions=("c",), extra=e) for i, e in enumerate(extras)]
    write_metadata(folder, found)
    for record, extra in zip(read_folder(folder), extras, strict=True):
        assert record.extra.keys() == extra.keys()
        for name, value in extra.items():
            back = record.extra[name]
            assert back == value or json.loads(back) == value


def test_uneven_extras(tmp_path):
    extras = [{"a": 1, "b": float("nan")}, {"a": 2.5}, {"a": None, "c": b"\xff"}]
    found = [Record(file=f"{i}.png", captions=("c",), extra=e) for i, e in enumerate(extras)]
    write_metadata(tmp_path, found)
    back = [record.extra for record in read_folder(tmp_path)]
    assert back[0]["a"] == 1 and back[0]["b"] != back[0]["b"]
    assert back[1:] == [{"a": 2.5}, {"c": b"\xff"}]


def test_extra_must_not_take_our_columns(tmp_path):
    record = Record(file="a.png", captions=("c",), scores={"x": 1.0}, extra={"score_x": 2})
    with pytest.raises(InputError, match=r"a\.png: extra holds a column 'score_x'"):
        write_metadata(tmp_path, [record])
    assert os.listdir(tmp_path) == []


# What labelling leaves.

LABELLED = ("metadata.parquet", "reward_space.json")


@pytest.fixture
def labelled(tmp_path):
    found = [
        Record(file=f"{i}.png", captions=("c",), scores={"b": i, "a": i * i, "old": 1.0})
        for i in range(5)
    ]
    for record in found:
        (tmp_path / record.file).touch()
    write_metadata(tmp_path, found)
    columns = {name: [record.scores[name] for record in found] for name in ("a", "b")}
    RewardSpace.fit(columns).save(tmp_path / "reward_space.json")
    write_manifest(tmp_path, LABELLED)
    return tmp_path


def test_read_labelled(labelled):
    found, space = read_labelled(labelled)
    assert space.names == ("a", "b")
    assert found[2] == Record(
        file="2.png", captions=("c",), scores={"a": 4.0, "b": 2.0}, extra={"score_old": 1.0}
    )


@pytest.mark.parametrize("name", ["metadata.parquet", "reward_space.json"])
def test_read_labelled_wants_both_files(labelled, name):
    (labelled / name).unlink()
    with pytest.raises(InputError, match=f"{name} is missing; `ric label`"):
        read_labelled(labelled)


def test_read_labelled_wants_every_picture_and_score(labelled):
    (labelled / "3.png").unlink()
    with pytest.raises(InputError, match=r"1 of 5 pictures missing, '3\.png' first"):
        read_labelled(labelled)
    found = read_folder(labelled)
    scores = {"a": float("inf"), "b": 1.0}
    write_metadata(labelled, [*found[:3], Record(file="4.png", captions=("c",), scores=scores)])
    with pytest.raises(
        InputError, match=r"metadata\.parquet: is damaged; .*; run `ric label` again"
    ):
        read_labelled(labelled)
    write_manifest(labelled, LABELLED)
    with pytest.raises(InputError, match=r"'4\.png' has no a; run `ric label` again"):
        read_labelled(labelled)


def test_links_inside_the_folder_are_followed_and_those_out_of_it_refused(tmp_path):
    outside = tmp_path / "outside"
    folder = tmp_path / "data"
    for place in (outside, folder / "inner"):
        place.mkdir(parents=True)
        (place / "a.png").write_bytes(b"x")
    (folder / "linked").symlink_to(folder / "inner")
    (folder / "b.png").symlink_to(folder / "inner" / "a.png")
    rows = [{"file_name": name, "text": "x"} for name in ("inner/a.png", "linked/a.png", "b.png")]
    write_rows(folder, rows, "jsonl")
    assert [record.file for record in read_folder(folder)] == [r["file_name"] for r in rows]
    (folder / "away").symlink_to(outside)
    write_rows(folder, [*rows, {"file_name": "away/a.png", "text": "x"}], "jsonl")
    with pytest.raises(InputError, match="'away': leads out of"):
        read_folder(folder)
