"""Denoising diffusion policy optimisation (Black et al. 2023, arXiv 2305.13301).

The reward is the weighted z of the finished picture; the policy is the denoising chain.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from baselines.base import z_of
from baselines.policy import Policy, Rollout
from ric_diffusion.io.config import above_zero, at_least
from ric_diffusion.models.diffusion.backend import LoraConfig
from ric_diffusion.models.diffusion.context import Context
from ric_diffusion.rewards import RewardSpace
from ric_diffusion.training import checkpoint

ADVANTAGE_LIMIT = 5.0  # in standard deviations, as in the authors' code


@dataclass(frozen=True, kw_only=True)
class DdpoConfig:
    """One iteration draws ``batch_size`` pictures and then goes over them ``inner_epochs`` times,
    with an update for every ``minibatch``.

    ``clip``: how far a ratio of probabilities may leave 1, see policy.gaussian_log_prob for its
    scale. ``history``: rewards remembered for each prompt; with fewer than ``least`` of them an
    advantage is taken against the whole batch. ``precision``: as in a training's loop; by default
    the one in which an unchanged policy has ratios of 1 whatever the batch. The defaults are for
    emoji-64 on two CPU cores.
    """

    iterations: int = 100
    batch_size: int = 64
    minibatch: int = 32
    inner_epochs: int = 2
    learning_rate: float = 1e-3
    clip: float = 1e-3
    max_grad_norm: float = 1.0
    history: int = 32
    least: int = 8
    num_inference_steps: int = 20
    guidance_scale: float = 3.0
    eta: float = 1.0
    lora: LoraConfig = field(default_factory=LoraConfig)
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    seed: int = 0
    checkpoint_minutes: float = 5.0

    def __post_init__(self) -> None:
        at_least(
            self, 1, "iterations", "batch_size", "minibatch", "inner_epochs", "history", "least"
        )
        above_zero(self, "learning_rate", "clip", "max_grad_norm", "eta")
        if self.batch_size % self.minibatch:
            raise ValueError(f"batch_size is {self.batch_size}; give a multiple of minibatch")


@dataclass
class RunState(checkpoint.State):
    """With ``history`` (Q, K, …): what is remembered of the latest K pictures of every prompt, the
    latest last among those there are; NaN where there are fewer."""

    history: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))

    def tensors(self) -> dict[str, torch.Tensor]:
        return super().tensors() | {"history": torch.tensor(self.history)}

    def restore(
        self, tensors: Mapping[str, torch.Tensor], numbers: Mapping[str, Any] | None = None
    ) -> None:
        super().restore(tensors, numbers)
        self.history = tensors["history"].numpy().copy()


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is optimised, by whom, on which prompts; for which preferences, a subclass says."""

    pipe: Any
    policy: Policy
    config: DdpoConfig
    space: RewardSpace
    prompts: Sequence[str]
    scorers: Sequence[Any]

    def weights(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """The preferences that the next chains are drawn for, (count, n), each of sum 1."""
        raise NotImplementedError

    def context(self, prompts: Sequence[str], weights: np.ndarray) -> Context:
        """What chains of N prompts are drawn under for preferences (N, n)."""
        return encoded(self.pipe, prompts)

    def advantages(
        self, history: np.ndarray, rows: np.ndarray, weights: np.ndarray, z: np.ndarray
    ) -> np.ndarray:
        """How much better than usual pictures of the prompts ``rows`` (N,) are whose rewards are
        ``z`` (N, n), by preferences (N, n): (N,) in standard deviations. What is remembered of them
        goes into ``history``, in place."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class OnePreference(Task):
    """The same weights (n,) for all."""

    preference: np.ndarray

    def weights(self, count: int, rng: np.random.Generator) -> np.ndarray:
        return np.tile(self.preference, (count, 1))

    def advantages(
        self, history: np.ndarray, rows: np.ndarray, weights: np.ndarray, z: np.ndarray
    ) -> np.ndarray:
        return advantages(history, rows, weighted(z, weights), self.config.least)


def iterate(task: Task, state: RunState) -> dict[str, float]:
    """Draw, score and improve once; returns what is logged.

    All randomness comes from (seed, iteration), so that an iteration is repeatable on its own.
    """
    config = task.config
    rng = np.random.default_rng([config.seed, state.step])
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    rows = balanced(len(task.prompts), config.batch_size, rng)
    prompts = [task.prompts[i] for i in rows]
    weights = task.weights(len(rows), rng)
    drawn = draw(task.pipe, task.policy, task.context(prompts, weights), generator)
    pictures = decoded(task.pipe, drawn.latents[-1], config.minibatch)
    z = z_of(pictures, prompts, task.scorers, task.space)
    rejected = np.isnan(z).any(axis=1)
    if rejected.all():
        raise FloatingPointError(
            f"every picture of iteration {state.step} is blank; lower the learning rate"
        )
    means = dict(zip(task.space.names, z[~rejected].mean(axis=0).tolist(), strict=True))
    z[rejected] = worst(z[~rejected], weights[rejected])
    gains = task.advantages(state.history, rows, weights, z)
    figures = improve(task.policy, state, drawn, gains, config, generator)
    return {
        "reward": float(weighted(z, weights).mean()),
        "rejected": float(rejected.mean()),
        **{f"z/{name}": value for name, value in means.items()},
        **figures,
    }


def balanced(count: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """``size`` of ``count`` prompts by number, each as often as every other, give or take one."""
    whole = [rng.permutation(count) for _ in range(math.ceil(size / count))]
    return np.concatenate(whole)[:size]


def weighted(z: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """z (N, n) by weights (N, n): (N,)."""
    rewards: np.ndarray = (z * weights).sum(axis=1)
    return rewards


def worst(z: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Of z (M, n), the row that each of N weights (N, n) likes least: (N, n)."""
    return z[(weights @ z.T).argmin(axis=1)]


def draw(pipe: Any, policy: Policy, context: Context, generator: torch.Generator) -> Rollout:
    """One chain for each row of the context. FloatingPointError if any left the numbers."""
    denoiser = pipe.denoiser
    side = denoiser.config.sample_size
    shape = (len(context), denoiser.config.in_channels, side, side)
    start = torch.randn(shape, generator=generator).to(denoiser.device)
    drawn = policy.rollout(start, context, generator)
    if not drawn.latents.isfinite().all():
        raise FloatingPointError("the policy draws latents that are not finite; lower its rate")
    return drawn


@torch.no_grad()
def encoded(pipe: Any, prompts: Sequence[str]) -> Context:
    """The context of the prompts alone, as the stock pipeline has it."""
    context: Context = pipe.family.encode(pipe, [list(prompts)] * len(pipe.family.prompts))
    return context


@torch.no_grad()
def decoded(pipe: Any, latents: torch.Tensor, batch_size: int) -> list[Image.Image]:
    """Latents (N, C, H, W) -> pictures. One with numbers that are not finite becomes blank."""
    pictures: list[Image.Image] = []
    scaling = pipe.family.latents(pipe)
    for some in (latents / scaling.scale + scaling.shift).split(batch_size):
        pixels = pipe.vae.decode(some).sample
        whole = pixels.isfinite().all(dim=(1, 2, 3), keepdim=True)
        pictures += pipe.image_processor.postprocess(torch.where(whole, pixels, 0.0))
    return pictures


def advantages(
    history: np.ndarray, rows: np.ndarray, rewards: np.ndarray, least: int
) -> np.ndarray:
    """Rewards (N,) of the prompts ``rows`` (N,) in standard deviations from what is usual: (N,).

    Usual is the mean of the latest rewards of the same prompt, these included (Black et al.,
    section 5.2 and appendix), and that of all N while a prompt has fewer than ``least``. Appends
    the rewards to ``history`` (Q, K), in place.
    """
    result = np.empty(len(rewards))
    for row in np.unique(rows):
        own = rows == row
        latest = remember(history[row], rewards[own])
        usual = latest if len(latest) >= least else rewards
        result[own] = (rewards[own] - usual.mean()) / (usual.std() + 1e-6)
    return result.clip(-ADVANTAGE_LIMIT, ADVANTAGE_LIMIT)


def remember(history: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Append ``new`` (M, …) to the history (K, …) of a prompt, in place: the latest that it holds
    now, K at most."""
    known = history[~np.isnan(history).reshape(len(history), -1).any(axis=1)]
    latest = np.concatenate([known, new])[-len(history) :]
    history[: len(latest)] = latest
    return latest


def clipped_loss(ratio: torch.Tensor, gains: torch.Tensor, clip: float) -> torch.Tensor:
    """PPO's clipped surrogate, to be minimised: (B,), (B,) -> a scalar (Schulman et al. 2017,
    eq. 7)."""
    return -torch.minimum(ratio * gains, ratio.clamp(1 - clip, 1 + clip) * gains).mean()


def improve(
    policy: Policy,
    state: RunState,
    drawn: Rollout,
    advantage: np.ndarray,
    config: DdpoConfig,
    generator: torch.Generator,
) -> dict[str, float]:
    """The updates of one iteration on its chains, each over all steps of a minibatch of them.

    Returns the fraction of ratios that were clipped and the mean of (log ratio)² / 2, which is
    about the divergence from the policy that drew.
    """
    gains = torch.from_numpy(advantage).to(drawn.log_probs)
    decisions = policy.chain.decisions
    seen = []
    for _ in range(config.inner_epochs):
        order = torch.randperm(len(gains), generator=generator).to(gains.device)
        for rows in order.split(config.minibatch):
            for k in decisions:
                latents, after = drawn.latents[k, rows], drawn.latents[k + 1, rows]
                context = drawn.context.map(itemgetter(rows))
                new = policy.log_prob(latents, k, after, context)
                log_ratio = new - drawn.log_probs[k, rows]
                loss = clipped_loss(log_ratio.exp(), gains[rows], config.clip) / len(decisions)
                loss.backward()
                seen.append(log_ratio.detach())
            _step(state, config)
    log_ratios = torch.cat(seen)
    return {
        "clipped": ((log_ratios.exp() - 1).abs() > config.clip).float().mean().item(),
        "divergence": log_ratios.square().mean().item() / 2,
    }


def _step(state: RunState, config: DdpoConfig) -> None:
    norm = torch.nn.utils.clip_grad_norm_(state.parameters.values(), config.max_grad_norm).item()
    if not math.isfinite(norm):
        raise FloatingPointError(
            f"gradient is {norm} in iteration {state.step}: lower the learning rate or use fp32"
        )
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
