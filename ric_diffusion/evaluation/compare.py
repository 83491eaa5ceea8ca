"""Adapters of one model, calibrated or not, and the model alone, measured in one report.

A report's folder holds, beside what ``report.write`` writes, methods/ with the samples; after a
calibration also calibration/ with the samples of its two sweeps, and adapter/ with the adapter that
carries its curves.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from ric_diffusion import __version__
from ric_diffusion.adapters.adapter import Adapter, adapter_digests
from ric_diffusion.data.scoring import is_installed, load_scorers
from ric_diffusion.evaluation.calibration import (
    Calibration,
    calibration_digest,
    curves_of,
    on_average,
    with_prompts,
)
from ric_diffusion.evaluation.config import EvaluationConfig
from ric_diffusion.evaluation.grid import Point, level_points, range_points, slider_points
from ric_diffusion.evaluation.method import Method, by_targets
from ric_diffusion.evaluation.refine import by_refinement, check_passes, check_refine
from ric_diffusion.evaluation.report.schema import EvaluationResult
from ric_diffusion.evaluation.report.summary import summarise
from ric_diffusion.evaluation.report.write import write_report
from ric_diffusion.evaluation.runner import (
    VERB,
    MethodScores,
    check_folder,
    evaluate,
    evaluate_methods,
    folder_of,
)
from ric_diffusion.io import config
from ric_diffusion.io.engines import HERE, Workers
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.progress import tracking
from ric_diffusion.io.run import RunFolder
from ric_diffusion.models.cost import Cost, Meter
from ric_diffusion.models.family import ADAPTER_SUBFOLDER, model_path
from ric_diffusion.models.hardware import this_process
from ric_diffusion.rewards import Curve, RewardSpace
from ric_diffusion.rewards.prompt_effect import LEAST_PROMPTS
from ric_diffusion.rewards.space import WITHIN

NONE = "none"  # the word for the model without adapter
FIRST_SEED = 1001  # far from the small seeds that people try and train with
CALIBRATION_SEED = 1_000_001  # no report has so many seeds that it would come to these
SWEEPS, ADAPTER = "calibration", "adapter"  # below a report's folder
COARSE, FINE = "coarse", "fine"  # below SWEEPS
COARSELY = 0.25  # of the prompts tell where the fine sweep's requests should lie
SOFTWARE = ("moocore", "numpy")  # beside that of the model's family

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class AdapterChoice:
    """An adapter that a user chose, or the model alone.

    Attributes:
        given: how the user called it.
        name: how the report does.
        folder: of the weights; None, as ``adapter`` is, for the model alone.
        adapter: as it is measured: its calibration need not be the folder's.
        sampling: the arguments of sampling.
    """

    given: str
    name: str
    folder: Path | None
    adapter: Adapter | None
    sampling: Mapping[str, Any]

    @property
    def plain(self) -> dict[str, Any]:
        """Plain data, of which ``choice_of`` makes the same in another process."""
        return {
            "given": self.given,
            "folder": None if self.folder is None else str(self.folder.absolute()),
            "calibration": config.to_dict(self.adapter.calibration) if self.adapter else {},
            "sampling": dict(self.sampling),
        }

    def load_into(self, model: Any) -> None:
        """The adapter, or none, becomes the model's."""
        model.unload_adapter()
        if self.folder is not None:
            model.load_adapter(self.folder)
            model.adapter = self.adapter


def evaluate_adapters(
    model: Any,
    name: str,
    adapters: Sequence[str],
    *,
    prompts: Sequence[str],
    points: int = 11,
    seeds: int = 4,
    scorers: Sequence[Any] = (),
    mapping: str | None = None,
    refine: int | None = None,
    sampling: Mapping[str, Any] | None = None,
    revision: str | None = None,
    out: Path,
    workers: Workers = HERE,
) -> EvaluationResult:
    """Measure adapters of one model on the same prompts and write a report. On several processes,
    all of them call it.

    Args:
        model: as it was loaded by its ``name``, with its own adapter if it has one. Afterwards it
            has the last one measured.
        adapters: folders or hub ids; "none" is the model alone. By default the model's own.
        prompts: each is drawn with so many ``seeds``.
        points: how many preferences are swept, and how many targets of each reward.
        scorers: more scorers, which no adapter was trained on; and those of rewards, where they
            are not installed.
        mapping: from preferences to targets, by default each adapter's own.
        refine: each adapter is measured once more, refined in so many passes.
        sampling: arguments of sampling; those left out are each adapter's own.
        revision: of the model, if it is on the hub.
        out: the report's folder. What an interrupted call left there is gone on with.
        workers: who draws, scores and judges.

    InputError for what cannot be compared, before anything is written.
    """
    measure, choices = choose(model, name, adapters, sampling or {}, revision)
    check_rewards(measure, choices)
    shared, base = shared_config(model, measure, prompts, seeds, scorers)
    if refine is not None:
        refine = check_passes(refine)
        check_refine(shared.space, shared.space.names, shared.scorers)
    methods = methods_of(
        model, choices, base, points=points, mapping=mapping, refine=refine, scorers=shared.scorers
    )
    scores = evaluate_methods(methods, shared, out, workers)
    return publish(model, name, methods, scores, shared, out)


def calibrate_adapter(
    model: Any,
    name: str,
    adapters: Sequence[str],
    *,
    prompts: Sequence[str],
    calibration_prompts: Sequence[str] | None = None,
    points: int = 11,
    seeds: int = 4,
    scorers: Sequence[Any] = (),
    mapping: str | None = None,
    sampling: Mapping[str, Any] | None = None,
    revision: str | None = None,
    out: Path,
    workers: Workers = HERE,
) -> EvaluationResult:
    """Measure how far the samples of one adapter miss their targets, write to OUT/adapter one that
    corrects for it, and compare the two in a report.

    ``calibration_prompts``: what to calibrate on, with other seeds than the report's; by default
    the same prompts. Other arguments are those of ``evaluate_adapters``.
    """
    check_calibrate(adapters, out)
    measure, _ = choose(model, name, adapters, sampling or {}, revision)
    shared, base = shared_config(model, measure, prompts, seeds, scorers)
    plain = uncalibrated(measure)
    methods = methods_of(model, [plain], base, points=points, mapping=mapping)
    check_folder(methods[0], shared, folder_of(out, methods[0].name))
    asked = prompts if calibration_prompts is None else calibration_prompts
    if not asked:
        raise InputError("calibration_prompts: none there; give one or more")
    others = replace(shared, prompts=asked)
    calibration = calibrate(
        model, plain, base, others, out / SWEEPS, points=points, workers=workers
    )
    state = this_process()
    if state.is_main_process:
        for reward in shared.space.names:
            if reward not in calibration.curves:
                _log.warning(
                    "%s: scores do not rise with the target; this reward is left uncalibrated",
                    reward,
                )
    if calibration.curves:
        choices = [plain, calibrated(plain, calibration.curves)]
        if state.is_main_process and not (out / ADAPTER).exists():
            # One that is there came of the same sweep and is kept.
            choices[1].load_into(model)
            model.save_adapter(out / ADAPTER)
        if any(curve.prompt for curve in calibration.curves.values()):
            calibration = replace(calibration, average=len(choices))
            choices.append(
                calibrated(plain, on_average(calibration.curves), "calibrated on average")
            )
        methods = methods_of(model, choices, base, points=points, mapping=mapping)
    scores = evaluate_methods(methods, shared, out, workers)
    return publish(model, name, methods, scores, shared, out, calibration)


def choose(
    model: Any,
    name: str,
    adapters: Sequence[str],
    sampling: Mapping[str, Any],
    revision: str | None = None,
) -> tuple[AdapterChoice, list[AdapterChoice]]:
    """The adapter whose reward space everything is measured in, and all that is compared.

    That adapter is the first one named, the model's own if none is. The model alone draws with its
    sampling arguments. InputError without any adapter, or for one that the model cannot have.
    """
    check_once("adapter", adapters)
    fetch = model.family.fetch_adapter
    own = None
    if model.adapter is not None:
        own = fetch(model_path(name), ADAPTER_SUBFOLDER, revision=revision)
    folders = {given: fetch(given) for given in adapters if given != NONE}
    if not folders and own is None:
        raise InputError(f"model {name}: has no adapter of its own; give one")
    found = {given: _choice(model, given, place, sampling) for given, place in folders.items()}
    measure = next(iter(found.values()), None)
    if measure is None:
        assert own is not None
        measure = _choice(model, name, own, sampling)
    alone = _alone(measure.sampling)
    return measure, [found.get(given, alone) for given in adapters] or [measure]


def _choice(model: Any, given: str, folder: Path, sampling: Mapping[str, Any]) -> AdapterChoice:
    """An adapter, once it was seen to fit the model; ``sampling`` goes before its own."""
    model.load_adapter(folder)
    return AdapterChoice(
        given=given,
        name=name_of(given),
        folder=folder,
        adapter=model.adapter,
        sampling=model.family.merged(model.adapter.sampling, sampling),
    )


def choice_of(model: Any, plain: Mapping[str, Any]) -> AdapterChoice:
    """What was chosen in another process, of its ``plain`` data."""
    sampling = plain["sampling"]
    if plain["folder"] is None:
        return _alone(sampling)
    found = _choice(model, plain["given"], Path(plain["folder"]), sampling)
    assert found.adapter is not None
    curves = config.from_dict(plain["calibration"], dict[str, Curve], "calibration")
    return replace(found, adapter=replace(found.adapter, calibration=curves))


def _alone(sampling: Mapping[str, Any]) -> AdapterChoice:
    """The model without an adapter."""
    return AdapterChoice(
        given=NONE, name="no adapter", folder=None, adapter=None, sampling=sampling
    )


def name_of(given: str) -> str:
    """What the report calls an adapter: the run's name where the folder is only called adapter."""
    place = Path(given)
    parts = (place.resolve() if place.is_dir() else place).parts
    return [part for part in parts if part not in (ADAPTER, ADAPTER_SUBFOLDER)][-1]


def space_of(choice: AdapterChoice) -> RewardSpace:
    """The reward space of a choice that is an adapter."""
    assert choice.adapter is not None
    return choice.adapter.space


def check_once(field: str, given: Sequence[str]) -> None:
    """InputError for a name given twice."""
    if twice := sorted({name for name in given if given.count(name) > 1}):
        raise InputError(f"{field}: {twice[0]} is given twice; name it once")


def check_rewards(measure: AdapterChoice, choices: Sequence[AdapterChoice]) -> None:
    """InputError unless all adapters have the rewards of ``measure``, scored in one way."""
    space = space_of(measure)
    for choice in choices:
        if choice.adapter is None:
            continue
        other = choice.adapter.space
        if set(other.names) != set(space.names):
            raise InputError(
                f"adapter {choice.given}: its rewards are {', '.join(other.names)}, those of "
                f"{measure.given} {', '.join(space.names)}; compare adapters with the same rewards"
            )
        for reward in space.rewards:
            theirs = other.rewards[other.names.index(reward.name)]
            if theirs.scorer != reward.scorer:
                raise InputError(
                    f"adapter {choice.given}: {reward.name} was scored with "
                    f"{theirs.scorer.get('options')}, in {measure.given} with "
                    f"{reward.scorer.get('options')}; compare adapters scored in one way"
                )
            if bool(theirs.centring) != bool(reward.centring):
                how = ["among all samples", WITHIN]
                raise InputError(
                    f"adapter {choice.given}: {reward.name} was compared "
                    f"{how[bool(theirs.centring)]}, in {measure.given} "
                    f"{how[bool(reward.centring)]}; compare adapters of one --centre-by"
                )


def scores_reward(scorer: Any, space: RewardSpace) -> bool:
    """Whether a scorer that was given is that of a reward, which is not installed here."""
    if scorer.name not in space.names:
        return False
    stored = space.rewards[space.names.index(scorer.name)].scorer
    return bool(stored) and not is_installed(stored["name"])


def check_held_out(space: RewardSpace, scorers: Sequence[Any]) -> None:
    """InputError for a scorer named twice, or that the model was trained on."""
    check_once("scorers", [scorer.name for scorer in scorers])
    for scorer in scorers:
        if scorer.name in space.names:
            raise InputError(
                f"scorers: {scorer.name} is a reward of the adapter and reported in any case; "
                "name scorers it was not trained on"
            )


def check_calibrate(adapters: Sequence[str], out: Path) -> None:
    """InputError unless one adapter is to be calibrated, and nothing is lost by writing it."""
    if len(adapters) > 1 or NONE in adapters:
        raise InputError(
            f"--calibrate: one adapter is calibrated at a time; give it alone with --adapter, not "
            f"{', '.join(adapters)}"
        )
    if os.path.lexists(out / ADAPTER) and not RunFolder(out / SWEEPS / COARSE, VERB).begun:
        raise InputError(
            f"out {out}: holds an adapter already, which --calibrate would write over; choose "
            "another"
        )


def shared_config(
    model: Any,
    measure: AdapterChoice,
    prompts: Sequence[str],
    seeds: int,
    scorers: Sequence[Any],
) -> tuple[EvaluationConfig, list[str]]:
    """What all methods are measured by, and the digests of the model without adapter, which it is
    left as."""
    space, family = space_of(measure), model.family
    own = [one for one in scorers if scores_reward(one, space)]
    others = [one for one in scorers if one not in own]
    check_held_out(space, others)
    for scorer in others:
        medium = getattr(scorer, "medium", family.medium.name)
        if medium != family.medium.name:
            raise InputError(
                f"scorers: {scorer.name} scores {medium}s, and {family.title} make "
                f"{family.medium.plural}; leave it out"
            )
    model.unload_adapter()
    base = family.digests(model)
    shared = EvaluationConfig(
        space=space,
        prompts=prompts,
        seeds=range(FIRST_SEED, FIRST_SEED + seeds),
        scorers=load_scorers(space, given=own),
        held_out=[*others, *family.held_out(model, base, measure.sampling)],
    )
    return shared, base


def methods_of(
    model: Any,
    choices: Sequence[AdapterChoice],
    base: Sequence[str],
    *,
    points: int,
    mapping: str | None,
    refine: int | None = None,
    scorers: Sequence[Any] = (),
) -> list[Method]:
    """A method for each, of another name; with ``refine`` a second one for each adapter, refined in
    so many passes by the ``scorers`` of its rewards. ``base``: digests of the model's parts."""
    methods: list[Method] = []
    for choice, passes in product(choices, (None,) if refine is None else (None, refine)):
        asked, about = [Point()], {}
        if choice.adapter is not None:
            about = {"mapping": mapping or choice.adapter.mapping}
            asked = slider_points(choice.adapter.space, about["mapping"], points)
        elif passes is not None:
            continue
        name = choice.name if passes is None else f"{choice.name}, refine {passes}"
        methods.append(
            method_of(
                model,
                choice,
                base,
                name=unused(name, [method.name for method in methods]),
                points=asked,
                refine=passes,
                scorers=scorers,
                **about,
            )
        )
    return methods


def method_of(
    model: Any,
    choice: AdapterChoice,
    base: Sequence[str],
    *,
    name: str,
    points: Sequence[Point],
    refine: int | None = None,
    scorers: Sequence[Any] = (),
    **about: Any,
) -> Method:
    """An adapter, or the model alone, on these points; ``about``: what they depend on beside what
    it is. An adapter may be refined in so many passes by the ``scorers`` of its rewards."""
    adapter, sampler = choice.adapter, model.family.sampler(model, choice.sampling)
    files = adapter_digests(choice.folder) if choice.folder else []
    about = {
        "adapter": choice.given,
        "sampling": dict(choice.sampling),
        "weights": config.digest([base, files])[:16],
        **about,
    }
    if adapter is not None:
        about["mode"] = adapter.conditioner.mode
        if calibration := calibration_digest(adapter):
            about["calibration"] = calibration
    draw = by_targets(sampler, model.adapters_for if adapter is not None else None)
    meter = Meter()
    if refine is not None:
        draw = by_refinement(model, sampler, meter.metered(scorers), refine)
        about["refine"] = refine
    return Method(
        name=name,
        points=points,
        draw=draw,
        sampler=sampler,
        space=adapter.space if adapter else None,
        about=about,
        meter=meter,
        elsewhere={**choice.plain, "refine": refine},
        prepare=partial(choice.load_into, model),
    )


def unused(name: str, names: Sequence[str]) -> str:
    """``name``, with a number if it, or what becomes of it as a folder, is taken."""
    taken = {folder_of(Path(), other) for other in names}
    number, found = 1, name
    while folder_of(Path(), found) in taken:
        number += 1
        found = f"{name} {number}"
    return found


def uncalibrated(choice: AdapterChoice) -> AdapterChoice:
    """The adapter without the curves it may have."""
    assert choice.adapter is not None
    return replace(choice, adapter=replace(choice.adapter, calibration={}))


def calibrated(
    choice: AdapterChoice, curves: Mapping[str, Curve], name: str = "calibrated"
) -> AdapterChoice:
    """The adapter with these curves, which hold for the sampling they were measured with."""
    assert choice.adapter is not None
    adapter = replace(choice.adapter, calibration=curves, sampling=choice.sampling)
    return replace(choice, name=name, adapter=adapter)


def calibrate(
    model: Any,
    choice: AdapterChoice,
    base: Sequence[str],
    shared: EvaluationConfig,
    out: Path,
    *,
    points: int,
    workers: Workers,
) -> Calibration:
    """Sweep an uncalibrated adapter, each reward over so many points, and fit; the samples go to
    the folder ``out``. Prompts and the number of seeds are those of ``shared``, the seeds are not.

    A first sweep over a few of the prompts, evenly spaced, places the requests of the second, whose
    means the curves go through: what is obtained may jump between two evenly spaced requests. What
    its prompts change of the curves is fitted where there are prompts enough.
    """
    space = space_of(choice)
    seeds = range(CALIBRATION_SEED, CALIBRATION_SEED + len(shared.seeds))
    few = shared.prompts[: math.ceil(COARSELY * len(shared.prompts))]

    def sweep(name: str, points: list[Point], **drawn: Any) -> tuple[MethodScores, Cost]:
        method = method_of(model, choice, base, name=f"{SWEEPS}, {name}", points=points)
        config = replace(shared, held_out=(), **drawn)
        found = evaluate(method, config, out / name, workers)
        scored = Cost(scored=found.scores.size)  # judging is part of it
        return found, found.cost + scored

    even, first = range_points(space, points), [CALIBRATION_SEED - 1]
    coarse, coarse_cost = sweep(COARSE, even, prompts=few, seeds=first)
    level = level_points(space, curves_of(coarse, space), points)
    fine, fine_cost = sweep(FINE, level, seeds=seeds)
    curves = curves_of(fine, space)
    cost = coarse_cost + fine_cost
    if curves and len(shared.prompts) >= LEAST_PROMPTS:
        features, spent = features_of(model, shared.prompts)
        curves, cost = with_prompts(curves, fine, space, features), cost + spent
    return Calibration(curves=curves, prompts=shared.prompts, seeds=seeds, cost=cost)


def features_of(model: Any, prompts: Sequence[str]) -> tuple[np.ndarray, Cost]:
    """What calibration may know Q prompts by, (Q, D), of the model with the adapter that is
    calibrated, and what that cost."""
    meter, rows = Meter(), []
    progress = tracking(f"{SWEEPS}, prompts", len(prompts), unit="prompt")
    with progress as tracker, meter.running(model.family.sampler(model).network()):
        for prompt in prompts:
            rows.append(model.prompt_features([prompt])[0])
            tracker.advance()
    return np.array(rows), meter.read()


def publish(
    model: Any,
    name: str,
    methods: Sequence[Method],
    scores: Sequence[MethodScores],
    shared: EvaluationConfig,
    out: Path,
    calibration: Calibration | None = None,
) -> EvaluationResult:
    """The result, the same on every process; one of them writes the report."""
    software = (*model.family.software, *SOFTWARE)
    versions = {"ric-diffusion": __version__} | {name: version(name) for name in software}
    result = summarise(scores, shared, out, model=name, versions=versions, calibration=calibration)
    state = this_process()
    if state.is_main_process:
        write_report(result, out, methods[0].sampler.medium)
    state.wait_for_everyone()
    return result
