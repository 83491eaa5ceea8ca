"""What a command is to read, checked before the command is imported: nobody waits for a model to be
told of a mistyped path."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from ric_diffusion.api.paths import check_adapter, check_file, check_folder, check_model
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.paths import expanded, is_path

FILES = (
    "prompts",
    "like",
    "init_image",
    "calibration_prompts",
    "statistics",
)  # options that name one
FOLDERS = ("labelled", "report", "root")
NO_ADAPTER = "none"  # of ric evaluate: the model alone


def check_inputs(options: argparse.Namespace) -> None:
    """InputError for a file or folder that is named and not there."""
    for name in FILES:
        for path in _given(options, name):
            check_file(name, path)
    for name in FOLDERS:
        for path in _given(options, name):
            check_folder(name, path)
    for model in _given(options, "model"):
        check_model(model)
    for config in filter(is_path, _given(options, "base_config")):
        check_model(config, "base_config")
    for adapter in _given(options, "adapter"):
        if adapter != NO_ADAPTER:
            check_adapter(adapter)
    sources = filter(_is_here, _given(options, "folder"))
    for path in (*_given(options, "config"), *_given(options, "paths"), *sources):
        if not expanded(path).exists():
            raise InputError(f"{path}: no such file or folder")


def _is_here(source: str) -> bool:
    """Whether the folder or shards to label are named by one path: not by a pattern, not by an
    address."""
    return not re.search(r"://|[{}*]", source)


def _given(options: argparse.Namespace, name: str) -> list[Any]:
    """All values of an option; none where it was left out, or where a command has it not."""
    value: str | Path | list[Any] | None = getattr(options, name, None)
    return value if isinstance(value, list) else [] if value is None else [value]
