"""What is random comes from the generator that is given, and from nowhere else."""

from __future__ import annotations

from collections.abc import Callable

import torch


def assert_only_the_generator_decides(drawn: Callable[[int], float]) -> None:
    """``drawn`` of a generator's seed is a number that torch's own seed does not change."""
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(drawn(5))
    assert found[0] == found[1] != drawn(6)
