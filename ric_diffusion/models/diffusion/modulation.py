"""The second way in for reward tokens: they also shift what modulates every block of the denoiser.

Attention that was trained without the tokens gives them next to none of its weight, and in a small
U-Net it is missing at the finest level; the embedding of the time scales and shifts every block.
SDXL's size conditioning enters there too (Podell et al. 2023, section 2.2).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ric_diffusion.conditioning.encoder import RewardEncoder


class Modulation:
    """Hooks on a denoiser that add the ``time_shift`` of its context to what ``layer`` gives, the
    part of it that embeds the time.

    While they are attached, every context of a pass in which it ``reads`` must end in the tokens of
    all encoders, in their order; in other passes nothing is added.
    Reading them from the context leaves it the only thing that pipelines, batching and guidance
    have to carry; and reading them anew in every pass, which is a small matrix product, leaves
    nothing behind that a changed context could contradict.
    """

    def __init__(
        self,
        denoiser: torch.nn.Module,
        layer: torch.nn.Module,
        encoders: Sequence[tuple[RewardEncoder, float]],
        argument: str,
        *,
        reads: Callable[[], bool],
    ) -> None:
        """``encoders``: each with the scale of its shift; ``argument``: what the denoiser calls its
        context, a tensor (B, T, D) or one for each."""
        self.encoders = tuple(encoders)
        self.count = sum(len(encoder.names) for encoder, _ in encoders)
        self.argument = argument
        self.reads = reads
        self.position = list(inspect.signature(denoiser.forward).parameters).index(argument)
        self.shift: torch.Tensor | None = None
        self.hooks = (
            denoiser.register_forward_pre_hook(self._read, with_kwargs=True),
            layer.register_forward_hook(self._add),
        )

    def _read(self, _denoiser: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self.shift = None
        if not self.reads():
            return
        given = kwargs[self.argument] if len(args) <= self.position else args[self.position]
        if isinstance(given, Sequence):  # of several lengths
            tokens = torch.stack([context[-self.count :] for context in given])
        else:
            tokens = given[:, -self.count :]
        self.shift = self.shift_of(tokens)

    def shift_of(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, count, D) tokens -> what they add to the embedding, (B, W)."""
        shifts, end = [], self.count
        for encoder, scale in reversed(self.encoders):
            if encoder.time_width:
                if encoder.to_time.weight.device != tokens.device:
                    encoder.to(tokens.device)
                shifts.append(scale * encoder.time_shift(tokens[:, :end]))
            end -= len(encoder.names)
        return torch.stack(shifts).sum(dim=0)

    def _add(self, _layer: Any, _inputs: Any, embedding: torch.Tensor) -> torch.Tensor:
        if self.shift is None:  # nothing was read, or another network has the layer in it too
            return embedding
        shifted = embedding + self.shift.to(embedding.dtype)
        self.shift = None
        return shifted
