"""What a denoiser reads beside noise, pass by pass."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

Pass = list[torch.Tensor]
# As stock pipelines call what belongs to a context in their calls of the denoiser.
READ = ("encoder_hidden_states", "pooled_projections", "text_embeds")


@contextmanager
def recorded(denoiser: torch.nn.Module) -> Iterator[list[Pass]]:
    """The contexts of all its passes inside the block, in order."""
    passes: list[Pass] = []

    def keep(_denoiser: Any, given: Sequence[Any], named: Mapping[str, Any]) -> None:
        named = {**named, **(named.get("added_cond_kwargs") or {})}
        found = [named[name] for name in READ if name in named]
        found += [each for each in given if isinstance(each, list)][-1:]  # Z-Image's, after latents
        tensors = [t for each in found for t in (each if isinstance(each, list) else [each])]
        passes.append([tensor.detach().clone() for tensor in tensors])

    hook = denoiser.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield passes
    finally:
        hook.remove()


def same(ones: Sequence[Pass], others: Sequence[Pass]) -> bool:
    """Whether these passes read the same, but for what text encoders round in larger batches."""
    assert all(ones) and all(others)
    return all(
        len(one) == len(other) and all(map(_near, one, other))
        for one, other in zip(ones, others, strict=True)
    )


def _near(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, atol=1e-5)
