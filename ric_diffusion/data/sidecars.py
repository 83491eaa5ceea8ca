"""Captions in text files beside pictures: ``x.txt`` or ``x.caption`` to ``x.png``."""

from __future__ import annotations

import codecs
import os
from pathlib import Path
from typing import Literal

CaptionRule = Literal["whole", "lines"]  # what one text file holds: one caption, or one to a line

SUFFIXES = (".txt", ".caption")  # in the order in which they are asked
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class UnreadableCaption(ValueError):
    """No text could be had from a file; the message says why, in words for the user."""


class Sidecars:
    """Finds text files; each folder is listed once."""

    def __init__(self) -> None:
        self._listed: dict[Path, dict[str, list[str]]] = {}

    def beside(self, path: Path) -> list[Path]:
        """The files that may hold the captions of the sample `path`, the first to ask first: .txt
        before .caption, each also in capitals."""
        if path.parent not in self._listed:
            self._listed[path.parent] = _texts(path.parent)
        names = self._listed[path.parent].get(path.stem, ())
        found = [path.with_name(name) for name in names if name != path.name]
        return [file for file in found if file.is_file()]


def _texts(folder: Path) -> dict[str, list[str]]:
    """The names of text files by their stem."""
    found: dict[str, list[str]] = {}
    for name in os.listdir(folder) if folder.is_dir() else ():
        stem, suffix = os.path.splitext(name)
        if suffix.lower() in SUFFIXES:
            found.setdefault(stem, []).append(name)
    for names in found.values():
        names.sort(key=_order)
    return found


def _order(name: str) -> tuple[int, bool, str]:
    suffix = os.path.splitext(name)[1]
    return SUFFIXES.index(suffix.lower()), suffix != suffix.lower(), suffix


def read_captions(path: Path, rule: CaptionRule) -> list[str]:
    """The captions in a text file, blanks among them; UnreadableCaption if it cannot be read.

    UTF-8, or UTF-16 and UTF-32 with their mark. Any line end counts, and no other separator.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UnreadableCaption(error.strerror or str(error)) from error
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UnreadableCaption(f"not {encoding.removesuffix('-sig').upper()}") from error
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.split("\n") if rule == "lines" else [text]
