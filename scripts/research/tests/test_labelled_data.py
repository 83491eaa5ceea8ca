"""What tables know of data that are not there."""

import json
from dataclasses import replace

import numpy as np
import pytest

from labelled_data import DATA_FILE, LabelledData, keep_data, kept_data
from ric_diffusion.io.errors import InputError
from ric_diffusion.rewards import RewardSpace

DATA = LabelledData(
    space=RewardSpace.fit({name: np.random.default_rng(0).normal(size=50) for name in ("a", "b")}),
    names=("red apple", 'a "quoted" cat'),
    digest="0123",
    count=50,
)


def test_it_is_read_as_it_was(tmp_path):
    keep_data(DATA, tmp_path)
    found = kept_data(tmp_path)
    assert found.space.to_dict() == DATA.space.to_dict() and found.records == []
    assert (found.names, found.digest, found.count) == (DATA.names, DATA.digest, DATA.count)


def test_what_was_scored_on_other_data_is_not_told_to_be_of_these(tmp_path):
    keep_data(DATA, tmp_path)
    before = (tmp_path / DATA_FILE).read_bytes()
    keep_data(replace(DATA, names=list(DATA.names)), tmp_path)
    with pytest.raises(InputError, match=r"data\.json: is of other data; restore those, or choose"):
        keep_data(replace(DATA, digest="4567"), tmp_path)
    assert (tmp_path / DATA_FILE).read_bytes() == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "is missing; leave out --kept"),
        ("{", "not readable"),
        (json.dumps({"names": []}), "data.json: "),
    ],
)
def test_damage_is_one_line(tmp_path, text, said):
    if text is not None:
        (tmp_path / DATA_FILE).write_text(text)
    with pytest.raises(InputError, match=said) as error:
        kept_data(tmp_path)
    assert str(tmp_path / DATA_FILE) in str(error.value) and "\n" not in str(error.value)
