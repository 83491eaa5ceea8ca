"""Training runs side by side in one folder, each done once: NAME.yaml says how, NAME/ holds it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from ric_diffusion import config
from ric_diffusion.cost import COST, Cost
from ric_diffusion.errors import InputError
from ric_diffusion.files import write_text


def due(out: Path, name: str, settings: Any, basis: str) -> bool:
    """Whether the run has still to be made, or finished; its settings are then in NAME.yaml.

    InputError if it was begun with other settings or on another ``basis``, one word that stands for
    all else that goes in, such as data and model.
    """
    recipe, folder = out / f"{name}.yaml", out / name
    text = f"# of {basis}\n" + yaml.safe_dump(config.to_dict(settings), sort_keys=False)
    if recipe.exists() and recipe.read_text(encoding="utf-8") != text:
        raise InputError(
            f"{recipe}: begun with other settings or data; restore those, or delete it and {folder}"
        )
    write_text(recipe, text)
    return not (folder / COST).exists()


def spent(out: Path, names: Iterable[str]) -> Cost:
    """What the runs of these names cost together."""
    costs = [json.loads((out / name / COST).read_text(encoding="utf-8")) for name in names]
    return sum(map(Cost.from_dict, costs), Cost())
