"""A folder's manifest: what each of its files holds, so that one that changed is named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import write_json

MANIFEST = "manifest.json"


class DamagedError(InputError):
    """A file is not what was written. One line that names it."""


def write_manifest(folder: Path, names: Sequence[str]) -> None:
    """Write ``folder/manifest.json`` with the SHA-256 of each of these files, which are there."""
    write_json(folder / MANIFEST, {"sha256": {name: _digest(folder / name) for name in names}})


def check_manifest(folder: Path, names: Sequence[str]) -> None:
    """DamagedError that names what is missing, or is not what was written with its manifest:
    ``names`` are the files that must be in it."""
    path = folder / MANIFEST
    try:
        digests = json.loads(path.read_text(encoding="utf-8"))["sha256"]
        written = {str(name): str(digest) for name, digest in digests.items()}
    except FileNotFoundError:
        raise DamagedError(f"{path}: is missing") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DamagedError(f"{path}: is damaged") from None
    if absent := sorted(set(names) - set(written)):
        raise DamagedError(f"{path}: is damaged; it says nothing of {absent[0]}")
    for name in names:
        file = folder / name
        if not file.is_file():
            raise DamagedError(f"{file}: is missing")
        if _digest(file) != written[name]:
            raise DamagedError(f"{file}: is damaged; it is not what was written")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
