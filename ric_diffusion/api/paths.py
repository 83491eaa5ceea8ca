"""Where a verb writes: checked before the work, not after it."""

from __future__ import annotations

import os
from pathlib import Path

from ric_diffusion.io.errors import InputError


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
