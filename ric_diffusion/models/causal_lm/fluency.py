"""How likely the base model finds what was said: rewards can be had by writing nonsense."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

LogLikelihood = Callable[[Sequence[str], Sequence[str]], np.ndarray]


class Fluency:
    """A held-out scorer of responses: their log-likelihood under the base model, mean per token.

    ``log_likelihood``: N prompts and responses → (N,) in nats; ``weights``: the digest of the
    model that it asks, ``limits`` how many tokens it reads. What it costs is part of judging, not
    of drawing.
    """

    name = "fluency"
    unit = "nat"

    def __init__(
        self, log_likelihood: LogLikelihood, weights: str, limits: Mapping[str, int]
    ) -> None:
        self._log_likelihood = log_likelihood
        told = " ".join(f"{key}={value}" for key, value in limits.items())
        self.fingerprint = f"{self.name} model={weights} {told}"

    def __call__(self, samples: Sequence[str], prompts: Sequence[str]) -> np.ndarray:
        return np.asarray(self._log_likelihood(prompts, samples), np.float32)
