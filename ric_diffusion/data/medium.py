"""What samples are, pictures or texts, as one object: read, write, digest, reject reason."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol
from unicodedata import category

from PIL import Image

from ric_diffusion.data.images import (
    NOT_FINITE,
    is_blank,
    is_not_finite,
    open_image,
    pixel_digest,
    png_bytes,
    save_png,
)
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import json_bytes, write_json, write_text

_UNSEEN = ("Cc", "Cf")  # marks of encodings, of directions, NUL


class Medium(Protocol):
    """One kind of sample.

    ``name``: "image" or "text", as scorers have it. ``plural``: what a person calls several.
    ``suffix``: of the files that ``write`` writes, ".png". ``per_prompt``: whether the same sample
    on another prompt is another record, as a text that answers several prompts is; two records of
    one picture are duplicates.
    """

    name: str
    plural: str
    suffix: str
    per_prompt: bool

    def read(self, source: Path | bytes, suffix: str = "") -> Any:
        """The sample in a file, or in the bytes of one whose name has this ``suffix``, that nobody
        vouches for. ValueError if there is none, with the reason as its message, in words for the
        user."""

    def write(self, sample: Any, path: Path, metadata: Mapping[str, Any] | None = None) -> None:
        """Write one sample to a file of its own, in one move and without loss, with what is known
        about it in it or beside it."""

    def files(self, sample: Any, metadata: Mapping[str, Any] | None = None) -> dict[str, bytes]:
        """What ``write`` writes, by suffix, the sample's own file first."""

    def digest(self, sample: Any) -> str:
        """SHA-256 in hex, equal for equal samples."""

    def reject_reason(self, sample: Any) -> str | None:
        """Why a sample must never be labelled or selected, in a word ("blank"), or None."""


class Images:
    """RGB pictures of Pillow; their metadata are text chunks of the PNG."""

    name, plural, suffix, per_prompt = "image", "pictures", ".png", False

    def read(self, source: Path | bytes, suffix: str = "") -> Image.Image:
        return open_image(source, suffix=suffix)

    def write(
        self, sample: Image.Image, path: Path, metadata: Mapping[str, Any] | None = None
    ) -> None:
        save_png(path, sample, metadata)

    def files(
        self, sample: Image.Image, metadata: Mapping[str, Any] | None = None
    ) -> dict[str, bytes]:
        return {self.suffix: png_bytes(sample, metadata)}

    def digest(self, sample: Image.Image) -> str:
        return pixel_digest(sample)

    def reject_reason(self, sample: Image.Image) -> str | None:
        if is_not_finite(sample):
            return NOT_FINITE
        return "blank" if is_blank(sample) else None


class Texts:
    """Texts in UTF-8; their metadata are a JSON file of the same name."""

    name, plural, suffix, per_prompt = "text", "texts", ".txt", True

    def read(self, source: Path | bytes, suffix: str = "") -> str:
        """To the byte, line ends included."""
        if isinstance(source, Path) and source.exists() and not source.is_file():
            raise ValueError("not a file")  # reading a pipe could wait for ever
        try:
            return (source if isinstance(source, bytes) else source.read_bytes()).decode()
        except UnicodeDecodeError as error:
            raise ValueError("not UTF-8 text") from error
        except FileNotFoundError as error:
            raise ValueError("missing file") from error
        except PermissionError as error:
            raise ValueError("no permission to read it") from error

    def write(self, sample: str, path: Path, metadata: Mapping[str, Any] | None = None) -> None:
        write_text(path, sample)
        if metadata is not None:
            write_json(path.with_suffix(".json"), metadata)

    def files(self, sample: str, metadata: Mapping[str, Any] | None = None) -> dict[str, bytes]:
        found = {self.suffix: sample.encode()}
        return found if metadata is None else {**found, ".json": json_bytes(metadata)}

    def digest(self, sample: str) -> str:
        return hashlib.sha256(sample.encode()).hexdigest()

    def reject_reason(self, sample: str) -> str | None:
        seen = any(not letter.isspace() and category(letter) not in _UNSEEN for letter in sample)
        return None if seen else "empty"


def read_named(path: Path, medium: Medium, *, mend: str) -> Any:
    """The sample in a file. InputError, with the path and how to ``mend`` it, if there is none."""
    try:
        return medium.read(path)
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: {error}; {mend}") from error


IMAGE, TEXT = Images(), Texts()
MEDIA: Mapping[str, Medium] = {IMAGE.name: IMAGE, TEXT.name: TEXT}
