"""The guard of the online rounds: a model that feeds on its own samples can collapse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from ric_diffusion.io.bounds import MOST_PER_PROMPT
from ric_diffusion.io.config import within
from ric_diffusion.io.errors import CollapseError, not_finite_error
from ric_diffusion.models.cost import Cost, Meter
from ric_diffusion.models.judge import diversity
from ric_diffusion.models.protocol import Backend
from ric_diffusion.training import processes

SEEDS = 4  # to a prompt
FIGURES = {"diversity": "diversity", "prompt_r_precision": "prompt R-precision"}


@dataclass(frozen=True, kw_only=True)
class GuardConfig:
    """The least fraction that must be left of what the starting adapter has: of the diversity (mean
    distance between samples of one prompt) and of the prompt R-precision (how often a sample is
    best explained by its own prompt), over ``samples`` samples with every reward on auto."""

    samples: int = 64
    diversity: float = 0.7
    prompt_r_precision: float = 0.9

    RENAMED: ClassVar[Mapping[str, str]] = {"prompt": "prompt_r_precision"}

    def __post_init__(self) -> None:
        within(self, 2 * SEEDS, MOST_PER_PROMPT, "samples")
        for name in FIGURES:
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise ValueError(f"{name} is {value}; give a fraction from 0 to 1")


@dataclass(frozen=True, kw_only=True)
class GuardFigures:
    """What the guard measures of one adapter, and what it cost to find out."""

    diversity: float
    prompt_r_precision: float
    cost: Cost


def mean_diversity(features: np.ndarray, prompts: Sequence[str]) -> float:
    """Over the prompts that have several samples; features (N, D), of unit length."""
    names = np.array(prompts)
    groups = [features[names == prompt] for prompt in dict.fromkeys(prompts)]
    return float(np.mean([diversity(group) for group in groups if len(group) > 1]))


class Guard:
    """Remembers the starting adapter's figures and compares later ones with them."""

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
        self.start = self._once(path)

    def _once(self, path: Path) -> GuardFigures:
        return processes.once(path, GuardFigures, self.measure, together=self.backend.sharded)

    def measure(self) -> GuardFigures:
        """The figures of the backend's adapter as it is."""
        meter = Meter()
        with meter.running(self.backend.network()):
            diversity, prompt_r_precision = self._figures()
        if not np.isfinite([diversity, prompt_r_precision]).all():  # which no bound would stop
            raise not_finite_error("the guard's figures of the model")
        return GuardFigures(
            diversity=diversity, prompt_r_precision=prompt_r_precision, cost=meter.read()
        )

    def _figures(self) -> tuple[float, float]:
        """Diversity and prompt R-precision; 0 if most samples can't be used."""
        backend = self.backend
        seeds = [self.seed + i % SEEDS for i in range(len(self.prompts))]
        samples = backend.sample(self.prompts, [{}] * len(self.prompts), seeds)
        usable = [i for i, s in enumerate(samples) if backend.medium.reject_reason(s) is None]
        if len(usable) < len(samples) / 2:
            return 0.0, 0.0
        samples, prompts = [samples[i] for i in usable], [self.prompts[i] for i in usable]
        spread = mean_diversity(backend.features(samples), prompts)
        return spread, float(backend.prompt_r_precision(prompts, samples).mean())

    def check(self, number: int, path: Path) -> GuardFigures:
        """The figures after round ``number``, measured unless ``path`` holds them; CollapseError if
        too little is left of them."""
        now = self._once(path)
        for name, title in FIGURES.items():
            figure, start = getattr(now, name), getattr(self.start, name)
            least = getattr(self.config, name) * start
            if figure < least:
                before = f"round {number - 1}" if number > 1 else "the start"
                raise CollapseError(
                    f"round {number}: {title} fell to {figure:.3f} from {start:.3f}, "
                    f"below {least:.3f}; stopped, the adapter of {before} is the last good one "
                    "(lower loop.learning_rate or loop.steps, or raise replay_fraction)"
                )
        return now
