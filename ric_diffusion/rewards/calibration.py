"""Calibration: what a model gives for what it is asked, turned around. Pure numpy."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ric_diffusion.io.bounds import MOST_POINTS
from ric_diffusion.io.errors import InputError
from ric_diffusion.rewards import checks
from ric_diffusion.rewards.prompt_effect import PromptEffect

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One reward, swept alone: at ``requested`` z the model gives ``obtained`` z on average.

    Both rise strictly. The reachable range is that of ``obtained``. ``prompt``: what a prompt
    changes of it, None where that is not known.
    """

    requested: tuple[float, ...]
    obtained: tuple[float, ...]
    prompt: PromptEffect | None = None

    def __post_init__(self) -> None:
        for key in ("requested", "obtained"):
            values = checks.numbers(getattr(self, key), f"calibration: {key}", checks.MOST_Z)
            if not 2 <= len(values) <= MOST_POINTS or any(np.diff(values) <= 0):
                raise InputError(f"calibration: {key} must be 2 to {MOST_POINTS} numbers that rise")
            object.__setattr__(self, key, values)
        if len(self.requested) != len(self.obtained):
            raise InputError("calibration: requested and obtained must be as long as each other")

    @classmethod
    def fit(cls, requested: ArrayLike, obtained: ArrayLike) -> Self | None:
        """The curve through a sweep's means, both (P,); None if nothing rises in it.

        Means that are not known (NaN) are left out. Those that fall are pooled first (isotonic
        regression, Barlow et al. 1972), since a slider that turns back cannot be turned around.
        """
        x, y = np.asarray(requested, float), np.asarray(obtained, float)
        order = np.argsort(x, kind="stable")
        order = order[np.isfinite(y[order])]
        x, y = _pooled(x[order], y[order])
        if len(x) < 2:
            return None
        return cls(requested=tuple(x.tolist()), obtained=tuple(y.tolist()))

    @property
    def reachable(self) -> tuple[float, float]:
        """The lowest and the highest z that can be had."""
        return self.obtained[0], self.obtained[-1]

    def request(self, z: float) -> float:
        """What to ask the model for so that it gives ``z``, or the nearest it can give."""
        return float(np.interp(z, self.obtained, self.requested))

    def clamp(self, z: float) -> float:
        """``z``, or the nearest value that can be had."""
        return float(np.clip(z, *self.reachable))

    def for_prompt(self, features: ArrayLike) -> Self:
        """The curve of the prompt with these features (D,), of which no other prompt is known."""
        if self.prompt is None:
            return self
        moved = self.prompt.applied(self.obtained, features)
        return replace(self, obtained=tuple(moved.tolist()), prompt=None)

    def to_dict(self) -> dict[str, Any]:
        """Plain data; without ``prompt`` where there is none, as releases before it wrote it."""
        plain = asdict(self)
        return plain if self.prompt else {k: v for k, v in plain.items() if k != "prompt"}

    @classmethod
    def from_dict(cls, stored: Any) -> Self:
        stored = {"prompt": None, **checks.mapping(stored, "calibration")}
        given = checks.fields(stored, ("requested", "obtained", "prompt"), "calibration")
        if given["prompt"] is not None:
            given["prompt"] = PromptEffect.from_dict(given["prompt"])
        return cls(**given)


def curves(stored: Mapping[str, Any]) -> dict[str, Curve]:
    """Curves by reward, from the JSON of `Curve.to_dict`."""
    return {
        name: Curve.from_dict(value)
        for name, value in checks.mapping(stored, "calibration").items()
    }


def _pooled(x: Array, y: Array) -> tuple[Array, Array]:
    """Neighbouring points whose y does not rise become one point, their mean in both."""
    blocks: list[tuple[float, float, int]] = []
    for point in zip(x.tolist(), y.tolist(), strict=True):
        block = (*point, 1)
        while blocks and blocks[-1][1] >= block[1]:
            a, b, n = blocks.pop()
            m = n + block[2]
            block = ((a * n + block[0] * block[2]) / m, (b * n + block[1] * block[2]) / m, m)
        blocks.append(block)
    pooled = np.array(blocks).reshape(-1, 3)
    return pooled[:, 0], pooled[:, 1]
