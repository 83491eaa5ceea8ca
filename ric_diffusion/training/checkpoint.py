"""Exact resume: parameters, their moving average and the optimizer's moments, in safetensors.

No random state is stored, because none is carried from step to step: each step derives its own
from (seed, step). A checkpoint folder is renamed into place when complete, so the newest one that
can be seen can be trusted.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from ric_diffusion.cost import Cost
from ric_diffusion.errors import InputError
from ric_diffusion.files import replacing_folder, write_json

_STEP = re.compile(r"step-(\d+)")


@dataclass
class State:
    """Everything a run carries from one step to the next."""

    parameters: Sequence[torch.nn.Parameter]
    average: list[torch.Tensor]
    optimizer: torch.optim.Optimizer
    step: int = 0
    losses: list[float] = field(default_factory=list)  # of the steps since the last log line

    def tensors(self) -> dict[str, torch.Tensor]:
        """Flat names -> detached tensors, as stored in the checkpoint."""
        named: dict[str, torch.Tensor] = {}
        for i, parameter in enumerate(self.parameters):
            named[f"parameter.{i}"] = parameter.detach()
            for key, value in self.optimizer.state[parameter].items():
                named[f"optimizer.{i}.{key}"] = value
        named |= {f"average.{i}": tensor for i, tensor in enumerate(self.average)}
        return {name: tensor.cpu().contiguous() for name, tensor in named.items()}

    @torch.no_grad()
    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Copy stored tensors back; the parameters must be those of the run that stored them."""
        for i, parameter in enumerate(self.parameters):
            parameter.copy_(tensors[f"parameter.{i}"])
            prefix = f"optimizer.{i}."
            self.optimizer.state[parameter] = {
                name.removeprefix(prefix): tensor
                # AdamW keeps its step count on the CPU, its moments beside the parameter
                if tensor.ndim == 0
                else tensor.to(parameter.device)
                for name, tensor in tensors.items()
                if name.startswith(prefix)
            }
        for i, average in enumerate(self.average):
            average.copy_(tensors[f"average.{i}"])


def newest(folder: Path) -> Path | None:
    """The checkpoint with the most steps in ``folder``, if there is one."""
    found = {int(m[1]): p for p in folder.glob("step-*") if (m := _STEP.fullmatch(p.name))}
    return found[max(found)] if found else None


def save(folder: Path, state: State, *, digest: str, cost: Cost | None = None) -> None:
    """Write ``folder/step-N`` and drop the older ones. ``digest`` names the run, ``cost`` is what
    it has spent."""
    for torn in folder.glob(".tmp-*"):  # of a process that was killed while it wrote
        shutil.rmtree(torn)
    with replacing_folder(folder / f"step-{state.step}") as temporary:
        save_file(state.tensors(), temporary / "state.safetensors")
        about = {"step": state.step, "losses": state.losses, "digest": digest}
        about["cost"] = (cost or Cost()).to_dict()
        write_json(temporary / "state.json", about)
    for other in folder.glob("step-*"):
        if _STEP.fullmatch(other.name) and other.name != f"step-{state.step}":
            shutil.rmtree(other)


def check(folder: Path, *, digest: str) -> dict[str, Any]:
    """``state.json`` of one checkpoint; InputError if another run wrote it."""
    about: dict[str, Any] = json.loads((folder / "state.json").read_text())
    if about["digest"] != digest:
        raise InputError(
            f"{folder}: written by a run with other settings or data; "
            "restore those, or choose another --out"
        )
    return about


def load(folder: Path, state: State, *, digest: str) -> Cost:
    """Read one checkpoint into ``state`` and return what the run had spent; InputError if another
    run wrote it."""
    about = check(folder, digest=digest)
    state.restore(load_file(folder / "state.safetensors"))
    state.step, state.losses = about["step"], about.get("losses", [])
    return Cost.from_dict(about["cost"])
