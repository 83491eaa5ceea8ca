"""What makes the sliders of a labelled folder hard to learn, in words for its user."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from ric_diffusion.io.counting import counted
from ric_diffusion.rewards import RewardSpace, alike, constant, exclusive, narrow, outliers
from ric_diffusion.rewards.fitness import FEW, LEAST, NARROW

ALONE = 0.5  # of the samples: so many without another of their prompt
DRAW = "`ric sample-prompts` draws several of each"


def too_few(
    source: str | os.PathLike[str], plural: str, count: int, skipped: Mapping[str, str]
) -> str:
    """Why what is left of ``source`` cannot be used."""
    file, reason = next(iter(skipped.items()), ("", ""))
    why = f"; {len(skipped)} skipped, {file!r} first: {reason}" if skipped else ""
    return f"{source}: {counted(count, f'usable {plural}')}, at least 2 are needed{why}"


def warnings_of(
    space: RewardSpace,
    scores: Mapping[str, ArrayLike],
    prompts: Sequence[str],
    files: Sequence[str],
    plural: str,
    *,
    declared: Sequence[str] = (),
) -> tuple[str, ...]:
    """A line for each. ``scores``: those of N samples by reward, from which ``space`` was fitted,
    with their ``prompts``; ``files``: what a person knows them by; ``declared``: the rewards that
    should be compared within a prompt."""
    found = []
    columns = np.stack([scores[name] for name in space.names], axis=1)
    z = dict(zip(space.names, space.normalize(columns, prompts).T, strict=True))
    if len(files) < FEW:
        found.append(f"{len(files)} {plural} are few: sliders are learned well from {FEW} and more")
    if len(files) < LEAST and len(space.names) > 1:
        found[-1] += (
            f"; with fewer than {LEAST}, single {plural} decide what the trade-offs between "
            "rewards are"
        )
    for name in space.names:
        if extreme := outliers(z[name]):
            first, more = files[extreme[0]], len(extreme) - 1
            who, them = (f"{first} and {more} more", "them") if more else (first, "it")
            found.append(
                f"{name}: {who} of {len(files)} {plural} alone decide{'' if more else 's'} its "
                f"scale, and the others lie close together on it; leave {them} out and label again"
            )
    alone = sum(count == 1 for count in Counter(prompts).values())
    for name in space.centred:
        if alone > ALONE * len(files):
            found.append(
                f"{name}: compared within a prompt, but {alone} of {len(files)} {plural} have a "
                f"prompt that no other has; {DRAW}"
            )
    for name in declared:
        if name not in space.centred:
            found.append(
                f"{name}: its scores compare within a prompt only, but no prompt has two {plural}, "
                f"so its slider also learns which prompts score high; {DRAW}"
            )
    for name in space.names:
        if same := constant(z[name]):
            found.append(
                f"{name}: {same} of {len(files)} {plural} have the same score, so its slider has "
                f"little to learn from; give {plural} that differ more, or leave the reward out"
            )
    for one, other in combinations(space.names, 2):
        if exclusive(z[one], z[other]):
            found.append(
                f"{one}, {other}: nearly none of {len(files)} {plural} is above the median of "
                f"both, so more of one is less of the other; add {plural} that have both, or leave "
                "one out"
            )
        if alike(z[one], z[other]):
            found.append(
                f"{one}, {other}: nearly all of {len(files)} {plural} that are above the median of "
                "one are above that of the other, so their sliders do the same; leave one out"
            )
    for name in narrow(space):
        low, high = space.range(name)
        found.append(
            f"{name}: its slider can hardly move, from {low:+.2f} to {high:+.2f} in z, less than "
            f"{NARROW:g}; give {plural} that differ more, or leave the reward out"
        )
    return tuple(found)
