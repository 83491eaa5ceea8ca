"""Both conditioning modes behind one protocol: what is said in text, what in tokens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol

import torch

from ric_diffusion.conditioning.encoder import RewardEncoder, as_values
from ric_diffusion.conditioning.grammar import Grammar, fit_prompt, rounded
from ric_diffusion.io.errors import InputError

Targets = Mapping[str, float]
Mode = Literal["embedding", "text"]
Words = Literal["words", "upstream"]  # presets of the grammar


class Conditioner(Protocol):
    """How targets enter the context. Both methods are called, in this order, in training,
    inference and evaluation alike."""

    mode: str
    names: tuple[str, ...]

    def texts(
        self, prompts: Sequence[str], targets: Sequence[Targets], tokenizers: Sequence[Any]
    ) -> list[str]:
        """The text to encode for each prompt, within the length of every tokenizer."""

    def context(self, states: torch.Tensor, targets: Sequence[Targets]) -> torch.Tensor:
        """Encoder hidden states (B, T, D) of those texts -> context (B, T', D)."""

    def context_of_states(self, states: torch.Tensor, targets: Sequence[Targets]) -> torch.Tensor:
        """The same for states that a user computed; InputError where only text can say it."""

    def steering(self, targets: Sequence[Targets], strength: float = 1.0) -> torch.Tensor | None:
        """What the rewards add to the states of every layer, (B, layers, D); None for nothing.
        ``strength`` scales how far that is from what is added with all of them on auto."""

    def check_width(self, width: int) -> None:
        """InputError if the context of a model of this width cannot hold what is learned."""

    def used(self, targets: Targets) -> dict[str, float]:
        """The values in z that the model really reads."""

    def named_parameters(self) -> Iterable[tuple[str, torch.nn.Parameter]]:
        """What is learned beside the model itself, by name."""

    def to(self, device: str | torch.device) -> None:
        """Move what is learned. An optimizer and an average are made of it before the first
        context is, and that is where it moves otherwise."""


def fitted(prompt: str, words: str, tokenizers: Sequence[Any]) -> str:
    """Prompt and words within the length of every tokenizer; see ``fit_prompt``."""
    text = prompt + words
    for tokenizer in tokenizers:
        text = fit_prompt(text.removesuffix(words) if words else text, words, tokenizer)
    return text


class TextConditioner:
    """Rewards as words behind the prompt."""

    mode = "text"

    def __init__(self, grammar: Grammar) -> None:
        self.grammar = grammar
        self.names = grammar.names

    def texts(
        self, prompts: Sequence[str], targets: Sequence[Targets], tokenizers: Sequence[Any]
    ) -> list[str]:
        return [
            fitted(self.grammar.escape(p), self.grammar.reward_words(t), tokenizers)
            for p, t in zip(prompts, targets, strict=True)
        ]

    def context(self, states: torch.Tensor, targets: Sequence[Targets]) -> torch.Tensor:
        return states

    def context_of_states(self, states: torch.Tensor, targets: Sequence[Targets]) -> torch.Tensor:
        if any(targets):
            raise InputError(
                "prompt_embeds: this adapter reads rewards from the prompt's text; give prompt"
            )
        return states

    def steering(self, targets: Sequence[Targets], strength: float = 1.0) -> torch.Tensor | None:
        return None

    def check_width(self, width: int) -> None:
        """Words fit every model."""

    def used(self, targets: Targets) -> dict[str, float]:
        return rounded(targets)

    def named_parameters(self) -> Iterable[tuple[str, torch.nn.Parameter]]:
        return ()

    def to(self, device: str | torch.device) -> None:
        """Words are nowhere."""


class EmbeddingConditioner:
    """Rewards as learned tokens behind the text's hidden states, one for each reward."""

    mode = "embedding"

    def __init__(self, encoder: RewardEncoder) -> None:
        self.encoder = encoder
        self.names = encoder.names

    def texts(
        self, prompts: Sequence[str], targets: Sequence[Targets], tokenizers: Sequence[Any]
    ) -> list[str]:
        return list(prompts)

    def context(self, states: torch.Tensor, targets: Sequence[Targets]) -> torch.Tensor:
        self.encoder.to(states.device)
        tokens = self.encoder(self._values(targets)).to(states.dtype)
        return torch.cat([states, tokens], dim=1)

    def context_of_states(self, states: torch.Tensor, targets: Sequence[Targets]) -> torch.Tensor:
        return self.context(states, targets)

    def steering(self, targets: Sequence[Targets], strength: float = 1.0) -> torch.Tensor | None:
        steer = self.encoder.steering
        if steer is None:
            return None
        vectors: torch.Tensor = steer(self._values(targets))
        return vectors if strength == 1 else steer(self._values([{}])).lerp(vectors, strength)

    def _values(self, targets: Sequence[Targets]) -> torch.Tensor:
        """(B, n) z, where the encoder is."""
        return as_values(targets, self.names).to(self.encoder.identity.device)

    def check_width(self, width: int) -> None:
        if width != self.encoder.width:
            raise InputError(
                f"reward tokens are {self.encoder.width} wide, the model's context is {width}: "
                "the adapter was trained on another architecture"
            )

    def used(self, targets: Targets) -> dict[str, float]:
        return dict(targets)

    def named_parameters(self) -> Iterable[tuple[str, torch.nn.Parameter]]:
        return self.encoder.named_parameters()

    def to(self, device: str | torch.device) -> None:
        self.encoder.to(device)


def new_conditioner(
    mode: Mode,
    grammar: Words,
    names: tuple[str, ...],
    width: int,
    *,
    time_width: int = 0,
    layers: int = 0,
) -> Conditioner:
    """An untrained one for these rewards; words know nothing of widths."""
    if mode == "embedding":
        encoder = RewardEncoder(names, width, time_width=time_width, layers=layers)
        return EmbeddingConditioner(encoder)
    return TextConditioner(Grammar.preset(grammar, names))
