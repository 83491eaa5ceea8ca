"""Prompts, and files of them: one to a line."""

from pathlib import Path

from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import read_file

NUL = "\0"
NO_TEXT = "not text, or UTF-16 without its mark; save it as UTF-8"  # of what holds NUL


def read_prompts(path: Path) -> list[str]:
    """The lines of a UTF-8 file that are neither blank nor begin with #, each once, in order. Any
    line end counts, and no other separator."""
    try:
        text = read_file(path).decode("utf-8-sig")  # some editors begin a file with a BOM
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text; give one prompt to a line") from None
    if NUL in text:
        raise InputError(f"{path}: {NO_TEXT}")
    lines = (line.strip() for line in text.replace("\r", "\n").split("\n"))
    prompts = list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
    if not prompts:
        raise InputError(f"{path}: no prompts in it; give one to a line")
    return prompts


def is_utf16(text: str) -> bool:
    """Whether a text is UTF-16 that was read as UTF-8: then every other character of it is a zero,
    or nearly. One that strayed into a text makes none of it."""
    return text.count(NUL) > len(text) // 3


def check_text(name: str, text: str) -> None:
    """InputError for what is no text in UTF-8, or no PNG can hold; ``name``: of the argument."""
    if not isinstance(text, str):
        raise InputError(f"{name} {text!r}: give a text")
    if NUL in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise InputError(f"{name}: holds a character that is no text; take it out")
