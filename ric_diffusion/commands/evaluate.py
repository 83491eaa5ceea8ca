"""``ric evaluate``: a model's adapters, or the model alone, measured and compared in one report."""

from __future__ import annotations

import argparse
import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

import scorers
from ric_diffusion import __version__, config
from ric_diffusion.commands.model import (
    check_mapping,
    load_pipeline,
    require_adapter,
    sampling_of,
)
from ric_diffusion.commands.paths import check_out_folder
from ric_diffusion.commands.train import base_digests
from ric_diffusion.data.prompts import read_prompts
from ric_diffusion.diffusion import pipeline
from ric_diffusion.diffusion.adapter import ABOUT_FILE, Adapter, resolve
from ric_diffusion.diffusion.pipeline import (
    ADAPTER_SUBFOLDER,
    RiCStableDiffusionPipeline,
    model_path,
)
from ric_diffusion.diffusion.sampler import DiffusionSampler
from ric_diffusion.errors import InputError
from ric_diffusion.evaluation.evaluate import evaluate
from ric_diffusion.evaluation.report import write_report
from ric_diffusion.evaluation.scoring import load_scorers
from ric_diffusion.evaluation.subject import (
    Point,
    Setup,
    Subject,
    by_targets,
    check_folder,
    folder_of,
    slider_points,
)
from ric_diffusion.evaluation.summary import summarise
from ric_diffusion.rewards import RewardSpace

NONE = "none"  # the word for the model without adapter
FIRST_SEED = 1001  # far from the small seeds that people try and train with
SOFTWARE = ("torch", "diffusers", "moocore", "numpy")


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """One of those compared: an adapter folder as it was given, or the model alone."""

    given: str
    folder: Path | None
    adapter: Adapter | None
    sampling: Mapping[str, Any]


def run(options: argparse.Namespace) -> None:
    check_mapping(options.mapping)
    check_out_folder(options.out)
    prompts = read_prompts(options.prompts)
    held_out = [scorers.load(spec) for spec in options.scorers]
    check_once("--adapter", options.adapter)
    check_once("--scorers", [scorer.name for scorer in held_out])
    process = PartialState(cpu=not torch.cuda.is_available())  # first: it picks the GPU
    pipe = load_pipeline(options.model, None)
    pipe.set_progress_bar_config(disable=True)
    measure, entrants = entrants_of(pipe, options)
    space = space_of(measure)
    check_rewards(space, measure, entrants)
    check_held_out(space, held_out)
    setup = Setup(
        space=space,
        prompts=prompts,
        seeds=range(FIRST_SEED, FIRST_SEED + options.seeds),
        scorers=load_scorers(space),
        held_out=held_out,
    )
    subjects = subjects_of(pipe, options, entrants)
    folders = [folder_of(options.out, subject.name) for subject in subjects]
    for subject, folder in zip(subjects, folders, strict=True):
        check_folder(subject, setup, folder)
    outcomes = []
    with unsaid():
        for entrant, subject, folder in zip(entrants, subjects, folders, strict=True):
            put(pipe, entrant.folder)
            outcomes.append(evaluate(subject, setup, folder))
    if process.is_main_process:
        versions = {"ric-diffusion": __version__} | {name: version(name) for name in SOFTWARE}
        metrics = summarise(outcomes, setup, options.out, model=options.model, versions=versions)
        write_report(metrics, options.out, subjects[0].sampler.read)
        print(options.out / "index.html")


def check_once(option: str, given: Sequence[str]) -> None:
    """InputError for a name given twice."""
    if twice := sorted({name for name in given if given.count(name) > 1}):
        raise InputError(f"{option}: {twice[0]} is given twice; name it once")


def entrants_of(
    pipe: RiCStableDiffusionPipeline, options: argparse.Namespace
) -> tuple[Entrant, list[Entrant]]:
    """The adapter whose reward space everything is measured in, and all that is compared.

    That adapter is the first one named, the model's own if none is. The model alone draws with its
    sampling arguments.
    """
    own = resolve(model_path(options.model), ADAPTER_SUBFOLDER) if pipe.adapter else None
    folders = {given: resolve(given) for given in options.adapter if given != NONE}
    if not folders:
        require_adapter(pipe, options.model)
    found = {given: _entrant(pipe, options, given, folder) for given, folder in folders.items()}
    measure = next(iter(found.values()), None) or _entrant(pipe, options, options.model, own)
    alone = Entrant(given=NONE, folder=None, adapter=None, sampling=measure.sampling)
    entrants = [found.get(given, alone) for given in options.adapter]
    return measure, entrants or [measure]


def _entrant(
    pipe: RiCStableDiffusionPipeline, options: argparse.Namespace, given: str, folder: Path | None
) -> Entrant:
    put(pipe, folder)
    return Entrant(
        given=given, folder=folder, adapter=pipe.adapter, sampling=sampling_of(pipe, options)
    )


def put(pipe: RiCStableDiffusionPipeline, folder: Path | None) -> None:
    """The adapter of this folder, or none, becomes the pipeline's."""
    if folder is None:
        pipe.unload_adapter()
    else:
        pipe.load_adapter(folder)


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


def check_held_out(space: RewardSpace, held_out: Sequence[Any]) -> None:
    """InputError for a scorer that the model was trained on."""
    for scorer in held_out:
        if scorer.name in space.names:
            raise InputError(
                f"--scorers: {scorer.name} is a reward of the adapter and reported in any case; "
                "name scorers it was not trained on"
            )


def subjects_of(
    pipe: RiCStableDiffusionPipeline, options: argparse.Namespace, entrants: Sequence[Entrant]
) -> list[Subject]:
    """What is evaluated; each draws from ``pipe``, so its adapter has to be put there first."""
    put(pipe, None)
    base = base_digests(pipe)
    subjects: list[Subject] = []
    for entrant in entrants:
        sampler = DiffusionSampler(pipe, entrant.sampling)
        about = {
            "adapter": entrant.given,
            "sampling": dict(entrant.sampling),
            "weights": config.digest([base, adapter_digests(entrant.folder)])[:16],
        }
        points, space = [Point()], None
        if entrant.adapter is not None:
            space = entrant.adapter.space
            mapping = options.mapping or entrant.adapter.mapping
            points = slider_points(space, mapping, options.points)
            about |= {"mode": entrant.adapter.conditioner.mode, "mapping": mapping}
        subject = Subject(
            name=unused(name_of(entrant, options.model), [s.name for s in subjects]),
            points=points,
            draw=by_targets(sampler),
            sampler=sampler,
            space=space,
            about=about,
        )
        subjects.append(subject)
    return subjects


def adapter_digests(folder: Path | None) -> list[str]:
    """One digest for each file that an adapter's samples depend on; none for no adapter."""
    files = [*sorted(folder.glob("*.safetensors")), folder / ABOUT_FILE] if folder else []
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]


def name_of(entrant: Entrant, model: str) -> str:
    """What the report calls it: the run's name where the folder is only called adapter."""
    if entrant.folder is None:
        return "no adapter"
    place = Path(entrant.given)
    parts = (place.resolve() if place.is_dir() else place).parts
    return [part for part in parts if part not in ("adapter", ADAPTER_SUBFOLDER)][-1]


def unused(name: str, names: Sequence[str]) -> str:
    """``name``, with a number if it, or what becomes of it as a folder, is taken."""
    taken = {folder_of(Path(), other) for other in names}
    number, found = 1, name
    while folder_of(Path(), found) in taken:
        number += 1
        found = f"{name} {number}"
    return found


@contextmanager
def unsaid() -> Iterator[None]:
    """A sweep asks for more than can be had on purpose; the pipeline need not say so each time."""
    log = logging.getLogger(pipeline.__name__)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
