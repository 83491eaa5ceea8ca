"""One process at a time in a folder."""

from __future__ import annotations

import os
import platform
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from ric_diffusion.io.errors import InputError

LOCK = ".lock"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep all other processes that ask for it out of a folder, which is made if it is not there,
    and removed if it is left empty. The system lets go of it when the process ends, however it
    ends.

    InputError that names the process that has it.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    path = folder / LOCK
    file = _locked(path)
    try:
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        yield
    finally:
        with suppress(PermissionError):  # Windows removes no open file; then it is left empty
            file.truncate(0)
            path.unlink(missing_ok=True)  # while it is held: see _locked
        file.close()
        with suppress(OSError):  # there is something in it
            for empty in made:
                empty.rmdir()


def _locked(path: Path) -> IO[str]:
    """The file, which is empty and locked by this process until it is closed."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+", encoding="utf-8")
        except (FileExistsError, FileNotFoundError):
            if _is_no_folder(path.parent):
                raise
            continue  # the one before has just removed the folder, too
        try:
            if not _lock(file.fileno()):
                file.seek(0)
                holder = file.read().strip() or "another process"
                raise InputError(
                    f"{path.parent}: {holder} is at work here; wait for it, or choose another --out"
                )
            # The one before may have removed it since it was opened here: then it keeps nobody out.
            if _is(file, path):
                file.truncate(0)
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def _is_no_folder(path: Path) -> bool:
    try:
        return not stat.S_ISDIR(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def _is(file: IO[str], path: Path) -> bool:
    """Whether the path still leads to the open file."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _lock(descriptor: int) -> bool:
    """Whether nobody else has it; it is had until the file is closed."""
    if sys.platform == "win32":
        import msvcrt

        try:
            os.lseek(descriptor, 2**30, os.SEEK_SET)  # a byte that nobody reads
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks, as some networks have: nobody can be kept out
        return True
    return True
