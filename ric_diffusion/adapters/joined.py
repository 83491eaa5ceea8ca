"""Several adapters of one model, as one adapter."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, NoReturn, Self

from ric_diffusion.adapters.adapter import Adapter
from ric_diffusion.conditioning.conditioner import TextConditioner
from ric_diffusion.conditioning.joined import JoinedConditioner, own
from ric_diffusion.io.errors import InputError
from ric_diffusion.rewards import RewardSpace


@dataclass(frozen=True, kw_only=True)
class JoinedAdapter(Adapter):
    """The rewards of all of them in load order, each asked as its own adapter asks it.

    Attributes:
        parts: the adapters by name.
        silent: the names of those that are scaled to 0: their rewards are there, and nobody reads
            them.
    """

    parts: Mapping[str, Adapter]
    silent: Collection[str] = ()

    @classmethod
    def of(cls, parts: Mapping[str, Adapter], silent: Collection[str] = ()) -> Self:
        """Where two of them give an argument of sampling, the first one's holds. InputError, by
        name, for rewards or reward words that two of them have."""
        check_distinct(parts)
        adapters = list(parts.values())
        first = adapters[0]
        return cls(
            parts=parts,
            silent=silent,
            family=first.family,
            base_model=first.base_model,
            space=RewardSpace.joined([adapter.space for adapter in adapters]),
            conditioner=JoinedConditioner(
                [adapter.conditioner for adapter in adapters],
                silent=[parts[name].conditioner for name in silent],
            ),
            mapping=first.mapping,
            sampling=dict(
                chain.from_iterable(adapter.sampling.items() for adapter in reversed(adapters))
            ),
            calibration=dict(
                chain.from_iterable(adapter.calibration.items() for adapter in adapters)
            ),
            lora=any(adapter.lora for adapter in adapters),
        )

    def mapped(
        self, preference: Mapping[str, float], mapping: str | None = None
    ) -> dict[str, float]:
        """Each adapter maps its own weights, in its own space and by its own mapping unless one is
        given. One whose weights are all 0 is left on auto: nothing is preferred about it.

        The rewards of one are a trade-off with each other, as its training data have it; what one
        adapter gives takes nothing from another.
        """
        weights = self.space.check_preference(preference)
        found: dict[str, float] = {}
        for part in self.parts.values():
            given = own(weights, part.space.names)
            if any(given.values()):
                found |= part.mapped(given, mapping)
        return found

    def unreachable(self, targets: Mapping[str, float]) -> list[str]:
        unread = [
            f"{reward}: not asked for, its adapter {name!r} is scaled to 0"
            for name in self.silent
            for reward in own(targets, self.parts[name].space.names)
        ]
        return unread + super().unreachable(
            {reward: z for reward, z in targets.items() if reward in self.conditioner.used(targets)}
        )

    def check_text(self) -> NoReturn:
        raise InputError(f"{_names(self.parts)}: ask one of the adapters for its text")

    def about(self) -> NoReturn:
        raise InputError(f"{_names(self.parts)}: a folder holds one adapter; save each by its name")


def check_distinct(parts: Mapping[str, Adapter]) -> None:
    """InputError if a reward is in two adapters, or a word stands for a reward in each of two."""
    whose: dict[str, str] = {}
    for name, adapter in parts.items():
        words = [f"reward {reward}" for reward in adapter.space.names]
        if isinstance(adapter.conditioner, TextConditioner):
            words += [f"reward word <{label}>" for label in adapter.conditioner.grammar.labels]
        for word in words:
            if word in whose:
                raise InputError(
                    f"adapters {whose[word]!r} and {name!r} both have the {word}; unload one of "
                    "them first, or load the new one under the other's name"
                )
            whose[word] = name


def _names(parts: Mapping[str, Any]) -> str:
    return ", ".join(parts)
