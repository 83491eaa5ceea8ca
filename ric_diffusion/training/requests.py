"""What a round asks the model for: prompts in turn, with targets near the front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ric_diffusion.rewards import RewardSpace, to_targets


@dataclass(frozen=True, kw_only=True)
class SampleRequest:
    """One sample to be drawn: its prompt, its targets in z, and its seed."""

    prompt: str
    targets: Mapping[str, float]
    seed: int


def draw_requests(
    prompts: Sequence[str],
    space: RewardSpace,
    mapping: str,
    *,
    count: int,
    exploration: float,
    rng: np.random.Generator,
) -> list[SampleRequest]:
    """``count`` requests. Every prompt comes as often as every other, give or take one; the
    preferences are drawn evenly from the simplex and turned into targets by ``mapping``, and each
    target goes up to ``exploration`` z beyond that."""
    names = space.names
    turns = [rng.permutation(len(prompts)) for _ in range(-(-count // len(prompts)))]
    chosen = np.concatenate(turns)[:count].tolist()
    weights = rng.dirichlet(np.ones(len(names)), count).tolist()
    beyond = (exploration * rng.random((count, len(names)))).tolist()
    seeds = rng.integers(2**31, size=count).tolist()
    requests = []
    for prompt, weight, more, seed in zip(chosen, weights, beyond, seeds, strict=True):
        target = to_targets(dict(zip(names, weight, strict=True)), space, mapping)
        target = {name: target[name] + z for name, z in zip(names, more, strict=True)}
        requests.append(SampleRequest(prompt=prompts[prompt], targets=target, seed=seed))
    return requests
