"""``ric evaluate``: a model's adapters, or the model alone, measured and compared in one report."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import torch
from accelerate import PartialState

import scorers
from ric_diffusion import __version__
from ric_diffusion.commands.calibration import (
    SWEEP,
    calibrate,
    calibrated,
    check_calibrate,
    save,
    tell,
    uncalibrated,
)
from ric_diffusion.commands.entrants import (
    check_rewards,
    entrants_of,
    put,
    space_of,
    subjects_of,
)
from ric_diffusion.commands.kinds import DIFFUSION, kind_of
from ric_diffusion.commands.model import check_mapping, load_model
from ric_diffusion.commands.paths import check_out_folder
from ric_diffusion.data.prompts import read_prompts
from ric_diffusion.diffusion import pipeline
from ric_diffusion.errors import InputError
from ric_diffusion.evaluation.evaluate import evaluate
from ric_diffusion.evaluation.report import write_report
from ric_diffusion.evaluation.scoring import load_scorers
from ric_diffusion.evaluation.subject import Setup, check_folder, folder_of
from ric_diffusion.evaluation.summary import summarise
from ric_diffusion.rewards import RewardSpace
from ric_diffusion.training.loop import leave

FIRST_SEED = 1001  # far from the small seeds that people try and train with
SOFTWARE = ("moocore", "numpy")  # beside that of the kind of model


def run(options: argparse.Namespace) -> None:
    check_mapping(options.mapping)
    check_out_folder(options.out)
    prompts = read_prompts(options.prompts)
    others = read_prompts(options.calibration_prompts) if options.calibration_prompts else prompts
    held_out = [scorers.load(spec) for spec in options.scorers]
    check_once("--adapter", options.adapter)
    check_once("--scorers", [scorer.name for scorer in held_out])
    if options.calibrate:
        check_calibrate(options.adapter, options.out)
    elif options.calibration_prompts:
        raise InputError("--calibration-prompts: goes with --calibrate; add that, or leave it out")
    process = PartialState(cpu=not torch.cuda.is_available())  # first: it picks the GPU
    model = load_model(options.model, None, options.dtype)
    kind = kind_of(model)
    if kind is DIFFUSION:
        model.set_progress_bar_config(disable=True)
    measure, entrants = entrants_of(model, options)
    space = space_of(measure)
    check_rewards(space, measure, entrants)
    check_held_out(space, held_out)
    model.unload_adapter()
    base = kind.digests(model)
    setup = Setup(
        space=space,
        prompts=prompts,
        seeds=range(FIRST_SEED, FIRST_SEED + options.seeds),
        scorers=load_scorers(space),
        held_out=[*held_out, *kind.held_out(model, base, measure.sampling)],
    )
    if options.calibrate:
        entrants = [uncalibrated(measure)]
    subjects = subjects_of(model, options, entrants, base)
    for subject in subjects:
        check_folder(subject, setup, folder_of(options.out, subject.name))
    calibration = None
    with unsaid():
        if options.calibrate:
            calibration = calibrate(
                model,
                entrants[0],
                base,
                replace(setup, prompts=others),
                options.out / SWEEP,
                points=options.points,
                seeds=options.seeds,
            )
            if calibration.curves:
                entrants.append(calibrated(entrants[0], calibration.curves))
                subjects = subjects_of(model, options, entrants, base)
                if process.is_main_process:
                    save(model, entrants[1], options.out)
        outcomes = []
        for entrant, subject in zip(entrants, subjects, strict=True):
            put(model, entrant)
            outcomes.append(evaluate(subject, setup, folder_of(options.out, subject.name)))
    if process.is_main_process:
        software = (*kind.software, *SOFTWARE)
        versions = {"ric-diffusion": __version__} | {name: version(name) for name in software}
        metrics = summarise(
            outcomes,
            setup,
            options.out,
            model=options.model,
            versions=versions,
            calibration=calibration,
        )
        write_report(metrics, options.out, subjects[0].sampler.read)
        if calibration is not None:
            tell(calibration, space, options.out)
        print(options.out / "index.html")
    leave(process)


def check_once(option: str, given: Sequence[str]) -> None:
    """InputError for a name given twice."""
    if twice := sorted({name for name in given if given.count(name) > 1}):
        raise InputError(f"{option}: {twice[0]} is given twice; name it once")


def check_held_out(space: RewardSpace, held_out: Sequence[Any]) -> None:
    """InputError for a scorer that the model was trained on."""
    for scorer in held_out:
        if scorer.name in space.names:
            raise InputError(
                f"--scorers: {scorer.name} is a reward of the adapter and reported in any case; "
                "name scorers it was not trained on"
            )


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
