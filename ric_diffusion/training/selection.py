"""Which samples of a round are worth training on, and which records are replayed with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ric_diffusion.data.records import Record
from ric_diffusion.data.standard import records_z
from ric_diffusion.rewards import PromptGroups, RewardSpace
from ric_diffusion.rewards.selection import SELECTIONS
from ric_diffusion.training.sampling import RoundSample

Criterion = Literal["fronts", "quantile"]
SELECTED, NOT_SELECTED = "selected", "not selected"


@dataclass(frozen=True, kw_only=True)
class Selection:
    """By number: the samples to train on, and the replayed records."""

    samples: tuple[int, ...]
    replay: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class SelectionReport:
    """``selected.json``: by which criterion; "selected" or why not, for each sample; the files of
    the replayed records."""

    criterion: Criterion
    samples: tuple[str, ...]
    replay: tuple[str, ...]


def select(
    samples: Sequence[RoundSample],
    replay: Sequence[Record],
    space: RewardSpace,
    groups: PromptGroups,
    *,
    criterion: Criterion,
    keep_fraction: float,
    replay_fraction: float,
    rng: np.random.Generator,
) -> Selection:
    """About ``keep_fraction`` of the samples that can be used, best by ``criterion``.

    From the same part of the records so many are drawn that they make up ``replay_fraction`` of
    what is trained on, or all if there are fewer. ``groups``: what both are compared with, where
    rewards are compared within a prompt.
    """
    best, names = SELECTIONS[criterion], space.names
    reference = records_z(replay, space, groups)
    usable = [i for i, sample in enumerate(samples) if sample.z is not None]
    z = np.reshape([samples[i].z for i in usable], (-1, len(names)))
    selected = [usable[i] for i in best(z, reference, keep_fraction).tolist()]
    good = best(reference, reference, keep_fraction)
    wanted = round(len(selected) * replay_fraction / (1 - replay_fraction))
    drawn = sorted(rng.permutation(good)[:wanted].tolist())
    return Selection(samples=tuple(selected), replay=tuple(drawn))


def report(
    selection: Selection,
    samples: Sequence[RoundSample],
    replay: Sequence[Record],
    criterion: Criterion,
) -> SelectionReport:
    """The selection, told about every sample."""
    verdicts = [sample.reject_reason or NOT_SELECTED for sample in samples]
    for number in selection.samples:
        verdicts[number] = SELECTED
    files = tuple(replay[number].file for number in selection.replay)
    return SelectionReport(criterion=criterion, samples=tuple(verdicts), replay=files)
