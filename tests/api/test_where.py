"""Which records `where` keeps."""

import pytest

from ric_diffusion.api.runs import RunConfig, selected
from ric_diffusion.data.records import Record
from ric_diffusion.io.config import from_dict
from ric_diffusion.io.errors import InputError

ROWS = [
    {"style": "flat", "rating": 5, "outdoors": True, "year": "2020", "share": 1e-4},
    {"style": "noisy", "rating": 4.0, "outdoors": False, "year": "2021.0", "seen": "True"},
    {"style": "1", "rating": 1, "outdoors": True, "tweet": "1790000000000000003"},
]
RECORDS = [Record(file=f"{i}.png", extra=row) for i, row in enumerate(ROWS)]


def kept(**where):
    """The numbers of the records, by `where` as a YAML file has it."""
    config = from_dict({"model": "m", "data": "d", "where": where}, RunConfig, "c.yaml")
    return [int(record.file[0]) for record in selected(RECORDS, config.where)]


@pytest.mark.parametrize(
    ("where", "numbers"),
    [
        ({}, [0, 1, 2]),
        ({"style": ["flat", "noisy"]}, [0, 1]),
        ({"rating": [5, 4]}, [0, 1]),
        ({"rating": [5.0]}, [0]),
        ({"rating": ["4"]}, [1]),
        ({"share": ["1e-4"]}, [0]),  # what YAML makes of 1e-4
        ({"outdoors": [True]}, [0, 2]),
        ({"outdoors": ["false"]}, [1]),
        ({"seen": [True]}, [1]),  # of a CSV file, whose cells are texts
        ({"year": [2020, 2021]}, [0, 1]),
        ({"style": [1]}, [2]),
        ({"tweet": [1790000000000000003]}, [2]),
        ({"rating": [1], "outdoors": [True]}, [2]),
    ],
)
def test_texts_numbers_and_truth_values_are_compared(where, numbers):
    assert kept(**where) == numbers


@pytest.mark.parametrize(
    "where",
    [
        {"rating": [True]},
        {"outdoors": [1]},
        {"year": ["2021"]},
        {"style": [5]},
        {"tweet": [1790000000000000002]},
    ],
)
def test_what_is_of_another_kind_is_not_equal(where):
    with pytest.raises(InputError, match="no record of the data has"):
        kept(**where)


def test_a_column_that_is_none_is_named_with_the_nearest():
    with pytest.raises(InputError) as error:
        kept(ratings=[5])
    assert str(error.value) == "where.ratings: no such column; did you mean 'rating'?"
