"""Weights that lie side by side in a folder or on the hub: their variants, and what they are
stored as."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from diffusers import DiffusionPipeline

from ric_diffusion.io.errors import InputError
from ric_diffusion.models.checkpoint import Checkpoint, local_file, read_header
from ric_diffusion.models.family import model_path

# Names in a part's folder: model.fp16.safetensors, and as one of several files in today's order or
# the old one. The group is the variant.
WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_)?model(?:-\d+-of-\d+)?(?:\.([^.]+?))?(?:-\d+-of-\d+)?\.safetensors"
)


def variants(files: Sequence[str]) -> dict[str | None, str]:
    """A file of each variant that there is of weights, None for those without one."""
    matches = [(WEIGHTS.fullmatch(PurePosixPath(file).name), file) for file in files]
    return {match[1]: file for match, file in matches if match}


def check_variant(name: str, variant: str | None, parts: Sequence[str], **hub: Any) -> None:
    """InputError, with the variants that there are, if a folder or repository has no weights of
    this one for any of the ``parts``."""
    folder = Path(name)
    if folder.is_dir():
        files = [file.relative_to(folder).as_posix() for file in folder.glob("*/*.safetensors")]
    else:
        files = _files_on_hub(name, **hub)
    there = variants([file for file in files if file.partition("/")[0] in parts])
    if variant in there or not there:
        return
    named = sorted(found for found in there if found)
    if variant is None:
        raise InputError(f"variant: {name} has weights of {', '.join(named)} alone; give one")
    plain = ["weights without a variant"] if None in there else []
    has = " and ".join(filter(None, [", ".join(named), *plain]))
    raise InputError(f"variant {variant}: {name} has no such weights; it has {has}")


def stored_dtype(checkpoint: Checkpoint, denoiser: str) -> torch.dtype:
    """Half precision if most of the denoiser's weights are stored in it, else float32. A checkpoint
    on the hub is fetched, as it will be in any case."""
    name, variant = checkpoint.model, checkpoint.variant
    if checkpoint.is_file:
        return read_header(local_file(name, **checkpoint.hub), name).dtype
    folder = Path(model_path(name))
    if not folder.is_dir():
        options = {"variant": variant, "use_safetensors": True, **checkpoint.hub}
        folder = Path(DiffusionPipeline.download(name, **options))
    there = variants([str(file) for file in folder.glob(f"{denoiser}/*.safetensors")])
    found = there.get(variant) or there.get(None)
    return read_header(Path(found)).dtype if found else torch.float32


def _files_on_hub(name: str, **hub: Any) -> list[str]:
    """Empty if the hub cannot be asked: what did not load the model says why."""
    from huggingface_hub import HfApi

    asked = {key: hub[key] for key in ("revision", "token") if key in hub}
    try:
        return HfApi().list_repo_files(name, **asked)
    except Exception:  # not there, no net, no such id
        return []
