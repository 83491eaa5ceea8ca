"""Several conditioners as one: words follow one another, and so do tokens."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import torch

from ric_diffusion.conditioning.conditioner import Conditioner, Targets, TextConditioner, fitted


class JoinedConditioner:
    """Each says its own rewards, in their order; the ``silent`` ones say nothing at all."""

    def __init__(self, parts: Sequence[Conditioner], silent: Collection[Conditioner] = ()) -> None:
        self.parts = tuple(parts)
        self.speaking = tuple(part for part in parts if part not in silent)
        self.mode = " + ".join(dict.fromkeys(part.mode for part in parts))
        self.names = tuple(chain.from_iterable(part.names for part in parts))

    def texts(
        self, prompts: Sequence[str], targets: Sequence[Targets], tokenizers: Sequence[Any]
    ) -> list[str]:
        """The words of all of them share what a tokenizer has room for."""
        grammars = [part.grammar for part in self.speaking if isinstance(part, TextConditioner)]
        found = []
        for prompt, asked in zip(prompts, targets, strict=True):
            words = ""
            for grammar in grammars:
                prompt = grammar.escape(prompt)
                words += grammar.reward_words(own(asked, grammar.names))
            found.append(fitted(prompt, words, tokenizers))
        return found

    def context(self, states: torch.Tensor, targets: Sequence[Targets]) -> torch.Tensor:
        for part in self.speaking:
            states = part.context(states, [own(asked, part.names) for asked in targets])
        return states

    def context_of_states(self, states: torch.Tensor, targets: Sequence[Targets]) -> torch.Tensor:
        for part in self.speaking:
            states = part.context_of_states(states, [own(asked, part.names) for asked in targets])
        return states

    def steering(self, targets: Sequence[Targets], strength: float = 1.0) -> torch.Tensor | None:
        added = [
            part.steering([own(asked, part.names) for asked in targets], strength)
            for part in self.speaking
        ]
        given = [vectors for vectors in added if vectors is not None]
        return torch.stack(given).sum(dim=0) if given else None

    def check_width(self, width: int) -> None:
        for part in self.parts:
            part.check_width(width)

    def used(self, targets: Targets) -> dict[str, float]:
        """Without the rewards of those that are silent, which the model does not read."""
        found: dict[str, float] = {}
        for part in self.speaking:
            found |= part.used(own(targets, part.names))
        return found

    def named_parameters(self) -> Iterable[tuple[str, torch.nn.Parameter]]:
        return (
            (f"{number}.{name}", parameter)
            for number, part in enumerate(self.parts)
            for name, parameter in part.named_parameters()
        )

    def to(self, device: str | torch.device) -> None:
        for part in self.parts:
            part.to(device)


def own(values: Mapping[str, float], names: Collection[str]) -> dict[str, float]:
    """Those of the values by reward that are of these rewards."""
    return {name: value for name, value in values.items() if name in names}
