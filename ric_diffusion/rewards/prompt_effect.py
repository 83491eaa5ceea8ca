"""What a prompt changes of a reward's curve, read off features of the prompt. Pure numpy.

A curve says what a model gives on average. A prompt gives more or less of it, and makes more or
less of a change of the request: an offset and a slope, each by ridge regression (Hoerl & Kennard
1970) over the calibration's prompts. How strong the ridge is, and whether there is anything to
keep, is decided by leaving out one prompt at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ric_diffusion.io.errors import InputError
from ric_diffusion.rewards import checks

Array = NDArray[np.float64]

LEAST_PROMPTS = 8  # of fewer, leaving one out tells nothing
MOST_FEATURES = 4096
# Of the ridge, over a kernel whose diagonal is 1 on average. Weaker ones follow single prompts, and
# what leaving one out promises of them, new prompts do not keep.
STRENGTHS = 10.0 ** np.arange(-1, 2.75, 0.25)
SHUFFLES, CHANCE = 199, 0.05  # of features among prompts; so many may do as well by chance
FLATTEST = -0.8  # the slope's least change: a slider never stands still or turns back
DIGITS = 6  # of what is stored


@dataclass(frozen=True, kw_only=True)
class Regression:
    """Features (D,) of a prompt -> ``bias + weights · features``, within ``limits``: what the
    calibration's own prompts have."""

    weights: tuple[float, ...]
    bias: float
    limits: tuple[float, float]

    def __post_init__(self) -> None:
        where = "calibration: prompt"
        weights = checks.numbers(self.weights, f"{where}: weights")
        limits = checks.numbers(self.limits, f"{where}: limits", checks.MOST_Z)
        if not 1 <= len(weights) <= MOST_FEATURES:
            raise InputError(f"{where}: weights must be 1 to {MOST_FEATURES} numbers")
        if len(limits) != 2 or limits[0] > limits[1]:
            raise InputError(f"{where}: limits must be two numbers, the lower first")
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "bias", checks.number(self.bias, f"{where}: bias"))
        object.__setattr__(self, "limits", limits)

    def of(self, features: ArrayLike) -> float:
        """InputError for other than D features."""
        row = np.asarray(features, float)
        if row.shape != (len(self.weights),):
            raise InputError(
                f"calibration: reads {len(self.weights)} features of a prompt, this model has "
                f"{row.size}; it was calibrated on another model"
            )
        return float(np.clip(self.bias + row @ np.array(self.weights), *self.limits))

    @classmethod
    def from_dict(cls, stored: Any) -> Self:
        given = checks.fields(stored, ("weights", "bias", "limits"), "calibration: prompt")
        return cls(**given)


@dataclass(frozen=True, kw_only=True)
class PromptEffect:
    """At z on the average curve a prompt gives ``z + offset + slope · (z - pivot)``.

    Attributes:
        offset, slope: None where prompts do not tell; not both.
        errors: of single samples, mean of |obtained - expected| in z by the curve alone, and with
            the effect of a prompt that was left out when it was fitted.
    """

    offset: Regression | None
    slope: Regression | None
    pivot: float
    errors: tuple[float, float]

    def __post_init__(self) -> None:
        where = "calibration: prompt"
        errors = checks.numbers(self.errors, f"{where}: errors", checks.MOST_Z)
        if len(errors) != 2:
            raise InputError(f"{where}: errors must be two numbers")
        object.__setattr__(self, "errors", errors)
        object.__setattr__(
            self, "pivot", checks.number(self.pivot, f"{where}: pivot", checks.MOST_Z)
        )
        parts = [part for part in (self.offset, self.slope) if part is not None]
        if len({len(part.weights) for part in parts}) != 1:
            raise InputError(f"{where}: offset and slope must read the same features")
        if self.slope is not None and self.slope.limits[0] < FLATTEST:
            raise InputError(f"{where}: slope must be {FLATTEST} or more")

    @property
    def features(self) -> int:
        """How many of a prompt it reads."""
        part = self.offset or self.slope
        assert part is not None
        return len(part.weights)

    def applied(self, z: ArrayLike, features: ArrayLike) -> Array:
        """Average z (P,) -> what the prompt with these features (D,) gives there."""
        average = np.asarray(z, float)
        offset = self.offset.of(features) if self.offset else 0.0
        slope = self.slope.of(features) if self.slope else 0.0
        moved: Array = average + offset + slope * (average - self.pivot)
        return moved

    @classmethod
    def from_dict(cls, stored: Any) -> Self:
        where = "calibration: prompt"
        given = checks.fields(stored, ("offset", "slope", "pivot", "errors"), where)
        for name in ("offset", "slope"):
            if given[name] is not None:
                given[name] = Regression.from_dict(given[name])
        return cls(**given)


def fit_effect(
    features: ArrayLike, expected: ArrayLike, obtained: ArrayLike
) -> PromptEffect | None:
    """What prompts change, from a sweep of Q prompts with S seeds each at P requests.

    Args:
        features: (Q, D), finite.
        expected: (P,) z by the average curve.
        obtained: (P, Q, S) z; NaN where a sample is left out.

    None if prompts change nothing, or nothing that their features tell.
    """
    x, curve = np.asarray(features, float), np.asarray(expected, float)
    residuals = np.asarray(obtained, float) - curve[:, None, None]
    pivot = float(curve.mean())
    rise = curve - pivot
    seeds = np.apply_along_axis(_line, 0, residuals, rise)  # (2, Q, S)
    known = np.any(np.isfinite(seeds[0]), axis=1)
    if known.sum() < LEAST_PROMPTS:
        return None
    x, seeds, residuals = x[known], seeds[:, known], residuals[:, known]
    kernel, to_weights = _kernel(x)
    parts: list[Regression | None] = []
    errors = residuals
    for each, along, least in (
        (seeds[0], np.ones_like(rise), -np.inf),
        (seeds[1], rise, FLATTEST),
    ):
        found = _ridge(kernel, each)
        if found is None:
            parts.append(None)
            continue
        dual, fitted, left_out = found
        limits = [max(round(float(end), DIGITS), least) for end in (fitted.min(), fitted.max())]
        weights = _rounded(to_weights(dual))
        bias = -float(x.mean(axis=0) @ weights)
        parts.append(
            Regression(weights=tuple(weights.tolist()), bias=bias, limits=(limits[0], limits[1]))
        )
        errors = errors - along[:, None, None] * np.clip(left_out, limits[0], limits[1])[:, None]
    offset, slope = parts
    if offset is None and slope is None:
        return None
    before, after = (float(np.nanmean(np.abs(one))) for one in (residuals, errors))
    if after >= before:
        return None
    return PromptEffect(offset=offset, slope=slope, pivot=pivot, errors=(before, after))


def _line(residuals: Array, rise: Array) -> Array:
    """Residuals (P,) along a curve that rises by ``rise`` (P,) -> offset and slope, (2,); NaN of
    fewer than two samples."""
    there = np.isfinite(residuals)
    if there.sum() < 2:
        return np.full(2, np.nan)
    design = np.stack([np.ones(there.sum()), rise[there]], axis=1)
    solved: Array = np.linalg.lstsq(design, residuals[there], rcond=None)[0]
    return solved


def _kernel(x: Array) -> tuple[Array, Callable[[Array], Array]]:
    """Features (Q, D) -> the products (Q, Q) of their standard scores, and what turns the dual
    coefficients (Q,) of a regression on them into weights (D,) of the features themselves."""
    scale = x.std(axis=0)
    varies = scale > 1e-9 * np.abs(x).max(initial=0.0)
    scale = np.where(varies, scale, 1.0)
    standard = np.where(varies, (x - x.mean(axis=0)) / scale, 0.0) / np.sqrt(max(varies.sum(), 1))

    def to_weights(dual: Array) -> Array:
        weights: Array = standard.T @ dual / scale / np.sqrt(max(varies.sum(), 1))
        return weights

    return standard @ standard.T, to_weights


def _ridge(kernel: Array, seeds: Array) -> tuple[Array, Array, Array] | None:
    """One number of each prompt's seeds (Q, S), NaN where unknown, on the kernel: the dual
    coefficients, and what is predicted with all prompts and without its own, (Q,) each.

    Prompts count by how much of their mean is theirs and not their few seeds', as in empirical
    Bayes (Efron & Morris 1975). None if prompts do not differ by more than their seeds do, or if
    their features tell no more about them than features of other prompts would.
    """
    count = np.isfinite(seeds).sum(axis=1)
    means = np.nanmean(seeds, axis=1)
    within = np.nansum((seeds - means[:, None]) ** 2) / max(np.sum(count - 1), 1)
    between = float(np.var(means, ddof=1) - np.mean(within / count))
    if between <= 0:
        return None
    noise = 1 + within / count / between  # 1 / reliability
    # The same shuffles for all strengths; the features stay, the prompts' numbers move.
    rng = np.random.default_rng(0)
    orders = np.array([rng.permutation(len(means)) for _ in range(SHUFFLES)])
    tried = np.concatenate([means[None], means[orders]]).T  # (Q, 1 + SHUFFLES)
    best = np.full(tried.shape[1], np.inf)
    found = None
    for strength in STRENGTHS:
        inverse = np.linalg.inv(kernel + strength * np.diag(noise))
        hat = kernel @ inverse
        missed = (tried - hat @ tried) / (1 - np.diag(hat))[:, None]
        loss = np.mean(missed**2 / noise[:, None], axis=0)
        if loss[0] < best[0]:
            found = inverse @ means, hat @ means, means - missed[:, 0]
        best = np.minimum(best, loss)
    as_good = (1 + np.sum(best[1:] <= best[0])) / (1 + SHUFFLES)
    helps = best[0] < np.mean(means**2 / noise) and as_good <= CHANCE
    return found if helps else None


def _rounded(values: Array) -> Array:
    """To DIGITS significant digits: more would only be noise in a file."""
    return np.array([float(f"{value:.{DIGITS - 1}e}") for value in values])
