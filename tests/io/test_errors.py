import pytest

from ric_diffusion.io.errors import InputError, suggest


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
