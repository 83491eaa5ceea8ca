"""The front of an evaluation: what a report found for each preference, to choose from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ric_diffusion.adapters.adapter import Adapter
from ric_diffusion.evaluation.calibration import calibration_digest
from ric_diffusion.evaluation.report.schema import METRICS_FILE, EvaluationResult, PointResult
from ric_diffusion.io.errors import InputError

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
    """The places of one method of a report, by a ``mapping`` from preference to targets."""

    model: str
    mapping: str | None
    places: Sequence[Place]

    @property
    def names(self) -> frozenset[str]:
        """Of the rewards."""
        return frozenset(self.places[0].obtained)


def read_front(folder: Path, adapter: Adapter) -> Front:
    """The first method of a report that has sliders and the adapter's calibration, else the first
    that has sliders. InputError if there is no such report, or it is about other rewards."""
    path, names = folder / METRICS_FILE, adapter.space.names
    if not path.exists():
        raise InputError(f"report {folder}: has no {METRICS_FILE}; make a report with {HOW}")
    try:
        result = EvaluationResult.load(path)
    except InputError as error:
        raise InputError(f"report {error}") from None
    found = [reward.name for reward in result.rewards]
    if set(found) != set(names):
        raise InputError(
            f"report {folder}: its rewards are {', '.join(found)}, the adapter's "
            f"{', '.join(names)}; give a report of this adapter"
        )
    # A report of --calibrate tells of the adapter without its calibration first.
    ours = calibration_digest(adapter)
    for method in sorted(
        result.methods, key=lambda method: method.about.get("calibration") != ours
    ):
        if places := [place for point in method.points if (place := _place(point, names))]:
            mapping = method.about.get("mapping")
            return Front(model=method.name, mapping=mapping, places=places)
    raise InputError(f"report {folder}: no method in it has sliders; give a report of an adapter")


def _place(point: PointResult, names: Sequence[str]) -> Place | None:
    """None for a point that no slider leads to, or where nothing could be scored."""
    obtained = {name: value for name in names if (value := point.obtained[name].value) is not None}
    if point.preference is None or len(obtained) < len(names):
        return None
    return Place(
        preference={name: point.preference.get(name, 0.0) for name in names},
        targets=point.targets,
        obtained=obtained,
        on_front=point.on_front,
    )
