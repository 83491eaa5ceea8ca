"""What the verbs that sample share: loading a model with its adapter."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from ric_diffusion.diffusion.backend import DiffusionBackend
from ric_diffusion.diffusion.pipeline import BUNDLED, RiCStableDiffusionPipeline, model_path
from ric_diffusion.errors import InputError, suggest


def load_pipeline(model: str, adapter: str | None) -> RiCStableDiffusionPipeline:
    """The pipeline of a bundled name, folder or hub id, on the GPU if there is one."""
    if "/" not in model and not Path(model_path(model)).exists():
        raise InputError(
            f"--model {model}: no such folder or bundled model{suggest(model, BUNDLED)}"
        )
    try:
        pipe = RiCStableDiffusionPipeline.from_pretrained(model)
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--model {model}: cannot be loaded ({reason})") from error
    if adapter:
        pipe.load_adapter(adapter)
    return pipe.to("cuda" if torch.cuda.is_available() else "cpu")


def load_backend(model: str, adapter: str | None) -> DiffusionBackend:
    """A backend that samples with an adapter, which there must be."""
    pipe = load_pipeline(model, adapter)
    if pipe.adapter is None:
        raise InputError(f"--model {model}: has no adapter of its own; give one with --adapter")
    pipe.set_progress_bar_config(disable=True)
    return DiffusionBackend(pipe)


def sampling_of(pipe: RiCStableDiffusionPipeline, options: argparse.Namespace) -> dict[str, Any]:
    """Pipeline arguments: what the adapter was validated with, unless the options say otherwise."""
    sampling: dict[str, Any] = dict(pipe.adapter.sampling) if pipe.adapter else {}
    if options.steps is not None:
        sampling["num_inference_steps"] = options.steps
    if options.guidance_scale is not None:
        sampling["guidance_scale"] = options.guidance_scale
    return sampling
