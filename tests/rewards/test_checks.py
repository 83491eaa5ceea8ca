"""What is said of values that are refused, word for word: the lines stand alone in a terminal."""

import math

import numpy as np
import pytest

from ric_diffusion.io.errors import InputError
from ric_diffusion.rewards import checks

REFUSED = [
    (lambda: checks.known("colour", ["colorfulness", "brightness"], "--z"),
     "--z: unknown reward 'colour'; one of: colorfulness, brightness"),
    (lambda: checks.number("1", "std"), "std must be a number, not '1'"),
    (lambda: checks.number(True, "std"), "std must be a number, not True"),
    (lambda: checks.number(None, "std"), "std must be a number, not None"),
    (lambda: checks.number(-math.inf, "std"), "std must be finite, not -inf"),
    (lambda: checks.number(-3, "std", 2.5), "std is -3.0; 2.5 is the most, either way"),
    (lambda: checks.numbers([1.0, "x"], "limits"), "limits must be a number, not 'x'"),
    (lambda: checks.numbers([1.0, 9.0], "limits", 3), "limits is 9.0; 3 is the most, either way"),
    (lambda: checks.numbers(1.0, "limits"), "limits must be a list, not 1.0"),
    (lambda: checks.text(3, "unit", 5), "unit must be text, not 3"),
    (lambda: checks.text("abcdef", "unit", 5), "unit has 6 characters; 5 is the most"),
    (lambda: checks.text("a\nb", "unit", 5),
     r"unit must be text of one line, without control characters: 'a\nb'"),
    (lambda: checks.scorer({"options": {}}, "scorer"), "scorer: field name is missing"),
    (lambda: checks.scorer({"name": "a", "o": 1}, "scorer"),
     "scorer: unknown field 'o'; one of: name, options"),
    (lambda: checks.scorer({"name": 1}, "scorer"), "scorer: name must be text, not 1"),
    (lambda: checks.scorer({"name": "a" * 1001}, "scorer"),
     "scorer: name has 1001 characters; 1000 is the most"),
    (lambda: checks.scorer({"name": "a", "options": 1}, "scorer"),
     "scorer: options must map names to values, not 1"),
    (lambda: checks.scorer(3, "scorer"), "scorer must map names to values, not 3"),
    (lambda: checks.fields([], ("a",), "space"), "space must map names to values, not []"),
    (lambda: checks.fields({}, ("a", "b"), "space"), "space: field a, b is missing"),
    (lambda: checks.column("a", []), "a: no scores given"),
    (lambda: checks.column("a", [[1.0]]), "a: scores must be one list of numbers"),
    (lambda: checks.column("a", ["1"]), "a: scores must be one list of numbers"),
    (lambda: checks.column("a", [[1.0], [1.0, 2.0]]), "a: scores must be one list of numbers"),
    (lambda: checks.column("a", [1.0, math.nan, math.inf]),
     "a: 2 of 3 scores are not finite; drop those samples"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_what_is_refused(check, said):
    with pytest.raises(InputError) as error:
        check()
    assert str(error.value) == said


def test_what_is_taken():
    checks.known("a", ["a", "b"], "--z")
    assert checks.number(np.float32(2), "std", 2) == 2.0 and checks.number(-2, "std", 2) == -2.0
    assert checks.numbers((1, 2.5), "limits") == (1.0, 2.5)
    assert checks.text("abcde", "unit", 5) == "abcde"
    assert checks.text("a" * 1000, "name", checks.MOST_TEXT)
    assert checks.scorer({}, "scorer") == {}
    assert checks.scorer({"name": "a"}, "scorer") == {"name": "a"}
    assert checks.items((1, 2), "limits") == (1, 2)
    assert checks.fields({"b": 1, "a": 2}, ("a", "b"), "space") == {"a": 2, "b": 1}
    column = checks.column("a", [1, 2])
    assert column.dtype == np.float64 and column.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("character", ["\x1b", "\u202e", "\u2028", "\u2029", "\ud800"])
def test_lines_are_not_broken_or_turned(character):
    assert checks.is_one_line("a b") and not checks.is_one_line(f"a{character}b")
