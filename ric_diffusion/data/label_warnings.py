"""What makes the sliders of a labelled folder hard to learn, in words for its user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ric_diffusion.rewards import RewardSpace, narrow, outliers
from ric_diffusion.rewards.fitness import FEW, NARROW


def warnings_of(
    space: RewardSpace, scores: Mapping[str, Sequence[float]], files: Sequence[str], plural: str
) -> tuple[str, ...]:
    """A line for each. ``scores``: those of N samples by reward, from which ``space`` was fitted;
    ``files``: what a person knows them by."""
    found = []
    if len(files) < FEW:
        found.append(
            f"{len(files)} {plural} are few: from {FEW} up there is something to learn sliders "
            "from, and more are better"
        )
    for name in space.names:
        if extreme := outliers(scores[name]):
            first, more = files[extreme[0]], len(extreme) - 1
            who, them = (f"{first} and {more} more", "them") if more else (first, "it")
            found.append(
                f"{name}: {who} of {len(files)} {plural} alone decide{'' if more else 's'} its "
                f"scale, and the others lie close together on it; leave {them} out and label again"
            )
    for name in narrow(space):
        low, high = space.range(name)
        found.append(
            f"{name}: its slider can hardly move, from {low:+.2f} to {high:+.2f} in z, less than "
            f"{NARROW:g}; give {plural} that differ more, or leave the reward out"
        )
    return tuple(found)
