"""Finding equal digests, and joining tables, without a Python object for each row."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ric_diffusion.data.merge import repeated
from ric_diffusion.data.skipped import Skipped, read_skipped, write_skipped
from ric_diffusion.data.tables import JoinedSchema, count_rows, write_joined


def test_digests_that_are_repeated():
    rng = np.random.default_rng(0)
    # Few values, so that many halves are equal where digests are not.
    high, low = rng.integers(0, 12, (2, 500), dtype=np.uint64)
    doubles, firsts = repeated(high, low)
    first, expected = {}, {}
    for i, digest in enumerate(zip(high.tolist(), low.tolist(), strict=True)):
        if (earlier := first.setdefault(digest, i)) != i:
            expected[i] = earlier
    assert dict(zip(doubles.tolist(), firsts.tolist(), strict=True)) == expected
    assert list(doubles) == sorted(doubles) and len(expected) > 300
    for count in (0, 1):
        assert [len(one) for one in repeated(high[:count], low[:count])] == [0, 0]


def joined(tmp_path, *tables):
    schema, parts = JoinedSchema(), []
    for i, (rows, mask) in enumerate(tables):
        path = tmp_path / f"{i}.parquet"
        pq.write_table(pa.Table.from_pylist(rows), path)
        schema.add(path)
        parts.append((path, np.array(mask)))
    write_joined(tmp_path / "all.parquet", schema.schema, parts)
    assert count_rows(tmp_path / "all.parquet") == sum(sum(mask) for _, mask in tables)
    return pq.read_table(tmp_path / "all.parquet").to_pydict()


def test_rows_of_several_tables(tmp_path):
    found = joined(
        tmp_path,
        ([{"a": 1, "b": "x"}, {"a": 2, "b": "y"}], [True, False]),
        ([{"c": [1.5], "b": "z"}], [True]),
        ([{"a": 3}], [False]),
    )
    assert found == {"a": [1, None], "b": ["x", "z"], "c": [None, [1.5]]}


def test_whole_numbers_become_floats_only_where_floats_hold_them(tmp_path):
    small = joined(tmp_path, ([{"n": 2**53}], [True]), ([{"n": 0.5}], [True]))
    assert small == {"n": [float(2**53), 0.5]}
    large = joined(tmp_path, ([{"n": 2**53 + 1}], [True]), ([{"n": 0.5}], [True]))
    assert large == {"n": [str(2**53 + 1), "0.5"]}


@pytest.mark.parametrize(
    ("one", "other", "found"),
    [
        ([2**60 + 1], [1.5], [f"[{2**60 + 1}]", "[1.5]"]),
        ({"id": 2**60 + 1}, {"id": 0.5}, [f'{{"id": {2**60 + 1}}}', '{"id": 0.5}']),
        ([1.5], {"id": 1}, ["[1.5]", '{"id": 1}']),
        ({"a": 1}, {"b": "x"}, [{"a": 1, "b": None}, {"a": None, "b": "x"}]),
        ([], [1.5], [[], [1.5]]),
    ],
)
def test_lists_and_structs_are_joined_where_no_number_changes(tmp_path, one, other, found):
    assert joined(tmp_path, ([{"m": one}], [True]), ([{"m": other}], [True])) == {"m": found}


def test_what_was_left_out_is_read_a_line_at_a_time(tmp_path):
    entries = [("a\n{", "no, ]"), ("ü\udcff", '"quoted"'), ("a\n{", "again")]
    write_skipped(tmp_path / "1.json", entries)
    write_skipped(tmp_path / "2.json", [])
    assert list(read_skipped(tmp_path / "1.json")) == entries
    assert [e["reason"] for e in json.loads((tmp_path / "1.json").read_text())][1] == '"quoted"'
    assert json.loads((tmp_path / "2.json").read_text()) == []
    skipped = Skipped([tmp_path / "2.json", tmp_path / "1.json"])
    assert len(skipped) == 3 and list(skipped.items()) == entries
    assert list(skipped.values()) == ["no, ]", '"quoted"', "again"]
    assert skipped["ü\udcff"] == '"quoted"' and "b" not in skipped
