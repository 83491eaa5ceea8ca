"""A repository of the hub as it lies in the cache, for tests that reach no hub."""

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path


def write(cache: Path, repository: str, revisions: Mapping[str, Path]) -> None:
    """A folder for each revision, ``main`` and others, as if it had been fetched."""
    asked = "tokenizer/config.json"  # which transformers looks for and no pipeline has
    home = cache / f"models--{repository.replace('/', '--')}"
    for revision, folder in revisions.items():
        commit = hashlib.sha1(revision.encode()).hexdigest()
        shutil.copytree(folder, home / "snapshots" / commit)
        absent = home / ".no_exist" / commit / asked
        absent.parent.mkdir(parents=True)
        absent.touch()
        ref = home / "refs" / revision
        ref.parent.mkdir(exist_ok=True)
        ref.write_text(commit)
