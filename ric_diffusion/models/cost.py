"""The cost meter: what a method really spends, counted where it is spent."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch

COST = "cost.json"  # beside what was made at that cost; training runs write it last


@dataclass
class Cost:
    """``forwards``: samples passed forward through the network, a backward pass counting two
    more; ``scored``: calls of a scorer, by sample; ``seconds``: wall time. Of several processes it
    is the sum."""

    forwards: int = 0
    scored: int = 0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.forwards + other.forwards, self.scored + other.scored, self.seconds + other.seconds
        )

    def __sub__(self, other: Cost) -> Cost:
        return Cost(
            self.forwards - other.forwards, self.scored - other.scored, self.seconds - other.seconds
        )

    def to_dict(self) -> dict[str, float]:
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Cost:
        return cls(**stored)


class Meter:
    """Counts whatever happens inside ``running``, beginning with what was ``spent`` before."""

    def __init__(self, spent: Cost | None = None) -> None:
        self._cost = spent or Cost()
        self._since: float | None = None

    def read(self) -> Cost:
        """What was spent so far."""
        now = self._cost
        running = 0.0 if self._since is None else time.monotonic() - self._since
        return Cost(now.forwards, now.scored, now.seconds + running)

    def add(self, cost: Cost) -> None:
        """Count in what was spent elsewhere, say before an interruption."""
        self._cost += cost

    @contextmanager
    def running(self, *networks: torch.nn.Module) -> Iterator[Meter]:
        """Count the forward passes of ``networks`` and the time until the block is left.

        Every pass that keeps a graph is taken to be followed by its backward pass.
        """
        hooks = [network.register_forward_hook(self._count) for network in networks]
        self._since = time.monotonic()
        try:
            yield self
        finally:
            self._cost, self._since = self.read(), None
            for hook in hooks:
                hook.remove()

    def _count(self, network: torch.nn.Module, given: Any, output: Any) -> None:
        if isinstance(output, Mapping):  # of which a loss has no samples
            output = [value for value in output.values() if _holds_samples(value)]
        samples = output if isinstance(output, torch.Tensor) else output[0]
        self._cost.forwards += len(samples) * (3 if samples[0].requires_grad else 1)

    def metered(self, scorers: Sequence[Any]) -> list[Any]:
        """The scorers, each of whose calls is counted from now on."""
        return [_Metered(scorer, self) for scorer in scorers]


def _holds_samples(value: Any) -> bool:
    """Whether an output is a tensor with a row for each sample, or a list with one for each."""
    return isinstance(value, list) or (torch.is_tensor(value) and value.ndim > 0)


class _Metered:
    """A scorer that counts the samples it is called with."""

    def __init__(self, scorer: Any, meter: Meter) -> None:
        self._scorer, self._meter = scorer, meter

    def __call__(self, samples: Sequence[Any], prompts: Sequence[str]) -> Any:
        self._meter.add(Cost(scored=len(samples)))
        return self._scorer(samples, prompts)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scorer, name)
