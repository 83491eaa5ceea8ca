"""Scores compared within their prompt: for rewards that only say which of a prompt's samples is
better. Pure numpy.

The score of sample i of prompt g is taken to be μ + b_g + e_gi, where the prompt's own b_g is
normal with variance τ² and e_gi with a variance of the prompt's own, σ_g², whose mean over prompts
is σ². Centred, the score is e_gi·σ/σ_g, with b_g and σ_g² at their posterior means: what is known
of a prompt by few samples is drawn towards what is known of all (empirical Bayes, Efron & Morris
1975).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ric_diffusion.io.counting import counted
from ric_diffusion.io.errors import InputError
from ric_diffusion.rewards import checks

Array = NDArray[np.float64]

ROUNDING = 1e-9  # of the largest score: what lies closer together in a prompt is the same there


@dataclass(frozen=True, kw_only=True, eq=False)
class PromptGroups:
    """What centring needs to know of the samples of G prompts, for n rewards.

    ``rows``: where each prompt is in the arrays; ``counts``, ``means`` and ``squares``, (G, n)
    each: how many finite scores, their mean, and the sum of their squared distances to it.
    """

    rows: dict[str, int]
    counts: Array
    means: Array
    squares: Array

    @classmethod
    def of(cls, scores: ArrayLike, prompts: Sequence[str]) -> Self:
        """The groups of N samples by their prompts, scores (N, n). NaN counts nothing.

        Sums go in the order of the samples, so the same samples in one order give the same bits.
        """
        matrix = np.asarray(scores, dtype=np.float64)
        rows: dict[str, int] = {}
        at = np.fromiter((rows.setdefault(p, len(rows)) for p in prompts), np.int64, len(prompts))
        if len(at) != len(matrix):
            given = counted(len(at), "prompts")
            raise ValueError(f"{given} for {counted(len(matrix), 'samples')}; give one for each")
        known = np.isfinite(matrix)
        values = np.where(known, matrix, 0.0)

        def sums(of: Array) -> Array:
            columns = [np.bincount(at, column, len(rows)) for column in of.T]
            return np.array(columns, dtype=np.float64).reshape(matrix.shape[1], len(rows)).T

        counts = sums(known.astype(np.float64))
        means = sums(values) / np.maximum(counts, 1)
        squares = sums(np.where(known, values - means[at], 0.0) ** 2)
        return cls(rows=rows, counts=counts, means=means, squares=squares)

    def __add__(self, other: PromptGroups) -> PromptGroups:
        """The groups of both, samples of one prompt together (Chan, Golub & LeVeque 1983)."""
        rows = {prompt: row for row, prompt in enumerate({**self.rows, **other.rows})}
        (n, mean, squares), (m, theirs, more) = (one.at(list(rows)) for one in (self, other))
        total = np.maximum(n + m, 1)
        apart = theirs - mean
        return PromptGroups(
            rows=rows,
            counts=n + m,
            means=mean + apart * m / total,
            squares=squares + more + apart**2 * n * m / total,
        )

    def at(self, prompts: Sequence[str]) -> tuple[Array, Array, Array]:
        """Counts, means and squares of N prompts, (N, n) each; 0 for one that has no samples."""
        found = np.fromiter((self.rows.get(p, -1) for p in prompts), np.int64, len(prompts))
        there = (found >= 0)[:, None]
        if not self.rows:
            nothing = np.zeros((len(prompts), self.counts.shape[1]))
            return nothing, nothing, nothing
        counts, means, squares = (
            np.where(there, of[found], 0.0) for of in (self.counts, self.means, self.squares)
        )
        return counts, means, squares


@dataclass(frozen=True, kw_only=True)
class Centring:
    """What is known of the prompts of one reward, in the unit of its scores.

    Args:
        mean: μ, of all prompts.
        between: τ, the deviation of the prompts' means.
        within: σ, the deviation within a prompt, pooled over all of them.
        variation: how much prompts differ in their spread: the squared coefficient of variation of
            their variances.
    """

    mean: float
    between: float
    within: float
    variation: float

    def __post_init__(self) -> None:
        for field in fields(self):
            value = checks.number(
                getattr(self, field.name), f"centring: {field.name}", checks.MOST_SCORE
            )
            if field.name != "mean" and value < 0:
                raise InputError(f"centring: {field.name} must not be negative, not {value}")
            object.__setattr__(self, field.name, value)
        if self.within == 0:
            raise InputError("centring: within must be above 0")

    @classmethod
    def fit(cls, scores: ArrayLike, prompts: Sequence[str]) -> Self:
        """Fit to raw scores (N,) and the prompts of their samples.

        Variances are those of the analysis of variance for groups of unequal sizes (Searle, Casella
        & McCulloch 1992, section 3.6). A normal sample's variance over d degrees of freedom has the
        second moment σ_g⁴·(1 + 2/d), from which the variation of σ_g² follows.

        InputError if no prompt has two samples, or none differ within a prompt.
        """
        values = np.asarray(scores, dtype=np.float64)
        groups = PromptGroups.of(values[:, None], prompts)
        counts, means, squares = (a[:, 0] for a in (groups.counts, groups.means, groups.squares))
        several = counts > 1
        if not several.any():
            raise InputError(
                "no prompt has two samples to compare; `ric sample-prompts` draws several of each"
            )
        freedom = counts[several] - 1
        within = float(squares[several].sum() / freedom.sum())
        if within <= (ROUNDING * np.abs(values).max()) ** 2:
            raise InputError(
                "the samples of each prompt all score the same; a reward that does not vary within "
                "a prompt cannot be centred by it"
            )
        variances = squares[several] / freedom
        fourth = (freedom * variances**2 / (1 + 2 / freedom)).sum() / freedom.sum()
        between = _between(counts, means, within)
        weights = counts / (within + counts * between)
        return cls(
            mean=float((weights * means).sum() / weights.sum()),
            between=between**0.5,
            within=within**0.5,
            variation=max(0.0, float(fourth / within**2) - 1),
        )

    def centre(self, scores: Array, counts: Array, means: Array, squares: Array) -> Array:
        """N scores, compared with those of their prompt, of which the other arrays tell as
        ``PromptGroups.at`` gives them, (N,) each → (N,), in the unit of the scores.

        The prompt's mean is that of its n samples with the weight n·τ² / (n·τ² + σ²), else μ. Its
        variance, if variances are inverse gamma over prompts, is the mean of σ² and of that of its
        samples, weighted by k and n - 1, where k = 2 + 2 / variation (Gelman et al. 2013, section
        2.6). So a prompt of one sample has the spread of all, and one of many its own.
        """
        trust = counts * self.between**2 / (counts * self.between**2 + self.within**2)
        usual = self.mean + trust * (means - self.mean)
        each = self.variation / (2 * (1 + self.variation))  # 1 / k
        freedom = np.maximum(counts - 1, 0)
        variance = (self.within**2 + each * squares) / (1 + each * freedom)
        centred: Array = (scores - usual) * self.within / np.sqrt(variance)
        return centred

    def to_dict(self) -> dict[str, float]:
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Any) -> Self:
        return cls(**checks.fields(stored, (field.name for field in fields(cls)), "centring"))


def _between(counts: Array, means: Array, within: float) -> float:
    """The variance of the prompts' means, (G,), beyond what their samples' scatter makes of it."""
    total, prompts = counts.sum(), len(counts)
    if prompts == 1:
        return 0.0
    overall = (counts * means).sum() / total
    square = (counts * (means - overall) ** 2).sum() / (prompts - 1)
    size = (total - (counts**2).sum() / total) / (prompts - 1)
    return max(0.0, float((square - within) / size))
