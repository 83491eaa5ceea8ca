"""Weights from files: read without running code that hides in them, and named by their digest."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scorers.base import ScorerError, WeightsError, first_line

if TYPE_CHECKING:
    from torch import Tensor

SAFE = ".safetensors"
INDEXES = "*.safetensors.index*.json"  # of shards, with a variant's name or without
LEGACY = (".pth", ".pt", ".bin")  # pickles, of which torch reads the tensors only


def check_weights_path(path: str | os.PathLike[str], *, where: str) -> Path:
    """The path of a weights file that is there and has a suffix we read. ``where`` for errors."""
    checked = Path(path).expanduser() if isinstance(path, (str, os.PathLike)) else None
    if checked is None or not checked.is_file():
        raise ScorerError(f"{where}={str(path)!r}: no such file; give the path of a weights file")
    if checked.suffix not in (SAFE, *LEGACY):
        raise ScorerError(
            f"{where}={str(path)!r}: cannot read {checked.suffix or 'a file without suffix'}; "
            f"give a {SAFE} file, or a legacy {', '.join(LEGACY)}"
        )
    return checked


def is_hub_id(text: str) -> bool:
    """Whether it reads as owner/name, and is no path of a weights file."""
    named = re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", text) is not None
    return named and Path(text).suffix not in (SAFE, *LEGACY) and not Path(text).exists()


def find_weights(
    given: str | os.PathLike[str], names: Sequence[str], *, where: str, option: str
) -> Path:
    """A weights file by its path; or the first of ``names`` that is in a folder or, by hub id, in a
    repository of the hub or its cache on this machine. ``where`` for errors.
    """
    text = str(given)
    if (folder := Path(text).expanduser()).is_dir():
        for name in names:
            if (folder / name).is_file():
                return folder / name
        raise ScorerError(f"{where}={text!r}: this folder has no {' or '.join(names)}; give a file")
    if not is_hub_id(text):
        return check_weights_path(given, where=where)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    problem: Exception | None = None
    for name in names:
        try:
            return Path(hf_hub_download(text, name))
        except EntryNotFoundError as error:  # offline too, where it is not in the cache
            problem = error
        except Exception as error:
            problem = error
            break
    raise WeightsError(
        f"{where}={text!r}: cannot fetch {' or '.join(names)} of https://huggingface.co/{text} "
        f"({type(problem).__name__}); go online once, or give {option}=PATH of a copy"
    ) from problem


def problem_of_shards(model: str | os.PathLike[str], **hub: Any) -> str | None:
    """What is wrong with the lists of shards, ``….safetensors.index.json``, of a model of
    transformers or diffusers, a folder with its parts or a hub id: loading it would read a file
    that is no safetensors, or not of that folder. None for nothing."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        indexes = sorted([*folder.glob(INDEXES), *folder.glob(f"*/{INDEXES}")])
    else:
        indexes = _index_on_hub(str(model), **hub)
    for index in indexes:
        try:
            shards = set(json.loads(index.read_bytes())["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return f"{index}: lists no files of weights; fetch it again"
        for shard in sorted(map(str, shards)):
            if not shard.endswith(SAFE) or Path(shard).name != shard:
                return f"{index}: names {shard}, and only {SAFE} files beside it are read"
    return None


def check_shards(model: str | os.PathLike[str], *, where: str) -> None:
    """ScorerError for what ``problem_of_shards`` finds; ``where`` begins it."""
    if problem := problem_of_shards(model):
        raise ScorerError(f"{where}: {problem}")


def _index_on_hub(model: str, **hub: Any) -> list[Path]:
    """The list of shards of a model that is not one of several parts; [] if it has none. Whoever
    loads the model says what else stopped it."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError

    try:
        return [Path(hf_hub_download(model, "model.safetensors.index.json", **hub))]
    except (EntryNotFoundError, HFValidationError, OSError):
        return []


def read_state_dict(path: str | os.PathLike[str], *, where: str) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a legacy pickle with ``weights_only=True``.

    ``where`` (such as ``"aesthetic: head"``) opens the error message.
    """
    import torch
    from safetensors.torch import load_file

    checked = check_weights_path(path, where=where)
    try:
        if checked.suffix == SAFE:
            state = load_file(checked)
        else:
            state = torch.load(checked, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ScorerError(
            f"{where}={str(path)!r}: refused or unreadable ({first_line(error)}); "
            f"give a {SAFE} file of tensors"
        ) from error
    return state


def digest(state: dict[str, Tensor], extra: str = "") -> str:
    """12 hex digits of the sha256 over the tensors (name, shape, type, bytes) and ``extra``.

    Over tensors rather than files: the same weights as .pth and as .safetensors score the same.
    """
    import torch

    sha = hashlib.sha256(extra.encode())
    for name, tensor in sorted(state.items()):
        sha.update(f"\n{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        sha.update(raw.numpy().data)
    return sha.hexdigest()[:12]
