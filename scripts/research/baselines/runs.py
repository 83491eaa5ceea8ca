"""The training runs of a benchmark side by side in one folder, each made once.

OUT/NAME holds a run, and OUT/parts/NAME/run.json what it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ric_diffusion.io.errors import InputError
from ric_diffusion.io.run import RunFolder
from ric_diffusion.models.cost import COST, Cost

PARTS = "parts"


def of_seed(name: str, k: int) -> str:
    """The name of the run that is ``name`` but for its training seed, the ``k``-th from 0."""
    return f"{name}-seed{k}" if k else name


def due(out: Path, name: str, settings: Any, basis: str) -> bool:
    """Whether the run has still to be made, or finished; what it is is then in its run.json.

    That is known before the model is loaded, which a finished run need not be for. InputError if it
    was begun with other settings or on another ``basis``, a digest that stands for all else that
    goes in, such as data and model; and if there is a run of which that is not known.
    """
    mend = f"restore that, or remove both {name} and {PARTS}/{name} to make it anew"
    run = RunFolder(out / PARTS / name, "benchmark", mend=mend)
    if not run.begun and (out / name / COST).exists():
        raise InputError(
            f"{out / name}: holds a run, but {run.path} does not say of what; remove it to make it "
            "anew"
        )
    run.begin({"settings": settings, "basis": basis})
    return not (out / name / COST).exists()


def spent(out: Path, names: Iterable[str]) -> Cost:
    """What the runs of these names cost together."""
    costs = [json.loads((out / name / COST).read_text(encoding="utf-8")) for name in names]
    return sum(map(Cost.from_dict, costs), Cost())
