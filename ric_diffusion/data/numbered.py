"""Files of samples that never take the place of another: 0001-red-apple-seed0.png, counting on."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path

from ric_diffusion.io.files import create_bytes

MOST_CHARACTERS, MOST_BYTES = 40, 100  # of the prompt's words; a name has room for 255 bytes
_NAME = re.compile(r"(\d{4,})-(?:.+-)?seed\d+\.[a-z]+")
_WORD = re.compile(r"[^\W_]+")


def file_name(number: int, prompt: str, seed: int, suffix: str = ".png") -> str:
    """What the sample of this number is called: ``0001-red-apple-seed0.png``. Of the prompt it has
    the first words, without accents and whatever a file system or a shell may not like."""
    plain = "".join(
        c for c in unicodedata.normalize("NFKD", prompt) if not unicodedata.combining(c)
    )
    name = ""
    for word in _WORD.findall(unicodedata.normalize("NFC", plain).casefold()):
        longer = f"{name}-{word}" if name else _cut(word)
        if longer != _cut(longer):
            break
        name = longer
    return f"{number:04d}-{f'{name}-' if name else ''}seed{seed}{suffix}"


def next_number(folder: Path) -> int:
    """One more than the highest number of the samples in a folder, 1 where there are none."""
    names = (path.name for path in folder.iterdir()) if folder.is_dir() else ()
    return 1 + max((int(found[1]) for name in names if (found := _NAME.fullmatch(name))), default=0)


def write_numbered(folder: Path, prompt: str, seed: int, files: Mapping[str, bytes]) -> Path:
    """Write the files of a sample, by suffix, under the next free number; returns the first one's
    path. Nothing that is there is replaced, not by several processes that write at once either."""
    number = next_number(folder)
    while True:
        named = {
            folder / file_name(number, prompt, seed, suffix): data for suffix, data in files.items()
        }
        if create_all(named):
            return next(iter(named))
        number += 1


def create_all(files: Mapping[Path, bytes]) -> bool:
    """Create files that belong together; False, and none of them, if one is there already."""
    written: list[Path] = []
    done = False
    try:
        for path, data in files.items():
            if not create_bytes(path, data):
                return False
            written.append(path)
        done = True
    finally:
        for path in () if done else written:
            path.unlink()
    return True


def _cut(text: str) -> str:
    """At most so many characters and bytes of it."""
    return text[:MOST_CHARACTERS].encode()[:MOST_BYTES].decode(errors="ignore")
