"""A folder's manifest: what each of its files holds, so that one that changed is named."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import json_bytes, write_bytes
from ric_diffusion.io.strict_json import read_json

MANIFEST = "manifest.json"


class DamagedError(InputError):
    """A file is not what was written. One line that names it."""


def write_manifest(folder: Path, names: Sequence[str]) -> None:
    """Write ``folder/manifest.json`` with the SHA-256 of each of these files, which are there."""
    write_bytes(folder / MANIFEST, manifest_bytes({name: folder / name for name in names}))


def manifest_bytes(files: Mapping[str, bytes | Path]) -> bytes:
    """The manifest of files by name, which are there under another name or still to be written."""
    digests = {
        name: _digest(data) if isinstance(data, Path) else hashlib.sha256(data).hexdigest()
        for name, data in files.items()
    }
    return json_bytes({"sha256": digests})


def check_manifest(folder: Path, names: Sequence[str]) -> None:
    """DamagedError that names what is missing, or is not what was written with its manifest:
    ``names`` are the files that must be in it, and all that are in it are looked at."""
    path = folder / MANIFEST
    try:
        digests = read_json(path)["sha256"]
        written = {str(name): str(digest) for name, digest in digests.items()}
    except FileNotFoundError:
        raise DamagedError(f"{path}: is missing") from None
    except OSError as error:
        raise DamagedError(f"{path}: cannot be read ({error.strerror})") from None
    except (InputError, KeyError, TypeError, AttributeError):
        raise DamagedError(f"{path}: is damaged") from None
    if absent := sorted(set(names) - set(written)):
        raise DamagedError(f"{path}: is damaged; it says nothing of {absent[0]}")
    for name, digest in written.items():
        file = folder / name
        if PurePath(name).name != name:
            raise DamagedError(f"{path}: is damaged; {name!r} is no file of this folder")
        if not file.is_file():
            raise DamagedError(f"{file}: is missing")
        if _digest(file) != digest:
            raise DamagedError(f"{file}: is damaged; it is not what was written")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
