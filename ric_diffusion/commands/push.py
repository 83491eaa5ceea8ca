"""``ric push``, and ``--push-to-hub`` of the verbs that make adapters."""

from __future__ import annotations

import argparse
from pathlib import Path

from ric_diffusion.commands.kinds import Kind, adapter_kind
from ric_diffusion.conditioning.hub import open_repository, push
from ric_diffusion.errors import InputError


def run(options: argparse.Namespace) -> None:
    if not Path(options.adapter).is_dir():
        raise InputError(f"--adapter {options.adapter}: no such folder")
    kind, folder = adapter_kind(options.adapter)
    kind.adapter.load(folder)
    open_repository(options.to)
    print(push(folder, options.to, kind.files))


def push_trained(folder: Path, repo_id: str, kind: Kind) -> None:
    """Push what was trained, and print where it is. OSError, with what to do, if that fails."""
    try:
        print(push(folder, repo_id, kind.files))
    except (InputError, OSError) as error:
        later = f"ric push --adapter {folder} --to {repo_id}"
        raise OSError(f"{error}; {folder} is kept, push it with `{later}`") from error
