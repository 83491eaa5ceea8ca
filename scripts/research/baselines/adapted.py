"""Baselines that are adapters of our own format, asked in their own way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from baselines.base import BaseModel, Preference

Asked = Callable[[Preference], Mapping[str, float]]


def as_targets(weights: Sequence[float], names: Sequence[str]) -> dict[str, float]:
    """What a reward encoder reads for the weights of a preference: 0 to 1 as -2 to 2, where most
    targets of our adapters lie."""
    return {name: 4.0 * weight - 2.0 for name, weight in zip(names, weights, strict=True)}


class Adapted(BaseModel):
    """The base model under adapters, by name, which it has only while it draws.

    ``asked``: what the adapters are asked for a preference, by reward.
    """

    def __init__(self, name: str, sampler: Any, folders: Mapping[str, Path], asked: Asked) -> None:
        super().__init__(sampler)
        self.name, self.folders, self.asked = name, folders, asked

    def draw(
        self, preference: Preference, prompts: Sequence[str], seeds: Sequence[int]
    ) -> list[Any]:
        pipe = self.sampler.pipe
        try:
            for name, folder in self.folders.items():
                pipe.load_adapter(folder, name)
            asked = [self.asked(preference)] * len(prompts)
            samples: list[Any] = self.sampler.sample(prompts, asked, seeds)
        finally:
            pipe.unload_adapter()
        return samples
