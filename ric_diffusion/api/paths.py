"""What a verb reads and where it writes: checked before the work, and before models are loaded."""

from __future__ import annotations

import os
from pathlib import Path

from ric_diffusion.io.errors import InputError, suggest
from ric_diffusion.io.paths import expanded, is_path
from ric_diffusion.models.known import BUNDLED, PACKAGES

WEIGHTS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")  # ends of files that hold a model


def check_out_folder(out: Path) -> None:
    """InputError unless ``out`` is a folder that can be written to, or can become one."""
    path = out.absolute()
    nearest = next(p for p in (path, *path.parents) if os.path.lexists(p))
    if not nearest.is_dir():
        raise InputError(f"out {out}: {nearest} is a file; name a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(f"out {out}: no permission to write in {nearest}")


def check_out_file(out: Path) -> None:
    """InputError unless a file can be written at ``out``."""
    if out.is_dir():
        raise InputError(f"out {out}: a folder; name a file in it")
    check_out_folder(out.parent)


def check_file(name: str, path: Path) -> None:
    """InputError unless there is such a regular file; ``name``: of the argument."""
    found = expanded(path)
    if not found.is_file():
        if found.is_dir():
            problem = "a folder; name a file"
        else:
            problem = "cannot be read (not a regular file)" if found.exists() else "no such file"
        raise InputError(f"{name} {path}: {problem}")


def check_folder(name: str, path: Path) -> None:
    """InputError unless there is such a folder."""
    if not expanded(path).is_dir():
        problem = "a file; name a folder" if expanded(path).exists() else "no such folder"
        raise InputError(f"{name} {path}: {problem}")


def check_adapter(adapter: str, name: str = "adapter") -> None:
    """InputError for the path of an adapter that is not there. A hub id is not looked up."""
    local = is_path(adapter) or "/" not in adapter
    if local and not expanded(adapter).is_dir():
        raise InputError(f"{name} {adapter}: no such folder")


def check_model(model: str, name: str = "model") -> None:
    """InputError for the path of a model that is not there, and for a name that is neither a path,
    nor bundled, nor a hub id. A hub id is not looked up."""
    if expanded(model).exists():
        return
    if is_path(model) or ("/" not in model and model.endswith(WEIGHTS)):
        raise InputError(f"{name} {model}: no such file or folder")
    bundled = [*BUNDLED, *PACKAGES]
    if "/" not in model and model not in bundled:
        raise InputError(
            f"{name} {model}: no such folder or bundled model{suggest(model, bundled)}"
        )
