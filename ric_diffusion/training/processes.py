"""What several processes that train one model do together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import Accelerator, PartialState
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from ric_diffusion.models.hardware import this_process
from ric_diffusion.models.sharding import apart, whole
from ric_diffusion.training import stored

T = TypeVar("T")


def once(path: Path, cls: type[T], make: Callable[[], T], *, together: bool = False) -> T:
    """As ``stored.once``, of all processes: the first makes what is not there, the others wait, or
    if it takes all ``together`` make the same."""
    process = this_process()
    if together and not agreed(path.exists()):
        made = make()
        if process.is_main_process:
            stored.write(path, made)
    elif process.is_main_process:
        stored.once(path, cls, make)
    process.wait_for_everyone()
    return stored.read(path, cls)


@torch.no_grad()
def average_gradients(
    parameters: Sequence[torch.nn.Parameter], figures: Sequence[float], accelerator: Accelerator
) -> list[float]:
    """Put the mean over all processes into every gradient, and return those of the figures.

    One call for everything: a buffer of the figures, of a mark for each parameter that has a
    gradient here, and of the gradients. A parameter may have one on some processes only, as a batch
    does not always need it; there it counts as 0. Where no process has one, there is none
    afterwards.
    """
    if accelerator.num_processes == 1:
        return list(figures)
    device, dtype = accelerator.device, torch.float32
    has = [parameter.grad is not None for parameter in parameters]
    head = torch.tensor([*figures, *map(float, has)], device=device, dtype=dtype)
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([head, *(grad.flatten().to(dtype) for grad in grads)])
    flat = accelerator.reduce(flat, reduction="mean")
    head, *means = flat.split([len(head), *(grad.numel() for grad in grads)])
    found: list[float] = head.tolist()
    marks = found[len(figures) :]
    for parameter, mark, grad, mean in zip(parameters, marks, grads, means, strict=True):
        if mark:
            parameter.grad = grad.copy_(mean.view_as(grad))
    return found[: len(figures)]


def clip_gradients(parameters: Sequence[torch.nn.Parameter], largest: float) -> float:
    """Scale all gradients to a norm of at most ``largest``, and return the norm that they had."""
    graded = [[p for p in some if p.grad is not None] for some in apart(parameters)]
    groups = [some for some in graded if some]
    norms = [whole(get_total_norm([p.grad for p in some])) for some in groups]
    norm = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
    for some in groups:
        clip_grads_with_norm_(some, largest, norm)
    return float(norm)


def agreed(value: bool) -> bool:
    """What the first process has."""
    process = this_process()
    if process.num_processes == 1:
        return value
    said = torch.tensor([value], dtype=torch.int32, device=process.device)
    torch.distributed.broadcast(said, src=0)
    return bool(said.item())


def leave(process: PartialState) -> None:
    """All processes leave their group together: one that dies before the other aborts it at its
    exit."""
    process.wait_for_everyone()
    process.destroy_process_group()
