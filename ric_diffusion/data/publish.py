"""Putting a labelled folder in place: the whole of it, or what was there before."""

import filecmp
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path

from ric_diffusion.io.files import copy, replacing, sibling, sync_all
from ric_diffusion.rewards import RewardSpace


def publish_files(out: Path, files: Mapping[str, bytes | Path]) -> bool:
    """Make `out` hold `files` by name: bytes, or a file that is moved there from beside its place.

    The first of them is put in place last, so where it exists the folder is whole. Returns False,
    and changes nothing, if all is there already.
    """
    if all(_holds(out / name, data) for name, data in files.items()):
        return False
    with ExitStack() as stack:  # left in reverse
        _write(stack, out, files)
        (out / next(iter(files))).unlink(missing_ok=True)  # from here on there are only renames
    return True


def publish(
    out: Path, files: Mapping[str, bytes], samples: Mapping[str, Path], *, below: str
) -> bool:
    """Make `out` hold `files` by name and, in its folder `below`, `samples`: source file by name.

    The first of `files` is put in place last, so where it exists the folder is whole; samples that
    are no longer wanted go after that. Everything is written beside its place first: an error
    leaves the old output as it was. Returns False, and touches nothing, if all is there already.

    The names of samples must tell what is seen of them, as digests do: a name that is there already
    may get other bytes, but never another label. So several processes may publish the same at once.
    """
    place = out / below
    new = {name: path for name, path in samples.items() if not _is_copy(path, place / name)}
    stale = set(os.listdir(place)) - set(samples) if place.is_dir() else set()
    if not new and all(_holds(out / name, data) for name, data in files.items()):
        _remove(place / name for name in stale)
        return bool(stale)
    with ExitStack() as stack:  # left in reverse
        _write(stack, out, files)
        staging = _stage(stack, sibling(place), new)
        (out / next(iter(files))).unlink(missing_ok=True)  # from here on there are only renames
        place.mkdir(exist_ok=True)
        for name in new:
            os.replace(staging / name, place / name)
    _remove(place / name for name in stale)
    return True


def space_bytes(space: RewardSpace) -> bytes:
    """The file of a reward space."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "space")
        space.save(path)
        return path.read_bytes()


def _write(stack: ExitStack, out: Path, files: Mapping[str, bytes | Path]) -> None:
    """Write files beside their places, which they take when `stack` is left. They are on the disk
    before any of them does, so that one which fails to get there leaves all the old ones."""
    temporaries = []
    for name, data in files.items():
        temporary = stack.enter_context(replacing(out / name))
        if isinstance(data, bytes):
            temporary.write_bytes(data)
        else:
            os.replace(data, temporary)
        temporaries.append(temporary)
    sync_all(temporaries)


def _stage(stack: ExitStack, staging: Path, samples: Mapping[str, Path]) -> Path:
    """The folder `staging` with these samples, safe on the disk; gone when `stack` is left."""
    staging.mkdir()
    stack.callback(shutil.rmtree, staging, ignore_errors=True)
    for name, source in samples.items():
        copy(source, staging / name)  # a link would change with the original
    if samples and hasattr(os, "sync"):  # once for all: fsync takes milliseconds for each file
        os.sync()
    return staging


def _holds(path: Path, data: bytes | Path) -> bool:
    try:
        if isinstance(data, Path):
            return filecmp.cmp(path, data, shallow=False)
        return path.read_bytes() == data
    except FileNotFoundError:
        return False


def _is_copy(a: Path, b: Path) -> bool:
    """Whether b is a file of its own with what is in a."""
    try:
        return b.is_file() and not a.samefile(b) and filecmp.cmp(a, b, shallow=False)
    except FileNotFoundError:
        return False


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)  # another process may have been faster
