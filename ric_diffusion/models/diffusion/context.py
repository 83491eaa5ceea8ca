"""What a denoiser is conditioned on: states, what is pooled of them, and whatever else it takes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from pathlib import Path
from typing import Generic, TypeVar

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence

from ric_diffusion.io.errors import InputError
from ric_diffusion.models.diffusion.shards import ENDS, Shards, keys_of

CACHE_BYTES = 2**26  # of contexts held in memory
SHARD_BYTES, STORED_BYTES = 2**24, 2**34  # of contexts in a shard, and of all that are stored
STATES, POOLED = "states", "pooled"  # their names where contexts are stored
MASK = "mask"  # in ``extra``: (B, T) bool, which states are text, where a model reads no others


@dataclass(frozen=True, kw_only=True)
class Context:
    """A batch of B contexts.

    ``states`` (B, T, D): what attention reads, reward tokens at its end; ``pooled`` (B, P): a text
    as one vector, for denoisers that take it; ``extra``: more tensors with a row for each, by the
    name that the family gives them. Where one of these is the ``MASK``, of text and the padding
    after it, reward tokens come after the padding.
    """

    states: torch.Tensor
    pooled: torch.Tensor | None = None
    extra: Mapping[str, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def of_rows(cls, rows: Sequence[torch.Tensor]) -> Context:
        """States (T_i, D) of texts of several lengths, padded at the end and masked."""
        lengths = torch.tensor([len(row) for row in rows], device=rows[0].device)
        states = pad_sequence(list(rows), batch_first=True)
        mask = torch.arange(states.shape[1], device=states.device) < lengths[:, None]
        return cls(states=states, extra={MASK: mask})

    def rows(self) -> list[torch.Tensor]:
        """The inverse: each text's states without padding, reward tokens at their end."""
        mask = self.extra[MASK]
        texts, tokens = self.states.tensor_split([mask.shape[1]], dim=1)
        return [torch.cat([t[m], r]) for t, m, r in zip(texts, mask, tokens, strict=True)]

    def padded(self, length: int) -> Context:
        """With ``length`` states of text and padding, where a mask tells these apart."""
        if MASK not in self.extra:
            return self
        more = length - self.states.shape[1]
        mask = F.pad(self.extra[MASK], (0, more))
        states = F.pad(self.states, (0, 0, 0, more))
        return replace(self, states=states, extra={**self.extra, MASK: mask})

    def __len__(self) -> int:
        return len(self.states)

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Context:
        """The function of every tensor."""
        return Context(
            states=function(self.states),
            pooled=None if self.pooled is None else function(self.pooled),
            extra={name: function(tensor) for name, tensor in self.extra.items()},
        )

    def with_states(self, states: torch.Tensor) -> Context:
        return replace(self, states=states)

    def repeated(self, times: int) -> Context:
        """Every row so many times in a row."""
        return self.map(lambda tensor: tensor.repeat_interleave(times, dim=0))

    def chunk(self, count: int) -> list[Context]:
        """``count`` contexts of equally many rows, as torch's chunk."""
        rows = len(self) // count
        return [self.map(itemgetter(slice(i * rows, (i + 1) * rows))) for i in range(count)]

    def lerp(self, other: Context, weight: float) -> Context:
        """Between the two, ``weight`` of the way to the other. InputError for contexts that differ
        in length, masked or not: there is nothing between those."""
        ours, theirs = self.extra.get(MASK), other.extra.get(MASK)
        masked = ours is not None and theirs is not None and not torch.equal(ours, theirs)
        if self.states.shape != other.states.shape or masked:
            raise InputError(
                "prompt_guidance: contexts of this model are as long as their prompts, and these "
                "differ; leave it out"
            )

        def between(tensors: list[torch.Tensor]) -> torch.Tensor:
            one, another = tensors
            return one.lerp(another, weight) if one.is_floating_point() else one  # a mask

        return combined(between, [self, other])

    @property
    def nbytes(self) -> int:
        tensors = [self.states, *self.extra.values()]
        return sum(tensor.nbytes for tensor in tensors) + (
            0 if self.pooled is None else self.pooled.nbytes
        )


def combined(
    function: Callable[[list[torch.Tensor]], torch.Tensor], contexts: Sequence[Context]
) -> Context:
    """The function of the tensors of one name of all contexts, for every name."""
    first = contexts[0]
    pooled = [context.pooled for context in contexts if context.pooled is not None]
    return Context(
        states=function([context.states for context in contexts]),
        pooled=function(pooled) if pooled else None,
        extra={name: function([c.extra[name] for c in contexts]) for name in first.extra},
    )


def joined(contexts: Sequence[Context]) -> Context:
    """Several batches as one, padded to the longest where they have a mask."""
    longest = max(context.states.shape[1] for context in contexts)
    return combined(torch.cat, [context.padded(longest) for context in contexts])


T = TypeVar("T", bound=Hashable)


class ContextCache(Generic[T]):
    """The contexts of texts that frozen encoders have encoded, on the CPU, a row for each; a text
    is whatever ``encode`` takes several of.

    Up to ``limit`` bytes of them are in memory. More are in shards, once ``open`` has said where,
    for this run and later ones.
    """

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self.limit = limit
        self.rows: dict[T, Context] = {}
        self.nbytes = 0
        self.shards: Shards | None = None
        self._new: dict[T, Context] = {}  # for the next shard
        self._new_bytes = self._room = 0  # of these, and for more shards

    def open(self, folder: Path) -> None:
        """Read from the shards in ``folder`` and write to it: it must be of these encoders."""
        self.shards = Shards(folder)
        self._room = STORED_BYTES - self.shards.nbytes

    def get(
        self,
        texts: Sequence[T],
        encode: Callable[[list[T]], Context],
        device: torch.device | str,
    ) -> Context:
        """The contexts of these texts; ``encode`` is asked for those that are not known.

        Each is encoded alone: what a text encoder gives depends on its batch by a rounding error,
        and a run that is resumed has others to encode.
        """
        for text in dict.fromkeys(text for text in texts if text not in self.rows):
            new = self._stored(text)
            if new is None:
                with torch.no_grad():
                    new = encode([text]).map(lambda x: x.cpu())
                self._add(text, new)
            if self.nbytes + new.nbytes > self.limit:
                self.rows = {text: self.rows[text] for text in texts if text in self.rows}
                self.nbytes = sum(row.nbytes for row in self.rows.values())
            self.rows[text] = new
            self.nbytes += new.nbytes
        return joined([self.rows[text] for text in texts]).map(lambda x: x.to(device))

    def store(self) -> None:
        """Write what is not in a shard yet."""
        if self.shards is None or not self._new:
            return
        tensors: dict[str, torch.Tensor] = {}
        for name in _tensors(next(iter(self._new.values()))):
            rows = [_tensors(context)[name][0] for context in self._new.values()]
            tensors[name] = torch.cat(rows)
            tensors[name + ENDS] = torch.tensor([len(row) for row in rows]).cumsum(0)
        self.shards.write(keys_of((text,) for text in self._new), tensors)
        self.shards.refresh()
        self._new, self._new_bytes = {}, 0

    def _add(self, text: T, new: Context) -> None:
        """To what is stored, where there is room."""
        if self.shards is None or self._room < new.nbytes:
            return
        self._new[text] = new
        self._room -= new.nbytes
        self._new_bytes += new.nbytes
        if self._new_bytes >= SHARD_BYTES:
            self.store()

    def _stored(self, text: T) -> Context | None:
        if text in self._new:
            return self._new[text]
        if self.shards is None:
            return None
        ((place, row),) = self.shards.find(keys_of([(text,)])).tolist()
        if place < 0:
            return None
        shard = self.shards.shards[place]
        found = {name: shard.row(row, name)[None] for name in shard.names}
        states, pooled = found.pop(STATES), found.pop(POOLED, None)
        return Context(states=states, pooled=pooled, extra=found)


def _tensors(context: Context) -> dict[str, torch.Tensor]:
    """All tensors of a context by name."""
    pooled = {} if context.pooled is None else {POOLED: context.pooled}
    return {STATES: context.states, **pooled, **context.extra}
