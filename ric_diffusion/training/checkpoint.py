"""Exact resume: parameters, their moving average and the optimizer's moments, in safetensors.

No random state is stored, because none is carried from step to step: each step derives its own
from (seed, step). A checkpoint folder is renamed into place when complete, with a manifest of its
files. The one before is kept beside it: should the newest be damaged since, a run goes on from
there.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ric_diffusion.io.errors import InputError, reason_of
from ric_diffusion.io.files import replacing_folder, write_json
from ric_diffusion.io.manifest import DamagedError, check_manifest, write_manifest
from ric_diffusion.io.strict_json import read_json
from ric_diffusion.io.tensors import save_tensors
from ric_diffusion.models.cost import Cost
from ric_diffusion.models.hardware import this_process
from ric_diffusion.models.sharding import fill, sharded_as, whole
from ric_diffusion.training.figures import StepFigures

FOLDER = "checkpoints"  # of a run
TENSORS, NUMBERS = "state.safetensors", "state.json"
KEPT = 2  # checkpoints of a run
_STEP = re.compile(r"step-(\d+)")
_log = logging.getLogger(__name__)


def no_scaler() -> torch.amp.GradScaler:
    """One that leaves losses and gradients as they are."""
    return torch.amp.GradScaler("cpu", enabled=False)


@dataclass
class State:
    """Everything a run carries from one step to the next. The average may be left out; ``scaler``
    scales the loss where passes are in float16."""

    parameters: Mapping[str, torch.nn.Parameter]
    optimizer: torch.optim.Optimizer  # of these parameters, in their order
    average: Mapping[str, torch.Tensor] = field(default_factory=dict)
    scaler: torch.amp.GradScaler = field(default_factory=no_scaler)
    step: int = 0
    since_log: list[StepFigures] = field(default_factory=list)  # of the steps since the last line

    def __post_init__(self) -> None:
        self._made = [_settings(group) for group in self.optimizer.param_groups]

    def tensors(self) -> dict[str, torch.Tensor]:
        """``parameter.NAME``, ``average.NAME`` and ``optimizer.NAME.exp_avg`` and so on, detached,
        on the CPU, none of which shares its memory: as a checkpoint stores them. Where some are in
        shards, all processes ask together, and the first gets an answer."""
        named = {f"parameter.{name}": p.detach() for name, p in self.parameters.items()}
        named |= {f"average.{name}": tensor for name, tensor in self.average.items()}
        for name, parameter in self.parameters.items():
            for key, value in self._moments(parameter).items():
                if isinstance(value, torch.Tensor):
                    named[f"optimizer.{name}.{key}"] = value
        stored, addresses = {}, set()
        first = this_process().is_main_process
        for name, tensor in named.items():
            tensor = whole(tensor)
            if not first:
                continue
            tensor = tensor.cpu().contiguous()
            # bitsandbytes has one table of 8-bit numbers for all parameters.
            shared = tensor.numel() and tensor.data_ptr() in addresses
            stored[name] = tensor.clone() if shared else tensor
            addresses.add(tensor.data_ptr())
        return stored

    def numbers(self) -> dict[str, Any]:
        """What the optimizer carries that is no tensor, as plain data: ``groups``, the settings of
        each group of parameters that it has changed, and ``moments`` by parameter."""
        groups = [
            {key: value for key, value in _settings(group).items() if value != made.get(key)}
            for group, made in zip(self.optimizer.param_groups, self._made, strict=True)
        ]
        moments = {
            name: {k: v for k, v in self._moments(p).items() if not isinstance(v, torch.Tensor)}
            for name, p in self.parameters.items()
        }
        return {"groups": groups, "moments": {name: each for name, each in moments.items() if each}}

    def _moments(self, parameter: torch.nn.Parameter) -> Mapping[str, Any]:
        return self.optimizer.state.get(parameter, {})

    @torch.no_grad()
    def restore(
        self, tensors: Mapping[str, torch.Tensor], numbers: Mapping[str, Any] | None = None
    ) -> None:
        """Copy stored tensors and numbers back; InputError, and nothing is copied, if they are not
        of this model's parameters."""
        for difference in self._differences(tensors):
            raise InputError(f"stored for another model: {difference}; choose another --out")
        for name, parameter in self.parameters.items():
            fill(parameter, tensors[f"parameter.{name}"])
        for name, average in self.average.items():
            fill(average, tensors[f"average.{name}"])
        # Not by load_state_dict, which would cast what an optimizer keeps in another precision.
        self.optimizer.state.clear()
        for stored, tensor in tensors.items():
            section, _, rest = stored.partition(".")
            if section == "optimizer":
                name, _, key = rest.rpartition(".")
                parameter = self.parameters[name]
                self.optimizer.state[parameter][key] = sharded_as(tensor, parameter).clone()
        numbers = numbers or {"groups": [], "moments": {}}
        for name, moments in numbers["moments"].items():
            self.optimizer.state[self.parameters[name]].update(moments)
        for group, changed in zip(self.optimizer.param_groups, numbers["groups"], strict=False):
            group.update(changed)

    def _differences(self, tensors: Mapping[str, torch.Tensor]) -> Iterator[str]:
        """What keeps stored tensors from being this state's."""
        held: list[tuple[str, Mapping[str, torch.Tensor]]] = [
            ("parameter", self.parameters),
            ("average", self.average),
        ]
        for section, own in held:
            start = f"{section}."
            found = {k.removeprefix(start): t for k, t in tensors.items() if k.startswith(start)}
            yield from (f"{section} {name} is missing" for name in own if name not in found)
            for name, tensor in found.items():
                if name not in own:
                    yield f"{section} {name} is none of this model's"
                elif tensor.shape != own[name].shape:
                    shapes = f"{tuple(tensor.shape)}, here {tuple(own[name].shape)}"
                    yield f"{section} {name} has the shape {shapes}"
        for stored, tensor in tensors.items():
            name, _, key = stored.removeprefix("optimizer.").rpartition(".")
            if stored.startswith("optimizer.") and (
                name not in self.parameters
                # Moments may be rows and columns, or parts: at most as many numbers. A table of
                # 8-bit numbers has its own size.
                or (tensor.numel() > self.parameters[name].numel() and not key.startswith("qmap"))
            ):
                yield f"{stored} fits no parameter"


def _settings(group: Mapping[str, Any]) -> dict[str, Any]:
    """What an optimizer has for a group of parameters, beside these."""
    return {key: value for key, value in group.items() if key != "params"}


def checkpoints(folder: Path) -> list[Path]:
    """Those in ``folder``, the one with the most steps first."""
    found = [path for path in folder.glob("step-*") if _STEP.fullmatch(path.name)]
    return sorted(found, key=step_of, reverse=True)


def newest(folder: Path) -> Path | None:
    """The checkpoint with the most steps in ``folder``, if there is one."""
    return next(iter(checkpoints(folder)), None)


def step_of(path: Path) -> int:
    """How many steps a run had taken at a checkpoint."""
    return int(path.name.removeprefix("step-"))


def save(folder: Path, state: State, *, digest: str, cost: Cost | None = None) -> None:
    """Write ``folder/step-N``. Once what is there is what was written, all but the one before are
    removed. ``digest`` names the run, ``cost`` is what it has spent. Of several processes, the
    first writes."""
    tensors = state.tensors()
    if not this_process().is_main_process:
        return
    for torn in folder.glob(".tmp-*"):  # of a process that was killed while it wrote
        shutil.rmtree(torn)
    path = folder / f"step-{state.step}"
    with replacing_folder(path) as temporary:
        save_tensors(temporary / TENSORS, tensors)
        about = {"step": state.step, "digest": digest, "optimizer": state.numbers()}
        about["since_log"] = [asdict(figures) for figures in state.since_log]
        about["scaler"] = state.scaler.state_dict()
        about["cost"] = (cost or Cost()).to_dict()
        write_json(temporary / NUMBERS, about)
        write_manifest(temporary, [TENSORS, NUMBERS])
    check_manifest(path, [TENSORS, NUMBERS])
    for other in checkpoints(folder):
        if step_of(other) > state.step:  # damaged, or the run would have gone on from there
            shutil.rmtree(other)
    for other in checkpoints(folder)[KEPT:]:
        shutil.rmtree(other)


def resume(folder: Path, state: State, *, digest: str) -> Cost | None:
    """Read the newest checkpoint in ``folder`` into ``state`` and return what the run had spent;
    None if there is none. One that is damaged is named, and the one before is read.

    InputError if another run wrote it, or if every one is damaged.
    """
    damage: DamagedError | None = None
    for path in checkpoints(folder):
        try:
            check_manifest(path, [TENSORS, NUMBERS])
        except DamagedError as error:
            _log.warning("%s; going on from the checkpoint before", error)
            damage = damage or error
            continue
        return load(path, state, digest=digest)
    if damage:
        raise InputError(f"{damage}; no other checkpoint is left, so delete {folder} to begin anew")
    return None


def check(folder: Path, *, digest: str) -> dict[str, Any]:
    """The numbers of one checkpoint; InputError if another run wrote it."""
    about: dict[str, Any] = read_json(folder / NUMBERS)
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
    try:
        state.restore(load_file(folder / TENSORS), about["optimizer"])
    except SafetensorError as error:
        raise InputError(f"{folder / TENSORS}: holds no tensors ({reason_of(error)})") from None
    except InputError as error:
        raise InputError(f"{folder}: {error}") from None
    state.step = about["step"]
    state.since_log = [StepFigures(**figures) for figures in about["since_log"]]
    state.scaler.load_state_dict(about["scaler"])
    return Cost.from_dict(about["cost"])
