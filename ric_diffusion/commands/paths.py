"""Where a verb writes: looked at before the work, not after it."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ric_diffusion.errors import InputError


def check_out_folder(out: Path) -> None:
    """InputError unless ``out`` is a folder that can be written to, or can become one."""
    path = out.absolute()
    nearest = next(p for p in (path, *path.parents) if os.path.lexists(p))
    if not nearest.is_dir():
        raise InputError(f"--out {out}: {nearest} is a file; name a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(f"--out {out}: no permission to write in {nearest}")


def out_folder(options: argparse.Namespace, out: Path | None) -> Path:
    """Where a run goes: ``--out``, else the ``out`` of its config; InputError if it can't."""
    if (folder := options.out or out) is None:
        raise InputError(f"{options.config}: out is missing; add it, or give --out")
    check_out_folder(folder)
    return folder


def check_out_file(out: Path) -> None:
    """InputError unless a file can be written at ``out``."""
    if out.is_dir():
        raise InputError(f"--out {out}: a folder; name a file in it")
    check_out_folder(out.parent)
