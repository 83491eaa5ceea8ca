"""The guard of the online rounds: a model that feeds on its own samples can collapse."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ric_diffusion.backend import Backend, diversity
from ric_diffusion.cost import Meter
from ric_diffusion.errors import CollapseError
from ric_diffusion.files import write_json

SEEDS = 4  # to a prompt


@dataclass(frozen=True, kw_only=True)
class GuardConfig:
    """How much of what the starting adapter has must be left: of the diversity (mean distance
    between samples of one prompt) and of the prompt figure (how often a sample is best explained by
    its own prompt), over ``samples`` samples with every reward on auto."""

    samples: int = 64
    diversity: float = 0.7
    prompt: float = 0.9

    def __post_init__(self) -> None:
        if self.samples < 2 * SEEDS:
            raise ValueError(f"samples is {self.samples}; give {2 * SEEDS} or more")
        for name in ("diversity", "prompt"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise ValueError(f"{name} is {value}; give a share from 0 to 1")


def mean_diversity(features: np.ndarray, prompts: Sequence[str]) -> float:
    """Over the prompts that have several samples; features (N, D), of unit length."""
    names = np.array(prompts)
    groups = [features[names == prompt] for prompt in dict.fromkeys(prompts)]
    return float(np.mean([diversity(group) for group in groups if len(group) > 1]))


class Guard:
    """Remembers the starting model's figures and compares later ones with them."""

    def __init__(
        self,
        config: GuardConfig,
        backend: Backend,
        prompts: Sequence[str],
        path: Path,
        *,
        seed: int,
    ) -> None:
        """Measures ``backend`` unless ``path`` holds its figures from before."""
        self.config, self.backend, self.seed = config, backend, seed
        rng = np.random.default_rng([seed, 2**31])
        count = min(len(prompts), config.samples // SEEDS)
        chosen = sorted(rng.permutation(len(prompts))[:count].tolist())
        self.prompts = [prompts[i] for i in chosen for _ in range(SEEDS)]
        if not path.exists():
            write_json(path, self.measure())
        self.start: dict[str, Any] = json.loads(path.read_text())

    def measure(self) -> dict[str, Any]:
        """Diversity and prompt figure of the model as it is, and what it cost to find out."""
        meter = Meter()
        with meter.running(self.backend.watched()):
            figures = self._figures()
        return {**figures, "cost": meter.read().to_dict()}

    def _figures(self) -> dict[str, float]:
        seeds = [self.seed + i % SEEDS for i in range(len(self.prompts))]
        samples = self.backend.sample(self.prompts, [{}] * len(self.prompts), seeds)
        sound = [i for i, sample in enumerate(samples) if self.backend.fault(sample) is None]
        if len(sound) < len(samples) / 2:
            return {"diversity": 0.0, "prompt": 0.0}
        samples, prompts = [samples[i] for i in sound], [self.prompts[i] for i in sound]
        return {
            "diversity": mean_diversity(self.backend.features(samples), prompts),
            "prompt": float(self.backend.prompt_kept(prompts, samples).mean()),
        }

    def check(self, number: int, path: Path) -> dict[str, Any]:
        """The figures after round ``number``, measured unless ``path`` holds them; CollapseError if
        too little is left of them."""
        if not path.exists():
            write_json(path, self.measure())
        now: dict[str, Any] = json.loads(path.read_text())
        for name in ("diversity", "prompt"):
            least = getattr(self.config, name) * self.start[name]
            if now[name] < least:
                before = f"round {number - 1}" if number > 1 else "the start"
                raise CollapseError(
                    f"round {number}: {name} fell to {now[name]:.3f} from {self.start[name]:.3f}, "
                    f"below {least:.3f}; stopped, the adapter of {before} is the last good one "
                    "(lower loop.learning_rate or loop.steps, or raise originals)"
                )
        return now
