"""The reward space: the ordered rewards of one model and what turns their scores into z."""

import html
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from statistics import NormalDist
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ric_diffusion.io.counting import counted
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import write_text
from ric_diffusion.io.strict_json import read_json
from ric_diffusion.rewards import checks
from ric_diffusion.rewards.centring import ROUNDING, Centring, PromptGroups
from ric_diffusion.rewards.front import directions, farthest, fit_corners, fit_front, nondominated

Array = NDArray[np.float64]

FORMAT_VERSION = 1
PERCENTILES = np.arange(101.0)
LOW, HIGH = 1, 99  # percentiles that bound the reachable range
EXTREME = 0.001  # levels that stand for the 0th and 100th percentile of a normal reward
MOST_REWARDS, MOST_FRONT = 100, 20_000  # of one space: rewards, and points of its front
MOST_FINGERPRINT = 10_000  # characters
MOST_COUNT = 10**15  # samples
DRAWN = 20_000  # samples of normal rewards, whose front is taken
WITHIN = "within its prompt"  # beside the unit of rewards that are compared so
COLUMNS = ("reward", "unit", "mean", "std", "range in z", "range in the unit")  # when printed


@dataclass(frozen=True, kw_only=True)
class Reward:
    """One reward and the statistics of its scores, in the scorer's own unit.

    With ``centring`` the statistics are those of scores compared within their prompts.
    """

    name: str
    unit: str
    mean: float
    std: float
    quantiles: tuple[float, ...] = field(repr=False)  # the 101 empirical percentiles, 0 to 100
    scorer: dict[str, Any] = field(default_factory=dict, hash=False)  # {"name": …, "options": …}
    fingerprint: str = ""
    centring: Centring | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch("[a-z][a-z0-9_]{0,99}", self.name):
            raise InputError(
                f"reward name {self.name!r}: use small letters, digits and _, a letter first"
            )
        checks.text(self.unit, f"{self.name}: unit", checks.MOST_TEXT)
        checks.text(self.fingerprint, f"{self.name}: fingerprint", MOST_FINGERPRINT)
        most = checks.MOST_SCORE
        mean = checks.number(self.mean, f"{self.name}: mean", most)
        std = checks.number(self.std, f"{self.name}: std", most)
        quantiles = checks.numbers(self.quantiles, f"{self.name}: quantiles", most)
        if len(quantiles) != len(PERCENTILES) or any(np.diff(quantiles) < 0):
            raise InputError(f"{self.name}: quantiles must be 101 numbers that never fall")
        if not isinstance(self.centring, Centring | None):
            raise InputError(f"{self.name}: centring must be one, not {self.centring!r}")
        low, high = quantiles[LOW], quantiles[HIGH]
        # In z too: beside a huge mean a small range can vanish.
        if std <= 0 or not 0 < (high - mean) / std - (low - mean) / std < np.inf:
            raise InputError(
                f"{self.name}: nearly every sample scores {low}; a reward that does not vary "
                "cannot be steered, leave it out"
            )
        far = max(abs(quantiles[0] - mean), abs(quantiles[-1] - mean)) / std
        if far > checks.MOST_Z:
            raise InputError(f"{self.name}: a quantile is at {far:.3g} z; give the scores' own std")
        try:  # a copy of our own, as it will come back from a file
            scorer = json.loads(json.dumps(dict(self.scorer), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise InputError(f"{self.name}: scorer must be a plain JSON object ({error})") from None
        for key, value in (
            ("mean", mean),
            ("std", std),
            ("quantiles", quantiles),
            ("scorer", scorer),
        ):
            object.__setattr__(self, key, value)

    @property
    def scale(self) -> str:
        """What its statistics are in: the unit, and whether that is within a prompt."""
        return f"{self.unit}, {WITHIN}" if self.centring else self.unit

    def to_dict(self) -> dict[str, Any]:
        data = asdict(self)
        if self.centring is None:  # as it was written before there was any
            del data["centring"]
        return data

    @classmethod
    def from_dict(cls, stored: Any) -> Self:
        names = [field.name for field in fields(cls)]
        given = checks.fields(
            {"centring": None, **checks.mapping(stored, "reward")}, names, "reward"
        )
        given["scorer"] = checks.scorer(given["scorer"], f"{given['name']}: scorer")
        if given["centring"] is not None:
            given["centring"] = Centring.from_dict(given["centring"])
        return cls(**given)


@dataclass(frozen=True, kw_only=True, repr=False)
class RewardSpace:
    """Rewards in order, the front of their training samples, and how many samples those were.

    z is a score in standard units, (score - mean) / std; of a reward with a centring, the score is
    first compared with those of the same prompt. The reachable range of a reward goes from
    the 1st to the 99th percentile of its training scores. Printed, it is a table of these. Where
    nobody has the samples, ``count`` is None and the rest is what ``normal`` takes it to be.
    ``corners`` (n, n) in z: what a preference for one reward alone asks for, a row for each; None
    in spaces that were stored before there were any.
    """

    rewards: tuple[Reward, ...]
    front: tuple[tuple[float, ...], ...]  # (F, n) non-dominated points in z
    count: int | None
    corners: tuple[tuple[float, ...], ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "rewards", tuple(self.rewards))
        if not self.rewards:
            raise InputError("a reward space needs at least one reward")
        if len(self.rewards) > MOST_REWARDS:
            raise InputError(
                f"reward space: {len(self.rewards)} rewards; {MOST_REWARDS} is the most"
            )
        twice = {name for name in self.names if self.names.count(name) > 1}
        if twice:
            raise InputError(f"reward {min(twice)!r} is there twice; names must differ")
        count = 1 if self.count is None else self.count
        if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MOST_COUNT:
            raise InputError(f"count must be a whole number above 0, not {count!r}")
        points = checks.items(self.front, "front")
        if len(points) > MOST_FRONT:
            raise InputError(
                f"reward space: front has {len(points)} points; {MOST_FRONT} is the most"
            )
        front = tuple(checks.numbers(point, "front", checks.MOST_Z) for point in points)
        if not front or any(len(point) != len(self.rewards) for point in front):
            raise InputError(
                f"reward space: front must hold points of {len(self.rewards)} numbers each"
            )
        if not nondominated(np.array(front)).all():
            raise InputError(
                "reward space: front must hold only points that do not dominate each other"
            )
        object.__setattr__(self, "front", front)
        if self.corners is not None:
            object.__setattr__(self, "corners", self._checked_corners())

    @classmethod
    def fit(
        cls,
        scores: Mapping[str, ArrayLike],
        *,
        prompts: Sequence[str] = (),
        within: Sequence[str] = (),
        units: Mapping[str, str] | None = None,
        scorers: Mapping[str, Mapping[str, Any]] | None = None,
        fingerprints: Mapping[str, str] | None = None,
    ) -> Self:
        """Fit to raw scores by reward name, (N,) each; the order of `scores` is kept.

        ``within``: the rewards that are compared within ``prompts``, of which there is one for each
        sample. The other arguments give, for any of the names, what `Reward` keeps beside the
        statistics.
        """
        if not scores:
            raise InputError("no scores given; give at least one reward")
        columns = {name: checks.column(name, values) for name, values in scores.items()}
        lengths = {name: len(values) for name, values in columns.items()}
        if len(set(lengths.values())) > 1:
            raise InputError(f"rewards differ in their number of scores: {lengths}")
        units, scorers, fingerprints = units or {}, scorers or {}, fingerprints or {}
        for name in (*units, *scorers, *fingerprints, *within):
            checks.known(name, scores, "reward space")
        centrings = {name: _centring(name, columns[name], prompts) for name in within}
        columns |= {
            name: _centred(columns[name], prompts, centring) for name, centring in centrings.items()
        }
        with np.errstate(over="ignore", invalid="ignore"):  # Reward refuses what comes of it
            rewards = tuple(
                Reward(
                    name=name,
                    unit=units.get(name, ""),
                    mean=_mean(values),
                    std=float(values.std()),
                    # Interpolation may fall by a rounding error between equal scores.
                    quantiles=tuple(
                        np.maximum.accumulate(np.percentile(values, PERCENTILES)).tolist()
                    ),
                    scorer=dict(scorers.get(name, {})),
                    fingerprint=fingerprints.get(name, ""),
                    centring=centrings.get(name),
                )
                for name, values in columns.items()
            )
        # The front needs the ranges, which belong to a space: begin with any point.
        count = len(next(iter(columns.values())))
        space = cls(rewards=rewards, front=((0.0,) * len(rewards),), count=count)
        z = space._standard(np.stack(list(columns.values()), axis=1))
        return space._fitted(z)

    @classmethod
    def normal(
        cls,
        statistics: Mapping[str, tuple[float, float]],
        *,
        units: Mapping[str, str],
        scorers: Mapping[str, Mapping[str, Any]],
        fingerprints: Mapping[str, str],
    ) -> Self:
        """Made of the mean and the standard deviation of each reward, for a model whose samples
        nobody has: their scores are taken to be normal and independent of each other, which of all
        distributions with these means and deviations says least (Cover & Thomas 2006, section 8.6).

        The other arguments are as ``fit`` has them, for all of the names. InputError for a
        deviation that is not above 0.
        """
        levels = np.clip(PERCENTILES / 100, EXTREME, 1 - EXTREME)
        quantiles = np.array([NormalDist().inv_cdf(level) for level in levels])
        rewards = []
        for name, (mean, std) in statistics.items():
            if checks.number(std, f"{name}: std") <= 0:
                raise InputError(f"{name}: std must be above 0, not {std}")
            scores = checks.number(mean, f"{name}: mean") + std * quantiles
            rewards.append(
                Reward(
                    name=name,
                    unit=units[name],
                    mean=mean,
                    std=std,
                    quantiles=tuple(scores.tolist()),
                    scorer=dict(scorers[name]),
                    fingerprint=fingerprints[name],
                )
            )
        space = cls(rewards=tuple(rewards), front=((0.0,) * len(rewards),), count=None)
        z = np.random.default_rng(0).standard_normal((DRAWN, len(rewards)))
        return space._fitted(z)

    @classmethod
    def joined(cls, spaces: Sequence["RewardSpace"]) -> Self:
        """The rewards of several spaces, in order; ``count`` is the smallest of theirs, None where
        one is None.

        What one space has of its rewards takes nothing from another's, so points of their fronts go
        together as they are. The front holds, along directions from there, those that go farthest,
        and at the corners of one space the rewards of the others are the worst of their fronts.
        There are corners where all spaces have them.
        """
        fronts = [np.array(space.front) for space in spaces]
        ends = np.cumsum([len(space.rewards) for space in spaces])
        points = [
            np.concatenate([farthest(*pair) for pair in zip(fronts, parts, strict=True)])
            for parts in (np.split(d, ends[:-1]) for d in directions(ends[-1]))
        ]
        corners = np.tile(np.concatenate([front.min(axis=0) for front in fronts]), (ends[-1], 1))
        known = [space for space in spaces if space.corners is not None]
        if len(known) == len(spaces):
            for space, end in zip(spaces, ends, strict=True):
                own = slice(end - len(space.rewards), end)
                corners[own, own] = space.corners
        corners = np.minimum(corners, corners.diagonal())  # a front of few samples can go beyond
        counts = [space.count for space in spaces if space.count is not None]
        return cls(
            rewards=tuple(reward for space in spaces for reward in space.rewards),
            front=tuple(dict.fromkeys(_rows(np.array(points)))),
            count=min(counts) if len(counts) == len(spaces) else None,
            corners=_rows(corners) if len(known) == len(spaces) else None,
        )

    def __repr__(self) -> str:
        return f"RewardSpace({', '.join(self.names)}; {self._basis()})"

    def __str__(self) -> str:
        """A table with a line for each reward."""
        cells = [list(COLUMNS), *self._table()]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(
                # Names and units stand to the left, numbers to the right.
                cell.ljust(width) if i < 2 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in cells
        ]
        return "\n".join([*lines, self._footer()])

    def _repr_html_(self) -> str:
        """The same table for a notebook."""
        rows = [("th", COLUMNS), *(("td", row) for row in self._table())]
        body = "".join(
            f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in row)}</tr>"
            for tag, row in rows
        )
        return f"<table>{body}</table><p>{html.escape(self._footer())}</p>"

    def _table(self) -> list[list[str]]:
        """The cells under `COLUMNS`, a row for each reward."""
        rows = []
        for reward, low, high in zip(self.rewards, self.lows, self.highs, strict=True):
            scores = reward.quantiles[LOW], reward.quantiles[HIGH]
            rows.append(
                [
                    reward.name,
                    reward.scale,
                    f"{reward.mean:.4g}",
                    f"{reward.std:.4g}",
                    f"{low:+.2f} to {high:+.2f}",
                    f"{scores[0]:.4g} to {scores[1]:.4g}",
                ]
            )
        return rows

    def _footer(self) -> str:
        compared = f"; {WITHIN}: of scores less what is usual there" if self.centred else ""
        return f"{self._basis()}; z = (score - mean) / std{compared}"

    def _basis(self) -> str:
        return (
            "no samples, taken to be normal"
            if self.count is None
            else counted(self.count, "samples")
        )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(reward.name for reward in self.rewards)

    @property
    def units(self) -> tuple[str, ...]:
        return tuple(reward.unit for reward in self.rewards)

    @property
    def means(self) -> Array:
        """(n,) in score units."""
        return np.array([reward.mean for reward in self.rewards])

    @property
    def stds(self) -> Array:
        """(n,) in score units."""
        return np.array([reward.std for reward in self.rewards])

    @property
    def quantiles(self) -> Array:
        """The percentiles 0 to 100 of each reward, (n, 101), in z."""
        scores = np.array([reward.quantiles for reward in self.rewards])
        return self._standard(scores.T).T

    @property
    def lows(self) -> Array:
        """Lower ends of the reachable ranges, (n,), in z."""
        return self.quantiles[:, LOW]

    @property
    def highs(self) -> Array:
        """Upper ends of the reachable ranges, (n,), in z."""
        return self.quantiles[:, HIGH]

    @property
    def centred(self) -> tuple[str, ...]:
        """The rewards that are compared within their prompts."""
        return tuple(reward.name for reward in self.rewards if reward.centring)

    def groups(self, scores: ArrayLike, prompts: Sequence[str]) -> PromptGroups:
        """What N samples, scores (N, n), say of their prompts: nothing where no reward asks."""
        matrix = self._matrix(scores)
        return PromptGroups.of(*((matrix, prompts) if self.centred else (matrix[:0], ())))

    def normalize(
        self,
        scores: ArrayLike,
        prompts: Sequence[str] | None = None,
        groups: PromptGroups | None = None,
    ) -> Array:
        """Scores (N, n), columns in the order of `names` → z (N, n). NaN stays NaN.

        Rewards with a centring need the samples' prompts, (N,), and compare each with ``groups``,
        which are to hold the samples themselves; by default those of these N samples alone.
        """
        matrix = self._matrix(scores)
        if self.centred:
            if prompts is None:
                raise ValueError(f"{self.centred[0]} is compared within prompts; give the prompts")
            known = (self.groups(matrix, prompts) if groups is None else groups).at(prompts)
            matrix = matrix.copy()
            for column, reward in enumerate(self.rewards):
                if reward.centring:
                    own = (matrix[:, column], *(array[:, column] for array in known))
                    matrix[:, column] = reward.centring.centre(*own)
        return self._standard(matrix)

    def denormalize(self, z: ArrayLike) -> Array:
        """z (N, n) → scores (N, n), within their prompts where those are compared so."""
        scores: Array = self._matrix(z) * self.stds + self.means
        return scores

    def range(self, name: str) -> tuple[float, float]:
        """The reachable range of one reward, (low, high), in z."""
        row = self.quantiles[self._index(name)]
        return float(row[LOW]), float(row[HIGH])

    def quantile(self, name: str, q: float) -> float:
        """The empirical quantile at level q in [0, 1] of one reward, in z."""
        if not 0 <= q <= 1:
            raise InputError(f"{name}: quantile level must lie in [0, 1], not {q!r}")
        return float(np.interp(100 * q, PERCENTILES, self.quantiles[self._index(name)]))

    def reaching(self, z: Array, top: float) -> Self:
        """The same rewards and statistics, with a front that also holds what a fraction 1 - ``top``
        of samples drawn for the front reach, z (N, n): a model can do better than its training
        data. Of each reward's two corners, the one that is better in it stays."""
        reached = fit_front(z, self.lows, self.highs, top)
        front = np.concatenate([np.array(self.front), reached])
        corners = self.corners
        if corners is not None:
            both = np.array(corners), fit_corners(z, self.lows, self.highs, top)
            better = both[1].diagonal() > both[0].diagonal()
            corners = _rows(np.where(better[:, None], both[1], both[0]))
        return replace(self, front=_rows(front[nondominated(front)]), corners=corners)

    def subset(self, names: Iterable[str]) -> Self:
        """The space of these rewards alone, in the order given."""
        columns = [self._index(name) for name in names]
        if not columns:
            raise InputError("no rewards given; a reward space needs at least one")
        front = np.array(self.front)[:, columns]
        corners = self.corners
        return type(self)(
            rewards=tuple(self.rewards[column] for column in columns),
            front=_rows(front[nondominated(front)]),
            count=self.count,
            corners=corners and _rows(np.array(corners)[np.ix_(columns, columns)]),
        )

    def check_targets(
        self, targets: Mapping[str, float], where: str = "targets"
    ) -> dict[str, float]:
        """The targets (z by name) as floats in the order of `names`; InputError if one is wrong.

        A reward may be left out (auto), and a target may lie outside the reachable range.
        """
        return self._values(targets, where)

    def clamp(self, targets: Mapping[str, float]) -> dict[str, float]:
        """The targets, each moved to the nearest value of its reward's reachable range."""
        ranges = dict(zip(self.names, zip(self.lows, self.highs, strict=True), strict=True))
        checked = self.check_targets(targets)
        return {name: float(np.clip(value, *ranges[name])) for name, value in checked.items()}

    def check_preference(self, preference: Mapping[str, float]) -> dict[str, float]:
        """The weights as floats in the order of `names`; InputError if one is wrong.

        A reward may be left out (weight 0), but some weight must be above 0.
        """
        weights = self._values(preference, "preference")
        for name, weight in weights.items():
            if weight < 0:
                raise InputError(f"preference: {name} must be 0 or above, not {weight}")
        if not any(weights.values()):
            problem = "every weight is 0" if weights else "no weights given"
            raise InputError(f"preference: {problem}; give one of {', '.join(self.names)} above 0")
        return weights

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data that `from_dict` turns back into an equal space."""
        data = {
            "format_version": FORMAT_VERSION,
            "rewards": [reward.to_dict() for reward in self.rewards],
            "front": self.front,
            "count": self.count,
            **({} if self.corners is None else {"corners": self.corners}),
        }
        plain: dict[str, Any] = json.loads(json.dumps(data, allow_nan=False))  # tuples to lists
        return plain

    @classmethod
    def from_dict(cls, data: Any) -> Self:
        """Build from what `to_dict` gave; InputError if it is not that."""
        given = dict(checks.mapping(data, "reward space"))
        version = given.pop("format_version", None)
        if version != FORMAT_VERSION:
            raise InputError(
                f"reward space: format_version {version!r} is unknown; this release reads "
                f"{FORMAT_VERSION}"
            )
        names = [field.name for field in fields(cls)]
        given = checks.fields({"corners": None, **given}, names, "reward space")
        rewards = checks.items(given["rewards"], "reward space: rewards")
        given["rewards"] = tuple(Reward.from_dict(reward) for reward in rewards)
        return cls(**given)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON, in one move."""
        write_text(path, json.dumps(self.to_dict(), allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote; InputError if the file is missing or is not that."""
        try:
            stored = read_json(Path(path))
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None
        try:
            return cls.from_dict(stored)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None

    def _fitted(self, z: Array) -> Self:
        """The same, with the front and the corners of samples, z (N, n)."""
        front = fit_front(z, self.lows, self.highs)
        corners = fit_corners(z, self.lows, self.highs)
        return replace(self, front=_rows(front), corners=_rows(corners))

    def _checked_corners(self) -> tuple[tuple[float, ...], ...]:
        rows = checks.items(self.corners, "corners")
        corners = tuple(checks.numbers(row, "corners", checks.MOST_Z) for row in rows)
        n = len(self.rewards)
        if len(corners) != n or any(len(corner) != n for corner in corners):
            raise InputError(f"reward space: corners must be {n} points of {n} numbers each")
        if (np.array(corners) > np.diagonal(corners)).any():
            raise InputError("reward space: each reward must be highest at its own corner")
        return corners

    def _index(self, name: str) -> int:
        checks.known(name, self.names, "reward space")
        return self.names.index(name)

    def _standard(self, scores: Array) -> Array:
        """Scores (N, n), compared already where that is asked, → z (N, n)."""
        z: Array = (scores - self.means) / self.stds
        return z

    def _matrix(self, values: ArrayLike) -> Array:
        matrix = np.asarray(values, dtype=np.float64)
        if matrix.ndim != 2 or matrix.shape[1] != len(self.rewards):
            raise InputError(
                f"an array of shape {matrix.shape} given; expected (N, {len(self.rewards)}), "
                f"columns {', '.join(self.names)}"
            )
        return matrix

    def _values(self, given: Mapping[str, float], what: str) -> dict[str, float]:
        for name in checks.mapping(given, what):
            checks.known(name, self.names, what)
        return {
            name: checks.number(given[name], f"{what}: {name}")
            for name in self.names
            if name in given
        }


def _rows(points: Array) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in points.tolist())


def _mean(scores: Array) -> float:
    """The mean of scores (N,), 0 where it is one but for rounding errors, as it is of compared
    ones."""
    mean = float(scores.mean())
    return mean if abs(mean) > ROUNDING * scores.std() else 0.0


def _centring(name: str, scores: Array, prompts: Sequence[str]) -> Centring:
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # Centring refuses what comes of it
            return Centring.fit(scores, prompts)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def _centred(scores: Array, prompts: Sequence[str], centring: Centring) -> Array:
    """Scores (N,), compared within their prompts."""
    known = PromptGroups.of(scores[:, None], prompts).at(prompts)
    return centring.centre(scores, *(array[:, 0] for array in known))
