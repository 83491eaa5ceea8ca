"""What the verbs that sample share: loading a model with its adapter."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from ric_diffusion.commands.kinds import DIFFUSION, NAMES, default_device, kind_named, kind_of
from ric_diffusion.diffusion.backend import DiffusionBackend
from ric_diffusion.diffusion.pipeline import RiCStableDiffusionPipeline
from ric_diffusion.errors import InputError, suggest
from ric_diffusion.rewards import MAPPINGS


@contextmanager
def loading(model: str, field: str) -> Iterator[None]:
    """Whatever stops a model from being loaded in this block is one line of InputError."""
    if "/" not in model and model not in NAMES and not Path(model).exists():
        raise InputError(f"{field} {model}: no such folder or bundled model{suggest(model, NAMES)}")
    # Their bars count five files; what is being downloaded has a bar of its own.
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{field} {model}: cannot be loaded ({reason})") from error


def load_model(model: str, adapter: str | None, dtype: str = "float32") -> Any:
    """A bundled name, folder or hub id, of either kind, on the GPU if there is one."""
    with loading(model, "--model"):
        found = kind_named(model).load(model, default_device(), getattr(torch, dtype))
    if adapter:
        found.load_adapter(adapter)
    return found


def load_pipeline(
    model: str, adapter: str | None, dtype: str = "float32"
) -> RiCStableDiffusionPipeline:
    """``load_model`` where only pictures will do."""
    if kind_named(model) is not DIFFUSION:
        raise InputError(f"--model {model}: a language model; this needs one that makes pictures")
    pipe: RiCStableDiffusionPipeline = load_model(model, adapter, dtype)
    return pipe


def load_backend(model: str, adapter: str | None, dtype: str = "float32") -> DiffusionBackend:
    """A backend that samples pictures with an adapter, which there must be."""
    pipe = load_pipeline(model, adapter, dtype)
    require_adapter(pipe, model)
    pipe.set_progress_bar_config(disable=True)
    return DiffusionBackend(pipe)


def require_adapter(loaded: Any, model: str) -> None:
    """InputError if a model has no sliders."""
    if loaded.adapter is None:
        raise InputError(f"--model {model}: has no adapter of its own; give one with --adapter")


def check_mapping(mapping: str | None) -> None:
    """InputError for a name that is no mapping."""
    if mapping is not None and mapping not in MAPPINGS:
        raise InputError(f"--mapping {mapping}: unknown{suggest(mapping, MAPPINGS)}")


def sampling_of(loaded: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Arguments of sampling: what the adapter was validated with, unless the options say otherwise.
    InputError for an option that this kind of model does not have."""
    sampling: dict[str, Any] = dict(loaded.adapter.sampling) if loaded.adapter else {}
    kind = kind_of(loaded)
    for option in DIFFUSION.options:
        if (value := getattr(options, option)) is None:
            continue
        if option not in kind.options:
            raise InputError(f"--{option.replace('_', '-')}: language models have no such setting")
        sampling[kind.options[option]] = value
    return sampling
