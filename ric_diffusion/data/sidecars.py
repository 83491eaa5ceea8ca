"""Captions in text files beside pictures: ``x.txt`` or ``x.caption`` to ``x.png``."""

from __future__ import annotations

import codecs
import os
from pathlib import Path
from typing import Literal

from ric_diffusion.data.names import folded
from ric_diffusion.data.prompts import NO_TEXT, is_utf16
from ric_diffusion.io.files import read_file

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
        self._listed: dict[Path, _Texts] = {}

    def beside(self, path: Path) -> list[Path]:
        """The files that may hold the captions of the sample `path`, the first to ask first: .txt
        before .caption, each also in capitals."""
        if path.parent not in self._listed:
            self._listed[path.parent] = _Texts(path.parent)
        names = self._listed[path.parent].of(path.stem)
        found = [path.with_name(name) for name in names if name != path.name]
        return [file for file in found if file.is_file()]


class _Texts:
    """The text files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._by_stem: dict[str, list[str]] = {}
        others: set[str] = set()
        for name in os.listdir(folder) if folder.is_dir() else ():
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in SUFFIXES:
                self._by_stem.setdefault(stem, []).append(name)
            else:
                others.add(stem)
        for names in self._by_stem.values():
            names.sort(key=_order)
        # Those beside no sample may be named as another system would name them.
        self._by_folded: dict[str, list[str]] = {}
        for stem in self._by_stem.keys() - others:
            self._by_folded.setdefault(folded(stem), []).append(stem)

    def of(self, stem: str) -> list[str]:
        """Their names, in order, for a sample of this name."""
        if stem not in self._by_stem:
            fitting = self._by_folded.get(folded(stem), [])
            stem = fitting[0] if len(fitting) == 1 else stem
        return self._by_stem.get(stem, [])


def _order(name: str) -> tuple[int, bool, str]:
    suffix = os.path.splitext(name)[1]
    return SUFFIXES.index(suffix.lower()), suffix != suffix.lower(), suffix


def read_captions(path: Path, rule: CaptionRule) -> list[str]:
    """The captions in a text file, blanks among them; UnreadableCaption if it cannot be read."""
    try:
        data = read_file(path)
    except OSError as error:
        raise UnreadableCaption(error.strerror or str(error)) from error
    return captions_in(data, rule)


def captions_in(data: bytes, rule: CaptionRule) -> list[str]:
    """The same for what such a file holds: UTF-8, or UTF-16 and UTF-32 with their mark. Any line
    end counts, and no other separator."""
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UnreadableCaption(f"not {encoding.removesuffix('-sig').upper()}") from error
    if is_utf16(text):
        raise UnreadableCaption(NO_TEXT)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.split("\n") if rule == "lines" else [text]
