"""Reward-conditioned DPO: one policy that reads the preference, trained on pairs of pictures.

The idea is MCDPO's (Jang et al. 2025, arXiv 2512.10237): the network is told which rewards the
preference of a pair is about, rewards are left out at random, and guidance goes from the network
that is told nothing to the one that is. MCDPO tells it in which rewards the winner is better, 1 or
-1, so that a request has no degrees. Here it is told the weights of the rewards, drawn anew for
each pair, and the winner is the picture with the higher weighted z: every point of a preference
sweep was trained. Where all rewards are left out either picture wins, which holds the network at
the base model. The loss is that of Diffusion-DPO (Wallace et al. 2023, arXiv 2311.12908, eq. 14).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from baselines.adapted import Adapted, as_targets
from baselines.base import Preference
from baselines.families import ADAPTER
from baselines.offline import adapter_backend, train_offline
from ric_diffusion.data.records import Record
from ric_diffusion.evaluation.method import weights_of
from ric_diffusion.io import config as configs
from ric_diffusion.io.errors import InputError
from ric_diffusion.models.cost import Cost
from ric_diffusion.models.diffusion.backend import DiffusionBackend, DiffusionConfig
from ric_diffusion.models.diffusion.context import Context
from ric_diffusion.models.protocol import Batch
from ric_diffusion.rewards import RewardSpace
from ric_diffusion.training.loop import LoopConfig


@dataclass(frozen=True, kw_only=True)
class DpoConfig:
    """``beta``: the factor of eq. 14, weights of noise levels aside, on the mean squared error over
    a latent's elements. ``learning_rate`` takes the place of the loop's."""

    beta: float = 20.0
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        configs.above_zero(self, "beta", "learning_rate")


def dpo_loss(
    policy: tuple[torch.Tensor, torch.Tensor],
    reference: tuple[torch.Tensor, torch.Tensor],
    beta: float,
) -> torch.Tensor:
    """Diffusion-DPO, eq. 14, for each pair, (B,). Both arguments hold the squared errors of the
    winners and of the losers, (B,) each, by the same noise and times."""
    (winner, loser), (base_winner, base_loser) = policy, reference
    return -F.logsigmoid(-beta * ((winner - base_winner) - (loser - base_loser)))


def siblings(records: Sequence[Record], buckets: np.ndarray) -> list[np.ndarray]:
    """For each record the others of its prompt, the first caption, that are drawn at one size."""
    groups: dict[tuple[str, int], list[int]] = {}
    keys = [
        (next(iter(record.captions), ""), int(bucket))
        for record, bucket in zip(records, buckets, strict=True)
    ]
    for i, key in enumerate(keys):
        groups.setdefault(key, []).append(i)
    return [np.array([j for j in groups[key] if j != i]) for i, key in enumerate(keys)]


def random_weights(count: int, names: Sequence[str], generator: torch.Generator) -> list[Any]:
    """``count`` preferences, uniform over all whose weights sum to 1, by name."""
    drawn = -torch.rand(count, len(names), generator=generator).clamp_min(1e-12).log()
    rows = (drawn / drawn.sum(dim=1, keepdim=True)).tolist()
    return [dict(zip(names, row, strict=True)) for row in rows]


def normalized(weights: Mapping[str, float]) -> dict[str, float]:
    """With the sum 1; what has no weight is left out."""
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items() if weight}


def values_of(weights: Mapping[str, float]) -> dict[str, float]:
    """What the reward encoder reads for weights with the sum 1, by name."""
    return as_targets([*weights.values()], [*weights])


def asked_of(preference: Preference, space: RewardSpace) -> dict[str, float]:
    """What the policy reads for a preference."""
    weights = weights_of(preference, space).tolist()
    return values_of(normalized(dict(zip(space.names, weights, strict=True))))


class Pairs:
    """A backend, prepared, whose loss is over pairs: a record, and another of its prompt.

    Its reward tokens read weights, as ``values_of`` has them, where they otherwise read z.
    """

    def __init__(self, backend: DiffusionBackend, beta: float) -> None:
        self.backend, self.beta = backend, beta
        assert backend.buckets is not None  # after prepare
        others = siblings(backend.records, backend.buckets)
        self.rows = np.array([i for i, some in enumerate(others) if len(some)], dtype=int)
        if not len(self.rows):
            raise InputError("DPO needs two pictures of one prompt; no first caption comes twice")
        self.others = [others[i] for i in self.rows]
        self.buckets = backend.buckets[self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def named_parameters(self) -> Mapping[str, torch.nn.Parameter]:
        return self.backend.named_parameters()

    def save(self, folder: Path) -> None:
        self.backend.save(folder)

    def load(self, folder: Path) -> None:
        self.backend.load(folder)

    def loss(self, batch: Batch) -> torch.Tensor:
        backend, generator = self.backend, batch.generator
        indices = list(batch.indices)
        draws = torch.rand(len(indices), 2, generator=generator).tolist()
        first = self.rows[indices].tolist()
        second = [
            int(self.others[i][int(draw[0] * len(self.others[i]))])
            for i, draw in zip(indices, draws, strict=True)
        ]
        assert backend.latents is not None
        views = [int(draw[1] * backend.latents.views) for draw in draws]
        names = backend.adapter.space.names
        prompts, kept = backend.config.dropout(
            [next(iter(backend.records[i].captions), "") for i in first],
            random_weights(len(first), names, generator),
            generator,
        )
        asked = [normalized(weights) for weights in kept]
        winners, losers = self.ordered(first, second, asked)
        context = backend.context(prompts, [values_of(weights) for weights in asked])
        seed = int(torch.randint(2**62, (), generator=generator))
        policy, reference = [], []
        for rows in (winners, losers):
            mean, std = backend.latents.moments(rows, views).unbind(1)
            latents = mean + std * torch.randn(mean.shape, generator=generator)
            own = self._sized(context, rows, views)
            levels, errors = self._errors(own, latents, seed)
            policy.append(errors)
            reference.append(self._reference_errors(own, latents, seed))
        losses = dpo_loss((policy[0], policy[1]), (reference[0], reference[1]), self.beta)
        batch.note(levels, losses)
        return losses.mean()

    def ordered(
        self, first: Sequence[int], second: Sequence[int], asked: Sequence[Mapping[str, float]]
    ) -> tuple[list[int], list[int]]:
        """Winners and losers of pairs of records, by the weighted z of what is asked. Of equal
        ones, and where nothing is asked, the first wins: either is as likely to be it."""
        names = self.backend.adapter.space.names
        weights = np.array([[one.get(name, 0.0) for name in names] for one in asked])
        margin = (weights * (self.backend.z[list(first)] - self.backend.z[list(second)])).sum(1)
        pairs = [
            (a, b) if m >= 0 else (b, a) for a, b, m in zip(first, second, margin, strict=True)
        ]
        return [winner for winner, _ in pairs], [loser for _, loser in pairs]

    def _sized(self, context: Context, rows: Sequence[int], views: Sequence[int]) -> Context:
        pictures = self.backend.pictures
        assert pictures is not None
        return self.backend.pipe.family.with_sizes(context, pictures.told(rows, views))

    def _errors(
        self, context: Context, latents: torch.Tensor, seed: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Noise levels and weighted squared errors, (B,) each, by the noise and times of a seed:
        what the objective notes of each sample."""
        backend, noted = self.backend, []
        network = backend.pipe.denoiser
        if not network.training:
            network.train()
        with backend.pipe.with_adapter():
            backend.objective.loss(
                backend.pipe.family.predictor(backend.pipe, context, backend.dtype),
                latents.to(backend.device),
                torch.Generator().manual_seed(seed),
                lambda levels, losses: noted.append((levels, losses)),
            )
        found: tuple[torch.Tensor, torch.Tensor] = noted[0]
        return found

    @torch.no_grad()
    def _reference_errors(self, context: Context, latents: torch.Tensor, seed: int) -> torch.Tensor:
        """Those of the base model, which knows of no reward."""
        tokens = len(self.backend.adapter.space.names)
        plain = context.with_states(context.states[:, :-tokens])
        with self.backend.pipe.without_adapter():
            return self._errors(plain, latents, seed)[1]


def train_dpo(
    model: str,
    records: Sequence[Record],
    folder: Path,
    space: RewardSpace,
    config: DiffusionConfig,
    loop: LoopConfig,
    settings: DpoConfig,
    out: Path,
    *,
    resume: bool = False,
    device: str | torch.device = "cpu",
) -> Cost:
    """Train a policy on pairs of ``records``, whose files lie in ``folder``: ``batch_size`` pairs
    to a step. Returns the cost, the reference's passes included.

    It trains the layers of ``config`` and, as ours, reward tokens. Leaves an adapter, whose values
    stand for weights, in ``out/adapter``, and ``cost.json``. ``resume`` goes on after an
    interruption, exactly. InputError if ``out`` holds another run, or no prompt has two pictures.
    """

    def prepared(backend: Any) -> tuple[Pairs, int]:
        pairs = Pairs(backend, settings.beta)
        return pairs, len(pairs)

    return train_offline(
        "dpo", model, records, folder, space, replace(config, mode="embedding"),
        replace(loop, learning_rate=settings.learning_rate), out,
        create=adapter_backend, prepared=prepared, about={"dpo": configs.to_dict(settings)},
        resume=resume, device=device,
    )  # fmt: skip


def conditioned(name: str, sampler: Any, space: RewardSpace, run: Path) -> Adapted:
    """The policy of a run, told the preference."""
    return Adapted(name, sampler, {"dpo": run / ADAPTER}, lambda w: asked_of(w, space))
