"""Putting a labelled folder in place: the whole of it, or what was there before."""

import filecmp
import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path

from ric_diffusion.files import replacing

IMAGES = "images"
_STAGING = ".tmp-images"


def publish(out: Path, files: Mapping[str, bytes], pictures: Mapping[str, Path]) -> bool:
    """Make `out` hold `files` by name and, under images/, `pictures`: source file by name.

    The first of `files` is put in place last, so where it exists the folder is whole; pictures that
    are no longer wanted go after that. Everything is written beside its place first: an error
    leaves the old output as it was. Returns False, and touches nothing, if all is there already.

    Picture names must tell their pixels, as digests do: a name that is there already may get other
    bytes, but never another picture.
    """
    images = out / IMAGES
    new = {name: path for name, path in pictures.items() if not _same_file(path, images / name)}
    stale = set(os.listdir(images)) - set(pictures) if images.is_dir() else set()
    if not new and all(_holds(out / name, data) for name, data in files.items()):
        _remove(images / name for name in stale)
        return bool(stale)
    with ExitStack() as stack:  # left in reverse
        for name, data in files.items():
            stack.enter_context(replacing(out / name)).write_bytes(data)
        staging = _stage(stack, out, new)
        (out / next(iter(files))).unlink(missing_ok=True)  # from here on there are only renames
        if images.is_dir():
            for name in new:
                os.replace(staging / name, images / name)
        else:
            os.rename(staging, images)
    _remove(images / name for name in stale)
    return True


def clear_leftovers(out: Path) -> None:
    """Remove what a killed run had begun to put in place."""
    _remove(out.glob(".tmp-*"))


def _stage(stack: ExitStack, out: Path, pictures: Mapping[str, Path]) -> Path:
    """A folder in `out` with these pictures, safe on the disk; gone when `stack` is left."""
    staging = out / _STAGING
    staging.mkdir()
    stack.callback(shutil.rmtree, staging, ignore_errors=True)
    for name, source in pictures.items():
        try:
            os.link(os.path.realpath(source), staging / name)
        except OSError:  # another disk, a file system without links, somebody else's file
            shutil.copyfile(source, staging / name)
    if pictures and hasattr(os, "sync"):  # once for all: fsync takes milliseconds for each picture
        os.sync()
    return staging


def _holds(path: Path, data: bytes) -> bool:
    return path.is_file() and path.read_bytes() == data


def _same_file(a: Path, b: Path) -> bool:
    return b.is_file() and (a.samefile(b) or filecmp.cmp(a, b, shallow=False))


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
