"""Steps of a round that are done once: their result is a file, and the file is what counts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ric_diffusion.io.config import from_dict, to_dict
from ric_diffusion.io.files import read_file, write_json

T = TypeVar("T")


def read(path: Path, cls: type[T]) -> T:
    """What ``write`` wrote."""
    return from_dict(json.loads(read_file(path)), cls, str(path))


def write(path: Path, value: object) -> None:
    """A dataclass, or a list of them, as JSON."""
    write_json(path, to_dict(value))


def once(path: Path, cls: type[T], make: Callable[[], T]) -> T:
    """What is in ``path``; if there is no such file yet, it is made and written first."""
    if not path.exists():
        write(path, make())
    return read(path, cls)
