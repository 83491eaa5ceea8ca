"""Adapters on the hub: fetched by id, and pushed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ric_diffusion.adapters.adapter import ABOUT_FILE, CARD_FILE, ENCODER_FILE
from ric_diffusion.adapters.card import HERE
from ric_diffusion.io.errors import InputError, reason_of
from ric_diffusion.io.hub import hurry, refusal
from ric_diffusion.io.manifest import MANIFEST
from ric_diffusion.io.paths import expanded, is_path

REFUSED = (400, 401, 403, 404, 409)  # what HTTP calls it


def fetched(path_or_id: str | Path, files: Sequence[str], subfolder: str = "", **hub: Any) -> Path:
    """A local folder as it is; anything else is a hub id, of which an adapter's files are fetched:
    those of every adapter and ``files``.

    ``hub``: revision, token, cache_dir and so on, as huggingface_hub's snapshot_download has them.
    The ``subfolder`` of either may turn out not to be there.
    """
    if (local := expanded(path_or_id)).is_dir():
        return local / subfolder
    if is_path(str(path_or_id)) or "/" not in str(path_or_id):
        raise InputError(f"{path_or_id}: no such folder")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    hurry()
    names = (ABOUT_FILE, ENCODER_FILE, MANIFEST, *files)
    wanted = [str(PurePosixPath(subfolder, name)) for name in names]
    try:
        return Path(snapshot_download(str(path_or_id), allow_patterns=wanted, **hub), subfolder)
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(f"{path_or_id}: no such folder, and {refusal(error)}") from error


def open_repository(repo_id: str) -> None:
    """See to it that an adapter can be pushed to ``repo_id``: make the repository, private, unless
    it is there, in which case it stays as public as it is.

    InputError for a malformed id, without a token, or where the hub says no; OSError if it cannot
    be asked.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
        well_formed = repo_id.count("/") == 1
    except HFValidationError:
        well_formed = False
    if not well_formed:
        raise InputError(f"{repo_id}: not a repository of the hub; write user/name")
    if not get_token():
        raise InputError(f"{repo_id}: the hub wants a token; run `hf auth login`, or set HF_TOKEN")
    _asked(repo_id, lambda: HfApi().create_repo(repo_id, private=True, exist_ok=True))


def push(folder: Path, repo_id: str, files: Sequence[str]) -> str:
    """Upload an adapter's own files, those of every adapter and ``files``, to a repository that is
    open; returns its address. The card then names the repository where it said ``this/folder``."""
    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as temporary:
        for name in (ABOUT_FILE, ENCODER_FILE, CARD_FILE, MANIFEST, *files):
            if (folder / name).is_file():
                shutil.copy(folder / name, temporary)
        if (card := Path(temporary, CARD_FILE)).is_file():
            card.write_text(card.read_text("utf-8").replace(HERE, repo_id), encoding="utf-8")
        _asked(
            repo_id,
            lambda: HfApi().upload_folder(
                repo_id=repo_id, folder_path=temporary, commit_message="Upload reward sliders"
            ),
        )
    return f"https://huggingface.co/{repo_id}"


def _asked(repo_id: str, request: Callable[[], Any]) -> None:
    """Make a request of the hub; whatever goes wrong is one line."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        request()
    except Exception as error:  # what carries the request raises types of its own
        reason = reason_of(error)
        refused = isinstance(error, HfHubHTTPError) and error.response.status_code in REFUSED
        if refused or isinstance(error, ValueError):  # as for a card that is malformed
            raise InputError(f"{repo_id}: the hub refused ({reason})") from error
        raise OSError(f"{repo_id}: the hub cannot be reached ({reason})") from error
