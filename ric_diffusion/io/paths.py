"""Paths as people write them: ``~`` at the beginning is the home folder."""

import os
import re
from pathlib import Path

from ric_diffusion.io.errors import InputError

HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)  # NAME or USER/NAME
ADDRESS = re.compile(r"\w+://|(huggingface\.co|hf\.co)/")  # begins one


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with the home folder in it. InputError for that of a user who has none."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(f"{path}: no user of that name has a home folder") from None


def check_readable(folder: str | os.PathLike[str]) -> None:
    """InputError for a folder whose files this user may not see."""
    if not os.access(folder, os.R_OK | os.X_OK):
        raise InputError(f"{folder}: no permission to read this folder")


def expanded_name(name: str) -> str:
    """The same for a model or an adapter, which is named by a path or in another way."""
    return str(expanded(name)) if name.startswith("~") else name


def is_path(name: str) -> bool:
    """Whether the name of a model or an adapter can only be a path: no hub id or address looks like
    it. There need not be anything."""
    return not (HUB_ID.fullmatch(name) or ADDRESS.match(name))
