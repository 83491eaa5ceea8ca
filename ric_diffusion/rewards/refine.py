"""The search behind ``refine``: which model targets give the targets, found by asking and being
told. Pure numpy.

On one prompt and seed, what is obtained is a function of the model targets that can be evaluated
(draw and score) and not written down. For one reward its root is found by secants until the target
lies between two evaluations, then by regula falsi with Illinois weights (Dowell & Jarratt 1971).
For several, by Broyden's rank-one updates of the Jacobian (Broyden 1965), each move from the
nearest so far and inside a trust region. Where the target lies beyond all that is obtained, the
search goes to the end of what it may ask, and ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ric_diffusion.rewards.calibration import Curve

Array = NDArray[np.float64]

TOLERANCE = 0.05  # z, root mean square over the rewards: a target moved by less is not worth a line
BEYOND = 0.25  # of the trained range's width: so far beyond each of its ends models still respond
FLAT = 0.1  # z obtained for each z asked; a smaller slope would move without bounds
FARTHEST = 1.5  # z, of one move without a point on the other side
SMALLEST = 0.01  # z; smaller moves of the model targets are none
GAP = 0.5  # z, between two evaluations that are worth one more between them
INSIDE = 0.05  # of a bracket, the least distance from its ends


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One reward's model targets beside the z that is expected of them, both rising.

    A search moves along what is expected: there, what a picture gives rises by about as much as was
    moved, where the model's response to its targets is steep as where it is flat.
    """

    model_targets: tuple[float, ...]
    expected: tuple[float, ...]

    @classmethod
    def of(cls, curve: Curve | None, low: float, high: float) -> Self:
        """By a calibration; without one, as of a model that gives what it is asked. ``low`` and
        ``high``: the range of z in the training data, which the axis leaves by a quarter of its
        width, as steep there as the curve is on the whole."""
        room = BEYOND * (high - low)
        ends = low - room, high + room
        if curve is None:
            return cls(model_targets=ends, expected=ends)
        at, expected = list(curve.requested), list(curve.obtained)
        slope = max((expected[-1] - expected[0]) / (at[-1] - at[0]), FLAT)
        if ends[0] < at[0]:
            expected.insert(0, expected[0] - slope * (at[0] - ends[0]))
            at.insert(0, ends[0])
        if ends[1] > at[-1]:
            expected.append(expected[-1] + slope * (ends[1] - at[-1]))
            at.append(ends[1])
        return cls(model_targets=tuple(at), expected=tuple(expected))

    def place(self, model_target: float) -> float:
        """The z expected of a model target; beyond an end it changes as the model target does."""
        inside = min(max(model_target, self.model_targets[0]), self.model_targets[-1])
        return float(np.interp(inside, self.model_targets, self.expected)) + model_target - inside

    def model_target(self, place: float) -> float:
        """The model target of which this z is expected."""
        inside = min(max(place, self.expected[0]), self.expected[-1])
        return float(np.interp(inside, self.expected, self.model_targets)) + place - inside


class Search:
    """Model targets of n rewards whose z is to be ``targets``: ``ask``, evaluate, ``tell``, again.

    z that is not finite says that nothing could be measured there, and the search turns back. The
    search itself draws no random numbers.
    """

    def __init__(
        self,
        targets: ArrayLike,
        start: ArrayLike,
        axes: Sequence[Axis],
        read: Callable[[Array], Array] = lambda model_targets: model_targets,
    ) -> None:
        """``targets`` in z and ``start``, the model targets to begin with, (n,) each; ``axes`` of
        the n rewards, whose ends are the bounds, unless the start lies beyond; ``read``: what the
        model makes of model targets, if it rounds them."""
        self.targets = np.asarray(targets, float)
        self.start = np.asarray(start, float)
        self.axes, self.read = tuple(axes), read
        start_place = self._place(self.start)
        self.lows = np.minimum([axis.expected[0] for axis in axes], start_place)
        self.highs = np.maximum([axis.expected[-1] for axis in axes], start_place)
        # In the order of the evaluations, (n,) each; places are model targets along the axes.
        self.model_targets: list[Array] = []
        self.places: list[Array] = []
        self.obtained: list[Array] = []

    def ask(self) -> Array | None:
        """The model targets to evaluate next, (n,); None where the targets are met, or nothing new
        is left to try."""
        if not self.obtained:
            return self.start
        wanted = None
        if not self.reached:
            wanted = self._next_of_one() if len(self.targets) == 1 else self._next_of_several()
        if wanted is None:
            return None
        inside = np.clip(wanted, self.lows, self.highs)
        pairs = zip(self.axes, inside.tolist(), strict=True)
        found = self.read(np.array([axis.model_target(place) for axis, place in pairs]))
        moves = [np.abs(found - known).max() for known in self.model_targets]
        return found if min(moves) >= SMALLEST else None

    def tell(self, model_targets: ArrayLike, z: ArrayLike) -> None:
        """What came of model targets, (n,) each."""
        asked = np.asarray(model_targets, float)
        self.model_targets.append(asked)
        self.places.append(self._place(asked))
        self.obtained.append(np.asarray(z, float))

    @property
    def distances(self) -> Array:
        """Of each evaluation, the root mean square of z less the targets; infinite without z."""
        off = np.stack(self.obtained) - self.targets
        distances = np.sqrt(np.square(off).sum(axis=1) / max(len(self.targets), 1))
        return np.where(np.isfinite(distances), distances, np.inf)

    @property
    def nearest(self) -> int:
        """Which evaluation came nearest, the first of equals."""
        return int(self.distances.argmin())

    @property
    def reached(self) -> bool:
        """Whether one came within the tolerance."""
        return bool(self.distances.min() <= TOLERANCE)

    def _place(self, model_targets: Array) -> Array:
        pairs = zip(self.axes, model_targets.tolist(), strict=True)
        return np.array([axis.place(asked) for axis, asked in pairs])

    def _back(self) -> Array:
        """Half of the way to the nearest so far; to the mean of the training data where nothing
        could be measured yet."""
        measured = np.isfinite(self.distances).any()
        goal = self.places[self.nearest] if measured else self._place(np.zeros_like(self.start))
        return (self.places[-1] + goal) / 2

    def _next_of_one(self) -> Array | None:
        if not np.isfinite(self.distances[-1]):
            return self._back()
        known = [i for i, distance in enumerate(self.distances) if np.isfinite(distance)]
        known.sort(key=lambda i: self.places[i][0])
        at = [float(self.places[i][0]) for i in known]
        off = [float(self.obtained[i][0] - self.targets[0]) for i in known]
        best = known.index(self.nearest)
        brackets = [j for j in range(len(known) - 1) if off[j] * off[j + 1] < 0]
        if brackets:
            j = min(brackets, key=lambda j: min(abs(off[j]), abs(off[j + 1])))
            return np.array([_between(at[j : j + 2], off[j : j + 2], known[j : j + 2])])
        step = -1 if off[best] > 0 else 1  # what is obtained is taken to rise
        outermost = best == (len(known) - 1 if step > 0 else 0)
        if outermost:
            return np.array([self._outwards(at, off, best, step)])
        # It falls out there: what there is to have may lie on either side of the nearest.
        beyond = at[best + step] - at[best]
        if not 0 <= best - step < len(at):
            return np.array([at[best] - beyond])
        widest = max(beyond, at[best - step] - at[best], key=abs)
        return np.array([at[best] + widest / 2]) if abs(widest) >= GAP else None

    def _outwards(self, at: list[float], off: list[float], best: int, step: int) -> float:
        """One reward, farther out than any evaluation; at most halfway to what was not to be
        measured there."""
        slope, farthest, before = 1.0, FARTHEST, best - step
        if 0 <= before < len(at):
            way = at[best] - at[before]
            slope, farthest = max((off[best] - off[before]) / way, FLAT), max(farthest, abs(way))
        move = min(abs(off[best]) / slope, farthest)
        unmeasured = [
            float(place[0]) - at[best]
            for place, distance in zip(self.places, self.distances, strict=True)
            if not np.isfinite(distance) and (place[0] - at[best]) * step > 0
        ]
        nearest = min((abs(way) for way in unmeasured), default=np.inf)
        return at[best] + step * min(move, nearest / 2)

    def _next_of_several(self) -> Array:
        jacobian, radius, base = np.eye(len(self.targets)), FARTHEST, 0
        for i in range(1, len(self.places)):
            move = self.places[i] - self.places[base]
            if np.isfinite(self.distances[[base, i]]).all():
                change = self.obtained[i] - self.obtained[base]
                jacobian += np.outer(change - jacobian @ move, move) / (move @ move)
            nearer = self.distances[i] < self.distances[base]
            length = float(np.abs(move).max())
            radius = max(radius, 2 * length) if nearer else length / 2
            base = i if nearer or not np.isfinite(self.distances[base]) else base
        if not np.isfinite(self.distances[base]):
            return self._back()
        own = np.diag_indices(len(jacobian))
        jacobian[own] = np.maximum(jacobian[own], FLAT)
        at = self.places[base]
        lows = np.maximum(self.lows - at, -radius)
        highs = np.minimum(self.highs - at, radius)
        return at + _inside(jacobian, self.targets - self.obtained[base], lows, highs)


def _between(at: list[float], off: list[float], when: list[int]) -> float:
    """Between two points with the target between them. The one that stayed while the other moved
    counts half as much for every time, lest it stay for ever (Illinois)."""
    newer, older = (0, 1) if when[0] > when[1] else (1, 0)
    weighed = list(off)
    weighed[older] /= 2.0 ** (when[newer] - when[older] - 1)
    share = weighed[0] / (weighed[0] - weighed[1])
    return at[0] + float(np.clip(share, INSIDE, 1 - INSIDE)) * (at[1] - at[0])


def _inside(jacobian: Array, wanted: Array, lows: Array, highs: Array) -> Array:
    """The move (n,) between ``lows`` and ``highs`` by which the linear model misses least: what
    would go farther stays at its end, and the others make up for it."""
    move, free = np.zeros_like(wanted), np.ones(len(wanted), bool)
    while free.any():
        rest = wanted - jacobian[:, ~free] @ move[~free]
        move[free] = np.linalg.lstsq(jacobian[:, free], rest, rcond=1e-3)[0]
        beyond = free & ((move < lows) | (move > highs))
        move = np.clip(move, lows, highs)
        if not beyond.any():
            break
        free &= ~beyond
    return move
