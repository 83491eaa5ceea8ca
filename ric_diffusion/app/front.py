"""The front of an evaluation: what a report found for each preference, to choose from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ric_diffusion.commands.entrants import calibration_digest
from ric_diffusion.conditioning.adapter import BaseAdapter
from ric_diffusion.errors import InputError

METRICS = "metrics.json"
HOW = "ric evaluate --model MODEL --prompts FILE --out REPORT"


@dataclass(frozen=True, kw_only=True)
class Place:
    """A point of the preference sweep: what was asked, and the mean z obtained of each reward."""

    preference: Mapping[str, float]
    targets: Mapping[str, float]
    obtained: Mapping[str, float]
    on_front: bool


@dataclass(frozen=True, kw_only=True)
class Front:
    """The places of one model of a report, by a ``mapping`` from preference to targets."""

    model: str
    mapping: str | None
    places: Sequence[Place]


def read_front(folder: Path, adapter: BaseAdapter) -> Front:
    """The first model of a report that has sliders and the adapter's calibration, else the first
    that has sliders. InputError if there is no such report, or it is about other rewards."""
    path, names = folder / METRICS, adapter.space.names
    ours = calibration_digest(adapter)
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise InputError(f"--report {folder}: has no {METRICS}; make a report with {HOW}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"--report {folder}: {METRICS} is not valid JSON ({error})") from None
    try:
        found = [reward["name"] for reward in metrics["rewards"]]
        if set(found) != set(names):
            raise InputError(
                f"--report {folder}: its rewards are {', '.join(found)}, the adapter's "
                f"{', '.join(names)}; give a report of this adapter"
            )
        # A report of --calibrate tells of the adapter without its calibration first.
        for model in sorted(
            metrics["models"], key=lambda model: model["about"].get("calibration") != ours
        ):
            if places := [place for point in model["points"] if (place := _place(point, names))]:
                mapping = model["about"].get("mapping")
                return Front(model=str(model["name"]), mapping=mapping, places=places)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"--report {folder}: {METRICS} is malformed ({error!r})") from None
    raise InputError(f"--report {folder}: no model in it has sliders; give a report of an adapter")


def _place(point: Mapping[str, Any], names: Sequence[str]) -> Place | None:
    """None for a point that no slider leads to, or where nothing could be scored."""
    obtained = {name: point["obtained"][name]["value"] for name in names}
    if point["preference"] is None or None in obtained.values():
        return None
    return Place(
        preference={name: float(point["preference"].get(name, 0)) for name in names},
        targets={name: float(z) for name, z in point["targets"].items()},
        obtained={name: float(z) for name, z in obtained.items()},
        on_front=bool(point["on_front"]),
    )
