"""From parsed options to the arguments of ric_diffusion.api."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ric_diffusion import api
from ric_diffusion.api.values import COMMON, by_name

DEFAULT_MODEL = "emoji-64"


def checkpoint_of(options: argparse.Namespace) -> api.Checkpoint:
    """The model, with what else is said of it."""
    return api.Checkpoint(
        model=options.model or DEFAULT_MODEL,
        base_config=options.base_config,
        variant=options.variant,
        revision=options.revision,
    )


def rewards_of(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments about rewards that were given. InputError for a name given twice."""
    return {
        name: by_name(given, name)
        for name in ("preference", "targets", "negative_targets")
        if (given := getattr(options, name, None))  # not every verb has all three
    }


def sampling_of(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of sampling that were given."""
    return {name: value for name in COMMON if (value := getattr(options, name, None)) is not None}


def engine_of(options: argparse.Namespace) -> api.EngineConfig:
    """Where the work is done."""
    return api.EngineConfig(name=options.engine, address=options.address, workers=options.workers)


def quietly() -> api.ProgressCallback | None:
    """For verbs that are done in a moment: bars only where somebody sees them."""
    return None if sys.stderr.isatty() else lambda progress: None
