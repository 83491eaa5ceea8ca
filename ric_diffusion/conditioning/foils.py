"""Is a prompt kept? A sample is told apart by what its model makes of it under other prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

FOILS = 3  # other prompts that a sample's own has to beat


def kept(prompts: Sequence[str], errors: Callable[[list[str]], np.ndarray]) -> np.ndarray:
    """How often a sample's own prompt explains it better than a foil, (N,) in [0, 1].

    ``errors``: a prompt for each of the N samples -> how badly it explains that sample, (N,). The
    foils of a prompt are the next FOILS of the others; with a single prompt, the empty one.
    """
    distinct = list(dict.fromkeys(prompts))
    number = {prompt: i for i, prompt in enumerate(distinct)}
    foils = [distinct[s:] + distinct[:s] for s in range(1, min(FOILS, len(distinct) - 1) + 1)]
    others = [[f[number[p]] for p in prompts] for f in foils] or [[""] * len(prompts)]
    own = errors(list(prompts))
    share: np.ndarray = np.mean([own < errors(other) for other in others], axis=0)
    return share
