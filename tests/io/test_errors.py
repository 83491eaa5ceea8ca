import pickle

import pytest

from ric_diffusion.io.errors import InputError, not_finite_error, reason_of, suggest
from scorers import ScorerError
from scorers.base import UNSAFE


@pytest.mark.parametrize(
    ("word", "options", "hint"),
    [
        ("lr_rate", ["learning_rate", "lr_rates", "steps"], "; did you mean 'lr_rates'?"),
        ("Compressibility", ["compressibility"], "; did you mean 'compressibility'?"),
        ("colorfullness", ["Colorfulness"], "; did you mean 'Colorfulness'?"),
        ("zebra", ["a", "b", "c"], "; one of: a, b, c"),
        ("zebra", [], ""),
        ("", ["a", "b"], "; one of: a, b"),
    ],
)
def test_suggest(word: str, options: list[str], hint: str) -> None:
    assert suggest(word, options) == hint
    assert suggest(word, iter(options)) == hint


def test_input_error_is_a_value_error() -> None:
    assert issubclass(InputError, ValueError)


@pytest.mark.parametrize("kind", [InputError, ScorerError])
def test_a_message_ends_at_300_characters(kind) -> None:
    """What is wrong and where is at its beginning, how to mend it at its end."""
    assert str(kind("a" * 300)) == "a" * 300
    line = str(kind(f"here: {'x' * 10**6} is too long; shorten it"))
    assert len(line) == 300
    assert line.startswith("here: xxx") and line.endswith("xxx is too long; shorten it")


def test_how_to_have_a_pickle_run_is_not_passed_on() -> None:
    told = "Weights only load failed. Do so if you trust it: `weights_only=False`"
    assert reason_of(pickle.UnpicklingError(told)) == UNSAFE
    assert reason_of(OSError("first\nsecond")) == "first"
    assert reason_of(KeyError()) == "KeyError"


def test_what_is_no_number_is_one_line() -> None:
    error = not_finite_error("the image of seed 0")
    assert isinstance(error, FloatingPointError)
    assert str(error).startswith("the image of seed 0: not finite (NaN or Inf); the model's")
