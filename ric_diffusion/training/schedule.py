"""What a step depends on, as pure functions of the config and the step's number.

Nothing is carried from step to step, so any step can be done again on its own: that is what makes
resuming exact.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch

from ric_diffusion.training.loop import LoopConfig


def learning_rate(config: LoopConfig, step: int) -> float:
    """Linear warm-up from 0, then constant or a cosine to 0 at the last step."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    if config.schedule == "constant":
        return config.learning_rate
    done = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done))


def ema_decay(config: LoopConfig, step: int) -> float:
    """The average forgets faster at the start, when the weights are still far from any use."""
    return min(config.ema, (1.0 + step) / (10.0 + step))


def micro_batches(config: LoopConfig, step: int, *, process: int, processes: int) -> list[int]:
    """The numbers of the micro-batches that one process passes in one step: ``accumulate`` of them.

    They are counted over the whole run and all processes, which take turns.
    """
    first = step * config.accumulate
    return [(first + i) * processes + process for i in range(config.accumulate)]


def batch_indices(config: LoopConfig, count: int, micro: int) -> tuple[int, ...]:
    """The records of micro-batch number ``micro``, out of ``count``.

    Every epoch is its own seeded permutation and batches run across epoch borders, so any batch
    can be named without having drawn those before it.
    """
    first = micro * config.batch_size
    chosen: list[int] = []
    while len(chosen) < config.batch_size:
        epoch, offset = divmod(first + len(chosen), count)
        order = _order(config.seed, epoch, count)
        chosen += order[offset : offset + config.batch_size - len(chosen)].tolist()
    return tuple(chosen)


@lru_cache(maxsize=2)  # of the epoch that a batch is in, and of the next where it ends in that
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(count)


def batch_generator(config: LoopConfig, micro: int) -> torch.Generator:
    """The generator of one micro-batch: noise, timesteps, dropout and augmentation."""
    seed = np.random.SeedSequence([config.seed, micro, 1]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(seed) & (2**63 - 1))
