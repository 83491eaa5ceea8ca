"""Prompt files: one prompt to a line."""

from pathlib import Path

from ric_diffusion.io.errors import InputError


def read_prompts(path: Path) -> list[str]:
    """The lines of a UTF-8 file that are neither blank nor begin with #, each once, in order."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin a file with a BOM
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text; give one prompt to a line") from None
    lines = (line.strip() for line in text.split("\n"))
    prompts = list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
    if not prompts:
        raise InputError(f"{path}: no prompts in it; give one to a line")
    return prompts
