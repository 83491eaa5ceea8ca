"""Prompts, and files of them: one to a line."""

from pathlib import Path

from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import read_file


def read_prompts(path: Path) -> list[str]:
    """The lines of a UTF-8 file that are neither blank nor begin with #, each once, in order."""
    try:
        text = read_file(path).decode("utf-8-sig")  # some editors begin a file with a BOM
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text; give one prompt to a line") from None
    lines = (line.strip() for line in text.split("\n"))
    prompts = list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
    if not prompts:
        raise InputError(f"{path}: no prompts in it; give one to a line")
    return prompts


def check_text(name: str, text: str) -> None:
    """InputError for what is no text in UTF-8, or no PNG can hold; ``name``: of the argument."""
    if not isinstance(text, str):
        raise InputError(f"{name} {text!r}: give a text")
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise InputError(f"{name}: holds a character that is no text; take it out")
