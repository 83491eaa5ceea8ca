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

from ric_diffusion.diffusion.backend import DiffusionBackend
from ric_diffusion.diffusion.pipeline import BUNDLED, RiCStableDiffusionPipeline, model_path
from ric_diffusion.errors import InputError, suggest
from ric_diffusion.rewards import MAPPINGS


@contextmanager
def loading(model: str, field: str) -> Iterator[None]:
    """Whatever stops a model from being loaded in this block is one line of InputError."""
    if "/" not in model and not Path(model_path(model)).exists():
        raise InputError(
            f"{field} {model}: no such folder or bundled model{suggest(model, BUNDLED)}"
        )
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


def load_pipeline(model: str, adapter: str | None) -> RiCStableDiffusionPipeline:
    """The pipeline of a bundled name, folder or hub id, on the GPU if there is one."""
    with loading(model, "--model"):
        pipe = RiCStableDiffusionPipeline.from_pretrained(model)
    if adapter:
        pipe.load_adapter(adapter)
    return pipe.to("cuda" if torch.cuda.is_available() else "cpu")


def load_backend(model: str, adapter: str | None) -> DiffusionBackend:
    """A backend that samples with an adapter, which there must be."""
    pipe = load_pipeline(model, adapter)
    require_adapter(pipe, model)
    pipe.set_progress_bar_config(disable=True)
    return DiffusionBackend(pipe)


def require_adapter(pipe: RiCStableDiffusionPipeline, model: str) -> None:
    """InputError if the pipeline has no sliders."""
    if pipe.adapter is None:
        raise InputError(f"--model {model}: has no adapter of its own; give one with --adapter")


def check_mapping(mapping: str | None) -> None:
    """InputError for a name that is no mapping."""
    if mapping is not None and mapping not in MAPPINGS:
        raise InputError(f"--mapping {mapping}: unknown{suggest(mapping, MAPPINGS)}")


def sampling_of(pipe: RiCStableDiffusionPipeline, options: argparse.Namespace) -> dict[str, Any]:
    """Pipeline arguments: what the adapter was validated with, unless the options say otherwise."""
    sampling: dict[str, Any] = dict(pipe.adapter.sampling) if pipe.adapter else {}
    given = {
        "num_inference_steps": options.steps,
        "guidance_scale": options.guidance_scale,
        "contrast": options.contrast,
        "prompt_guidance": options.prompt_guidance,
    }
    return sampling | {key: value for key, value in given.items() if value is not None}
