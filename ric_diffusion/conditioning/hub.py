"""Adapters on the hub: fetched by id, and pushed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ric_diffusion.conditioning.adapter import ABOUT_FILE, ENCODER_FILE
from ric_diffusion.errors import InputError


def fetched(path_or_id: str | Path, files: Sequence[str], subfolder: str = "", **hub: Any) -> Path:
    """A local folder as it is; anything else is a hub id, of which an adapter's files are fetched:
    those of every adapter and ``files``.

    ``hub``: revision, token, cache_dir and so on, as huggingface_hub's snapshot_download has them.
    The ``subfolder`` of either may turn out not to be there.
    """
    if (local := Path(path_or_id)).is_dir():
        return local / subfolder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = [str(PurePosixPath(subfolder, f)) for f in (ABOUT_FILE, ENCODER_FILE, *files)]
    try:
        return Path(snapshot_download(str(path_or_id), allow_patterns=wanted, **hub), subfolder)
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path_or_id}: no such folder, and the hub did not give it ({reason})"
        ) from error
