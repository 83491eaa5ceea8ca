"""The second way in for reward tokens: they also shift what modulates every block of the denoiser.

Attention that was trained without the tokens gives them next to none of its weight, and in a small
U-Net it is missing at the finest level; the embedding of the time scales and shifts every block.
SDXL's size conditioning enters there too (Podell et al. 2023, section 2.2).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ric_diffusion.conditioning.encoder import RewardEncoder


class Modulation:
    """Hooks on a denoiser that add the encoder's ``time_shift`` of its context to what ``layer``
    gives, the part of it that embeds the time.

    While they are attached, every context must end in reward tokens. Reading them from the context
    leaves it the only thing that pipelines, batching and guidance have to carry.
    """

    def __init__(
        self,
        denoiser: torch.nn.Module,
        layer: torch.nn.Module,
        encoder: RewardEncoder,
        argument: str,
    ) -> None:
        """``argument``: what the denoiser calls its context, a tensor (B, T, D) or one for each."""
        self.encoder = encoder
        self.argument = argument
        self.position = list(inspect.signature(denoiser.forward).parameters).index(argument)
        self.context: torch.Tensor | None = None
        self.shift: torch.Tensor | None = None
        self.running = False
        self.hooks = (
            denoiser.register_forward_pre_hook(self._read, with_kwargs=True),
            layer.register_forward_hook(self._add),
        )

    def _read(self, _denoiser: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        given = kwargs[self.argument] if len(args) <= self.position else args[self.position]
        context = self._tokens(given) if isinstance(given, Sequence) else given
        if torch.is_grad_enabled() or context is not self.context:
            self.shift = self.encoder.to(context.device).time_shift(context)
        # All steps of a call share one context. In training the encoder changes in between.
        self.context = None if torch.is_grad_enabled() else context
        self.running = True

    def _tokens(self, contexts: Sequence[torch.Tensor]) -> torch.Tensor:
        """The last tokens of contexts (T, D) of several lengths."""
        return torch.stack([context[-len(self.encoder.names) :] for context in contexts])

    def _add(self, _layer: Any, _inputs: Any, embedding: torch.Tensor) -> torch.Tensor:
        if not self.running:  # a ControlNet may share the layer, and was trained without rewards
            return embedding
        assert self.shift is not None
        self.running = False
        shifted = embedding + self.shift.to(embedding.dtype)
        if self.context is None:
            self.shift = None  # it holds a graph
        return shifted

    def detach(self) -> None:
        for hook in self.hooks:
            hook.remove()
