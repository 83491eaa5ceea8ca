"""The scorers of a reward space, applied to finished samples."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import numpy as np

import scorers
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.hub import hurry
from ric_diffusion.rewards import RewardSpace, checks
from scorers import Scorer, ScorerError, WeightsError
from scorers.base import first_line
from scorers.loading import factory_of

Item = TypeVar("Item")
Scored = TypeVar("Scored")

_log = logging.getLogger(__name__)
_kept: ContextVar[dict[str, Scorer] | None] = ContextVar("kept_scorers", default=None)


@contextmanager
def keeping_scorers(kept: dict[str, Scorer]) -> Iterator[None]:
    """Inside the block ``load_scorers`` makes each scorer once, and finds it in ``kept`` again: its
    weights take seconds to load, and who serves requests needs them for each."""
    token = _kept.set(kept)
    try:
        yield
    finally:
        _kept.reset(token)


def load_scorers(
    space: RewardSpace, *, required: bool = True, given: Sequence[Scorer] = ()
) -> list[Scorer]:
    """One scorer per reward, rebuilt as it was when the training data was labelled; a warning for
    each that does not score as it did then. InputError if the space does not know one, and for one
    that is not installed and not among those ``given``, which score the rewards of their names.

    Unless they are ``required``, those that are not installed, whose weights cannot be fetched
    here, or whose server does not answer, give NaN, with a warning: sliders need no scores. A
    server on another machine is asked only if the user's environment names it, since the space may
    be somebody else's. For the same reason it can name no file with a scorer.
    """
    found: list[Scorer] = []
    own = {scorer.name: scorer for scorer in given}
    for reward in space.rewards:
        if not reward.scorer:
            raise InputError(f"{reward.name}: the reward space does not say how it was scored")
        stored = checks.scorer(reward.scorer, f"{reward.name}: scorer")
        spec, options = stored["name"], stored.get("options", {})
        try:
            if reward.name in own:
                scorer = own[reward.name]
            else:
                _check_installed(spec, reward.name)
                scorers.check_consent(spec, options, where=reward.name)
                for model in scorers.named_models(spec, options):
                    _log.info(
                        "%s: its scorer reads %s, which the adapter or labelled folder names; it "
                        "is fetched from the hub unless it is on this machine",
                        reward.name,
                        model,
                    )
                scorer = _loaded(spec, options)
        except (WeightsError, NotInstalled) as error:
            if required:
                raise
            scorer = _stand_in(error, spec, options)
        known = scorer.fingerprint and reward.fingerprint  # a stand-in has none
        if known and scorer.fingerprint != reward.fingerprint:
            _log.warning(
                "%s: scores may differ from those of training: now %s, then %s",
                reward.name,
                scorer.fingerprint,
                reward.fingerprint,
            )
        found.append(scorer)
    return found


def _loaded(spec: str, options: Mapping[str, Any]) -> Scorer:
    _hurry_for(spec)
    kept = _kept.get()
    if kept is None:
        return scorers.load(spec, **options)
    key = json.dumps([spec, options], sort_keys=True)
    if key not in kept:
        kept[key] = scorers.load(spec, **options)
    return kept[key]


class NotInstalled(InputError):
    """A reward was scored by what is not installed here."""


def _check_installed(spec: str, reward: str) -> None:
    """NotInstalled for a reward whose scorer is not."""
    if not is_installed(spec):
        raise NotInstalled(
            f"{reward}: no scorer of that name is installed; install its package, or give "
            f"FILE.py:CLASS, with --scorers of `ric evaluate` or as scorers in the config of `ric "
            f"online`"
        )


def is_installed(spec: str) -> bool:
    """Whether ``scorers.load`` knows what a reward space says of a scorer."""
    return spec.partition(":")[0].strip() in scorers.available()


def load_named(specs: Sequence[str]) -> Sequence[Scorer]:
    """Scorers as a person named them; what workers elsewhere make of them."""
    return [load_given(spec) for spec in specs]


def load_given(spec: str) -> Scorer:
    """A scorer as a person named it."""
    _hurry_for(spec)
    return scorers.load_given(spec)


def _hurry_for(spec: str) -> None:
    """Before a scorer is made that may ask the hub for its weights."""
    kind = spec.partition(":")[0].strip()
    if not (kind in scorers.available() and getattr(factory_of(kind)[0], "light", False)):
        hurry()


def load_or_stand_in(spec: str) -> Scorer:
    """A scorer as a person named it, or with a warning what takes its place if its weights cannot
    be fetched here."""
    try:
        return load_given(spec)
    except WeightsError as error:
        return _stand_in(error, spec, {})


def _stand_in(error: Exception, spec: str, options: Mapping[str, Any]) -> Scorer:
    _log.warning("%s; sliders work, scores are left out", error)
    return scorers.stand_in(spec, **options)


def described(using: Sequence[Scorer]) -> dict[str, Any]:
    """What a reward space keeps of its scorers, as arguments of the functions that make one."""
    return {
        "units": {s.name: s.unit for s in using},
        # `scorers.load` takes the kind, where the scorer has a name that the user chose.
        "scorers": {
            s.name: {"name": getattr(s, "kind", s.name), "options": s.options} for s in using
        },
        "fingerprints": {s.name: s.fingerprint for s in using},
    }


def scores_of(
    samples: Sequence[Any], prompts: Sequence[str] | None, using: Sequence[Scorer]
) -> np.ndarray:
    """N samples, with their N prompts unless no scorer needs them, scored by n scorers: (N, n)
    float64, each column in the unit of its scorer."""
    given = None if prompts is None else list(prompts)
    columns = []
    for scorer in using:
        with named(scorer):
            columns.append(ask(scorer, list(samples), given))
    return np.stack(columns, axis=1)


def ask(scorer: Scorer, samples: list[Any], prompts: list[str] | None) -> np.ndarray:
    """(N,) float64: what a scorer says of N samples; NaN where that is no number, or one that no
    unit has. ScorerError unless it gives one number for each; what it raises itself passes."""
    scores = np.array(scorer(samples, prompts), dtype=np.float64)
    if scores.shape != (len(samples),):
        raise ScorerError(
            f"scorer {scorer.name!r} gave shape {scores.shape} for {len(samples)} samples; it must "
            "give one number each"
        )
    scores[~(np.abs(scores) <= checks.MOST_SCORE)] = math.nan
    return scores


class FailedScorerError(ScorerError):
    """What a scorer raised, and a sample may have caused, as a line that names the scorer."""


def may_be_the_sample(error: BaseException) -> bool:
    """False for what no sample causes: misuse of a scorer, a full disk, no memory."""
    if isinstance(error, OSError):
        return error.errno is None  # an encoder's complaint; the system's have a number
    if isinstance(error, ScorerError):
        return isinstance(error, FailedScorerError)
    return not no_memory(error)


def each_alone(
    score: Callable[[Item], Scored], items: Iterable[Item]
) -> Iterator[tuple[Item, Scored | BaseException]]:
    """Each of a batch that could not be scored together with what is said of it alone, or with what
    is raised for it. What no sample causes is raised."""
    for item in items:
        try:
            found: Scored | BaseException = score(item)
        except (Exception, SystemExit) as error:
            if not may_be_the_sample(error):
                raise
            found = error
        yield item, found


def no_memory(error: BaseException) -> bool:
    """Whether there was too little, of whatever kind."""
    # A GPU's is torch.OutOfMemoryError, and nothing here needs torch.
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


@contextmanager
def named(scorer: Scorer) -> Iterator[None]:
    """What a scorer raises inside the block is a ScorerError of one line that names it. What has a
    line of its own passes: wrong input, and the system's complaints, as of a full disk."""
    try:
        yield
    except (Exception, SystemExit) as error:
        told = isinstance(error, OSError) and error.errno is not None
        if told or isinstance(error, InputError | ScorerError):
            raise
        kind = FailedScorerError if may_be_the_sample(error) else ScorerError
        raise kind(
            f"scorer {scorer.name!r} fails ({first_line(error)}); mend it, or leave it out"
        ) from error
