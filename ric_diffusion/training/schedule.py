"""What a step depends on, as pure functions of the config and the step's number.

Nothing is carried from step to step, so any step can be done again on its own: that is what makes
resuming exact.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from ric_diffusion.training.loop import LoopConfig
from ric_diffusion.training.rates import factor_of


def learning_rate(config: LoopConfig, step: int) -> float:
    """A linear warm-up whose first step is above 0, then the schedule as transformers has it."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    arguments = tuple(config.schedule_arguments.items())
    rate, warmup = config.learning_rate, config.warmup
    return rate * factor_of(config.schedule, arguments, rate, warmup, config.steps)(step)


def ema_decay(config: LoopConfig, step: int) -> float:
    """The average forgets faster at the start, when the weights are still far from any use."""
    return min(config.ema, (1.0 + step) / (10.0 + step))


def micro_batches(config: LoopConfig, step: int, *, process: int, processes: int) -> list[int]:
    """The numbers of the micro-batches that one process passes in one step: ``accumulate`` of them.

    They are counted over the whole run and all processes, which take turns.
    """
    first = step * config.accumulate
    return [(first + i) * processes + process for i in range(config.accumulate)]


class Batches:
    """The records of every micro-batch: each record once an epoch, all of a batch in one bucket.

    An epoch is a seeded permutation of every bucket, so any batch can be named without having drawn
    those before it. In a single bucket batches run across the borders of epochs. Where there are
    several, what is left of a bucket at an epoch's end is a smaller batch, and the batches of all
    buckets are shuffled.
    """

    def __init__(self, config: LoopConfig, buckets: np.ndarray) -> None:
        """``buckets``: the number of each record's bucket, (N,)."""
        self.config = config
        self.buckets = [np.flatnonzero(buckets == bucket) for bucket in np.unique(buckets)]
        self.per_epoch = sum(-(-len(rows) // config.batch_size) for rows in self.buckets)
        # Of the epoch that a batch is in, and of the next where it ends in that.
        self._epoch = lru_cache(maxsize=2)(self._draw)

    def indices(self, micro: int) -> tuple[int, ...]:
        """The records of micro-batch number ``micro``."""
        if len(self.buckets) > 1:
            epoch, batch = divmod(micro, self.per_epoch)
            order, ends = self._epoch(epoch)
            return tuple(order[slice(*ends[batch])].tolist())
        size, count = self.config.batch_size, len(self.buckets[0])
        chosen: list[int] = []
        while len(chosen) < size:
            epoch, offset = divmod(micro * size + len(chosen), count)
            chosen += self._epoch(epoch)[0][offset : offset + size - len(chosen)].tolist()
        return tuple(chosen)

    def _draw(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """An epoch's records in order, (N,), and where in them its batches begin and end."""
        size, seed = self.config.batch_size, self.config.seed
        order, ends, first = [], [], 0
        for bucket, rows in enumerate(self.buckets):
            # Even numbers: an odd one belongs to the order of the batches and to their generators.
            order.append(np.random.default_rng([seed, epoch, 2 * bucket]).permutation(rows))
            begins = np.arange(0, len(rows), size)
            ends.append(first + np.stack([begins, (begins + size).clip(max=len(rows))], axis=1))
            first += len(rows)
        shuffled = np.random.default_rng([seed, epoch, 3]).permutation(np.concatenate(ends))
        return np.concatenate(order), shuffled


def batch_generator(config: LoopConfig, micro: int) -> torch.Generator:
    """The generator of one micro-batch: noise, timesteps, dropout and augmentation."""
    seed = np.random.SeedSequence([config.seed, micro, 1]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(seed) & (2**63 - 1))
