import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ric_diffusion.io import strict_json
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.strict_json import MOST_DEPTH, parse_json, read_json

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=9,
)


@given(plain)
def test_it_reads_what_python_writes(value):
    assert parse_json(json.dumps(value), "x") == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
        ('{"a": NaN}', "NaN is no number of JSON"),
        ("[-Infinity]", "-Infinity is no number of JSON"),
        ('{"a": 1, "b": 2, "a": 3}', "'a' is there twice"),
        ("[" * 200_000, "nested more than 32 deep"),
        ("[" * 200_000 + "]" * 200_000, "nested more than 32 deep"),
        ('{"a":' * 900 + "1" + "}" * 900, "nested more than 32 deep"),
        ("9" * 5000, "not valid JSON"),
    ],
)
def test_what_is_not_json_is_one_line(text, said):
    with pytest.raises(InputError, match=said) as caught:
        parse_json(text, "here")
    assert str(caught.value).startswith("here: ") and "\n" not in str(caught.value)


def test_depth_ends_where_it_says():
    parse_json("[" * (MOST_DEPTH - 1) + "]" * (MOST_DEPTH - 1), "x")
    with pytest.raises(InputError, match="nested"):
        parse_json("[" * (MOST_DEPTH + 1) + "]" * (MOST_DEPTH + 1), "x")


def test_a_file_is_read_up_to_its_bound(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_text("[1, 2, 3]")
    assert read_json(path) == [1, 2, 3]
    monkeypatch.setattr(strict_json, "MOST_BYTES", 8)
    with pytest.raises(InputError, match=r"a\.json: holds 9 bytes, at most 8 are read"):
        read_json(path)


def test_a_file_of_the_most_bytes_is_read_and_one_more_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(strict_json, "MOST_BYTES", 10)
    path = tmp_path / "x.json"
    path.write_text('"12345678"')
    assert read_json(path) == "12345678"
    path.write_text('"123456789"')
    with pytest.raises(InputError, match=r"x\.json: holds 11 bytes, at most 10 are read"):
        read_json(path)
