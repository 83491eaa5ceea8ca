"""Whether what a pipeline drew is made of numbers: judged on latents and on what is decoded from
them, before a picture of 8 bits makes a colour of whatever is not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class Watch:
    """What was decoded inside a block of ``watching``."""

    def __init__(self) -> None:
        self._rows: list[torch.Tensor] = []  # (B,) of each call, still on its device

    def see(self, latents: torch.Tensor, decoded: torch.Tensor) -> None:
        self._rows.append(finite_rows(latents) & finite_rows(decoded))

    def finite(self, images: Any) -> list[bool]:
        """For each of the N images of a pipeline's output whether all of it is finite: by what was
        decoded last, N of it, or of latents that nobody decoded by themselves."""
        count = len(images)
        if isinstance(images, torch.Tensor) and not self._rows:
            rows = finite_rows(images)
        else:
            rows = torch.cat([torch.ones(0, dtype=torch.bool), *(row.cpu() for row in self._rows)])
        found: list[bool] = rows[-count:].tolist()
        return found if len(found) == count else [all(found)] * count


def finite_rows(tensor: torch.Tensor) -> torch.Tensor:
    """(N, …) -> (N,) bool."""
    return tensor.flatten(1).isfinite().all(1)


@contextmanager
def watching(vae: Any) -> Iterator[Watch]:
    """Inside the block it is noted of all that the autoencoder decodes whether it is finite; what
    it gives stays as it is."""
    watch = Watch()
    network = getattr(vae, "_orig_mod", vae)  # inside what torch.compile made of it
    if network is None:
        yield watch
        return
    decode, own = network.decode, vars(network).get("decode")

    def decode_watched(z: Any, *args: Any, **kwargs: Any) -> Any:
        output = decode(z, *args, **kwargs)
        watch.see(z, output[0])
        return output

    network.decode = decode_watched
    try:
        yield watch
    finally:
        if own is None:
            del network.decode
        else:
            network.decode = own
