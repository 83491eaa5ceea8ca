"""Who takes part in ``ric evaluate``: adapters, calibrated or not, and the model alone."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ric_diffusion import config
from ric_diffusion.commands.kinds import kind_of
from ric_diffusion.commands.model import require_adapter, sampling_of
from ric_diffusion.conditioning.adapter import ABOUT_FILE, BaseAdapter
from ric_diffusion.diffusion.pipeline import ADAPTER_SUBFOLDER, model_path
from ric_diffusion.errors import InputError
from ric_diffusion.evaluation.subject import Point, Subject, by_targets, folder_of, slider_points
from ric_diffusion.files import digests
from ric_diffusion.rewards import RewardSpace

NONE = "none"  # the word for the model without adapter


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """One of those compared: an adapter with the folder of its weights, or the model alone.

    ``given``: how the user called it; ``name``: how the report does.
    """

    given: str
    name: str
    folder: Path | None
    adapter: BaseAdapter | None
    sampling: Mapping[str, Any]


def entrants_of(model: Any, options: argparse.Namespace) -> tuple[Entrant, list[Entrant]]:
    """The adapter whose reward space everything is measured in, and all that is compared.

    That adapter is the first one named, the model's own if none is. The model alone draws with its
    sampling arguments.
    """
    resolve = kind_of(model).resolve
    own = resolve(model_path(options.model), ADAPTER_SUBFOLDER) if model.adapter else None
    folders = {given: resolve(given) for given in options.adapter if given != NONE}
    if not folders:
        require_adapter(model, options.model)
    found = {given: _entrant(model, options, given, folder) for given, folder in folders.items()}
    measure = next(iter(found.values()), None)
    if measure is None:
        assert own is not None
        measure = _entrant(model, options, options.model, own)
    alone = Entrant(
        given=NONE, name="no adapter", folder=None, adapter=None, sampling=measure.sampling
    )
    entrants = [found.get(given, alone) for given in options.adapter]
    return measure, entrants or [measure]


def _entrant(model: Any, options: argparse.Namespace, given: str, folder: Path) -> Entrant:
    model.load_adapter(folder)
    return Entrant(
        given=given,
        name=name_of(given),
        folder=folder,
        adapter=model.adapter,
        sampling=sampling_of(model, options),
    )


def put(model: Any, entrant: Entrant) -> None:
    """The entrant's adapter, or none, becomes the model's."""
    if entrant.folder is None:
        model.unload_adapter()
    else:
        model.load_adapter(entrant.folder)
        model.adapter = entrant.adapter  # its calibration need not be the folder's


def name_of(given: str) -> str:
    """What the report calls an adapter: the run's name where the folder is only called adapter."""
    place = Path(given)
    parts = (place.resolve() if place.is_dir() else place).parts
    return [part for part in parts if part not in ("adapter", ADAPTER_SUBFOLDER)][-1]


def space_of(entrant: Entrant) -> RewardSpace:
    assert entrant.adapter is not None
    return entrant.adapter.space


def check_rewards(space: RewardSpace, measure: Entrant, entrants: Sequence[Entrant]) -> None:
    """InputError unless all adapters have the rewards of ``measure``, scored in one way."""
    for entrant in entrants:
        if entrant.adapter is None:
            continue
        other = entrant.adapter.space
        if set(other.names) != set(space.names):
            raise InputError(
                f"--adapter {entrant.given}: its rewards are {', '.join(other.names)}, those of "
                f"{measure.given} {', '.join(space.names)}; compare adapters with the same rewards"
            )
        for reward in space.rewards:
            theirs = other.rewards[other.names.index(reward.name)]
            if theirs.scorer != reward.scorer:
                raise InputError(
                    f"--adapter {entrant.given}: {reward.name} was scored with "
                    f"{theirs.scorer.get('options')}, in {measure.given} with "
                    f"{reward.scorer.get('options')}; compare adapters scored in one way"
                )


def subjects_of(
    model: Any,
    options: argparse.Namespace,
    entrants: Sequence[Entrant],
    base: Sequence[str],
) -> list[Subject]:
    """What is evaluated; each draws from ``model``, so its entrant has to be put there first.

    ``base``: digests of the model's parts.
    """
    subjects: list[Subject] = []
    for entrant in entrants:
        points, about = [Point()], {}
        if entrant.adapter is not None:
            mapping = options.mapping or entrant.adapter.mapping
            points = slider_points(entrant.adapter.space, mapping, options.points)
            about = {"mapping": mapping}
        name = unused(entrant.name, [subject.name for subject in subjects])
        subjects.append(subject_of(model, entrant, base, name=name, points=points, **about))
    return subjects


def subject_of(
    model: Any,
    entrant: Entrant,
    base: Sequence[str],
    *,
    name: str,
    points: Sequence[Point],
    **about: Any,
) -> Subject:
    """An entrant on these points; ``about``: what they depend on beside what it is."""
    sampler, adapter = kind_of(model).sampler(model, entrant.sampling), entrant.adapter
    about = {
        "adapter": entrant.given,
        "sampling": dict(entrant.sampling),
        "weights": config.digest([base, adapter_digests(entrant.folder)])[:16],
        **about,
    }
    if adapter is not None:
        about["mode"] = adapter.conditioner.mode
        if calibration := calibration_digest(adapter):
            about["calibration"] = calibration
    return Subject(
        name=name,
        points=points,
        draw=by_targets(sampler),
        sampler=sampler,
        space=adapter.space if adapter else None,
        about=about,
    )


def calibration_digest(adapter: BaseAdapter) -> str | None:
    """What a report calls the adapter's calibration; None without one."""
    if not adapter.calibration:
        return None
    return config.digest(adapter.about()["calibration"])[:16]


def adapter_digests(folder: Path | None) -> list[str]:
    """One digest for each file that an adapter's samples depend on; none for no adapter."""
    files = [*sorted(folder.glob("*.safetensors")), folder / ABOUT_FILE] if folder else []
    return digests(files)


def unused(name: str, names: Sequence[str]) -> str:
    """``name``, with a number if it, or what becomes of it as a folder, is taken."""
    taken = {folder_of(Path(), other) for other in names}
    number, found = 1, name
    while folder_of(Path(), found) in taken:
        number += 1
        found = f"{name} {number}"
    return found
