"""Reward-conditioned reinforcement learning: one policy that is told the preference.

The idea of ParetoSlider (Golan et al. 2026, arXiv 2604.20816), on DDPO: every chain is drawn for a
preference of its own, uniform on the simplex, and rewarded by that. The policy reads it as our
adapters read targets: a token for each reward, and what these add to the embedding of the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from baselines.adapted import Adapted, as_targets
from baselines.base import Preference
from baselines.ddpo import ADVANTAGE_LIMIT, DdpoConfig, Task, encoded, remember, weighted
from baselines.ddpo_run import train_policy
from baselines.families import ADAPTER
from baselines.policy import Policy
from ric_diffusion.evaluation.method import weights_of
from ric_diffusion.io.run import RunFolder
from ric_diffusion.models.cost import Cost
from ric_diffusion.models.diffusion.backend import DiffusionConfig
from ric_diffusion.models.diffusion.context import Context
from ric_diffusion.models.family import family_of
from ric_diffusion.rewards import RewardSpace

WEIGHTS = "preference"  # among what a context has beside its states: (B, n), of sum 1


class ConditionedPolicy(Policy):
    """Draws each chain under the preference in its context, and what guidance steers away from
    without any, as our adapters do."""

    def branches(self, context: Context) -> Context:
        weights = context.extra[WEIGHTS]
        extra = {name: tensor for name, tensor in context.extra.items() if name != WEIGHTS}
        both = super().branches(replace(context, extra=extra))
        conditioner = self.pipe.adapter.conditioner
        told = [as_targets(row, conditioner.names) for row in weights.tolist()]
        return both.with_states(conditioner.context(both.states, [{}] * len(told) + told))


@dataclass(frozen=True, kw_only=True)
class AnyPreference(Task):
    """Weights drawn anew for every chain."""

    def weights(self, count: int, rng: np.random.Generator) -> np.ndarray:
        return rng.dirichlet(np.ones(len(self.space.names)), size=count)

    def context(self, prompts: Sequence[str], weights: np.ndarray) -> Context:
        context = encoded(self.pipe, prompts)
        told = torch.tensor(weights, dtype=torch.float32, device=context.states.device)
        return replace(context, extra={**context.extra, WEIGHTS: told})

    def advantages(
        self, history: np.ndarray, rows: np.ndarray, weights: np.ndarray, z: np.ndarray
    ) -> np.ndarray:
        return advantages(history, rows, weights, z, self.config.least)


def advantages(
    history: np.ndarray, rows: np.ndarray, weights: np.ndarray, z: np.ndarray, least: int
) -> np.ndarray:
    """How much more than usual each of N pictures is worth by its own preference: (N,), in standard
    deviations.

    A policy that follows preferences gives each its own rewards, so what is usual depends on prompt
    and preference: of the prompt ``rows`` (N,) at the weights w (N, n), z is usually m + B·(w - v),
    with m and v the means of the prompt's latest z and weights, these included, and B one matrix
    for all prompts, by least squares. The advantage is what z (N, n) is beyond that, weighted by w,
    over the root mean square of the same of the prompt's latest. So there are no buckets to sort
    preferences into, and with one preference for all it is DDPO's. ParetoSlider normalises every
    reward by itself before it weighs them; here they come in z, and their weighted sum is what DDPO
    is trained for. While a prompt is known by fewer than ``least``, all N are taken for its latest.
    Appends weights and z to ``history`` (Q, K, 2n), in place.
    """
    new = np.concatenate([weights, z], axis=1)
    latest = {row: remember(history[row], new[rows == row]) for row in np.unique(rows).tolist()}
    slope = _slope(history)
    result = np.empty(len(z))
    for row, known in latest.items():
        own, usual = rows == row, known if len(known) >= least else new
        mean = usual.mean(axis=0)
        spread = np.sqrt(np.square(_beyond(usual, mean, slope)).mean())
        result[own] = _beyond(new[own], mean, slope) / (spread + 1e-6)
    return result.clip(-ADVANTAGE_LIMIT, ADVANTAGE_LIMIT)


def _slope(history: np.ndarray) -> np.ndarray:
    """B (n, n) of rows w·B: how z follows the weights within the prompts of a history (Q, K, 2n).
    Nothing in directions in which the weights do not differ."""
    centred = [
        known - known.mean(axis=0)
        for known in (one[~np.isnan(one).any(axis=1)] for one in history)
        if len(known)
    ]
    w, z = np.split(np.concatenate(centred), 2, axis=1)
    slope: np.ndarray = np.linalg.lstsq(w, z, rcond=1e-6)[0]
    return slope


def _beyond(pictures: np.ndarray, mean: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Of weights and z (M, 2n): by how much z is beyond what is usual about their ``mean``, by the
    weights: (M,)."""
    w, z = np.split(pictures - mean, 2, axis=1)
    return weighted(z - w @ slope, pictures[:, : w.shape[1]])


def train_conditioned(
    model: str,
    space: RewardSpace,
    prompts: Sequence[str],
    scorers: Sequence[Any],
    config: DdpoConfig,
    out: Path,
    *,
    resume: bool = False,
    device: str | torch.device = "cpu",
) -> Cost:
    """Train a LoRA and a reward encoder for all preferences; returns the cost. See
    ``train_policy``."""
    run = RunFolder(out, "conditioned")
    run.check_free(resume=resume)
    sampling = {
        "num_inference_steps": config.num_inference_steps,
        "guidance_scale": config.guidance_scale,
        "eta": config.eta,
    }
    settings = DiffusionConfig(lora=config.lora, base_precision="fp32", sampling=sampling)
    backend = family_of(model).create_backend(
        model, space, settings, seed=config.seed, device=device
    )
    return train_policy(
        run,
        backend,
        AnyPreference,
        prompts,
        scorers,
        config,
        history=np.full((len(prompts), config.history, 2 * len(space.names)), np.nan),
        identity={"preference": "uniform"},
        policy=ConditionedPolicy,
        resume=resume,
    )


def conditioned_ddpo(name: str, sampler: Any, space: RewardSpace, run: Path) -> Adapted:
    """The policy of a run, told the preference."""

    def asked(preference: Preference) -> dict[str, float]:
        return as_targets(weights_of(preference, space).tolist(), space.names)

    return Adapted(name, sampler, {"ddpo": run / ADAPTER}, asked)
