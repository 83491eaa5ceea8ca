"""How the LoRA of an adapter lies in its folder: as diffusers writes it, or as peft does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from ric_diffusion.adapters import lora
from ric_diffusion.adapters.kohya import Kohya
from ric_diffusion.io.errors import InputError, reason_of
from ric_diffusion.io.files import write_json
from ric_diffusion.io.strict_json import parse_json, read_json
from ric_diffusion.io.tensors import check_finite, save_tensors, stored_tensors
from ric_diffusion.rewards import checks

Value = TypeVar("Value")

DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"
DIFFUSERS_KEY = "lora_adapter_metadata"  # of peft's settings, in the file's metadata
PEFT_FILE, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"
PEFT_PREFIX = "base_model.model."  # of the names in peft's files


class LoraFormat(Protocol):
    @property
    def files(self) -> tuple[str, ...]:
        """Those that make a folder one of this format, by name."""

    def read(self, folder: Path) -> lora.Lora:
        """The LoRA of an adapter folder. InputError if it holds none of this format."""

    def write(self, folder: Path, weights: lora.Lora, about: Mapping[str, Any]) -> None:
        """Write it into a folder that is still being made, with what the adapter is."""


@dataclass(frozen=True)
class DiffusersFormat:
    """One safetensors file that stock pipelines load, the adapter's JSON in its metadata.

    ``component``: the name of the pipeline's part that adapters are for. Every key begins with the
    name of the part that is changed, and goes on with that network's own names of its layers.
    ``kohya``: the names that kohya's programs have for its layers, None if they know no such model.
    """

    component: str
    kohya: Kohya | None = None
    files: tuple[str, ...] = (DIFFUSERS_FILE,)

    def read(self, folder: Path) -> lora.Lora:
        found = _read_parts(folder / DIFFUSERS_FILE)
        main = found.pop(self.component, lora.NO_LORA)
        return lora.Lora(tensors=main.tensors, config=main.config, beside=found)

    def write(self, folder: Path, weights: lora.Lora, about: Mapping[str, Any]) -> None:
        metadata = self.metadata(weights) | {"ric_adapter": json.dumps(about)}
        save_tensors(folder / DIFFUSERS_FILE, self.state(weights), metadata)

    def state(self, weights: lora.Lora) -> dict[str, torch.Tensor]:
        """The tensors of a LoRA under diffusers' names."""
        return {
            f"{part}.{key}": tensor
            for part, one in self.parts(weights).items()
            for key, tensor in one.tensors.items()
        }

    def metadata(self, weights: lora.Lora) -> dict[str, str]:
        """What diffusers reads beside them, alpha among it."""
        settings = {
            f"{part}.{key}": value
            for part, one in self.parts(weights).items()
            for key, value in one.config.items()
        }
        return {"format": "pt", DIFFUSERS_KEY: json.dumps(settings)}

    def parts(self, weights: lora.Lora) -> dict[str, lora.Lora]:
        """What a LoRA changes, by the name of the pipeline's part."""
        return {part or self.component: one for part, one in weights.parts.items()}


@dataclass(frozen=True)
class PeftFormat:
    """peft's own two files, which stock peft loads."""

    files: tuple[str, ...] = (PEFT_FILE, PEFT_CONFIG)

    def read(self, folder: Path) -> lora.Lora:
        try:
            config = checks.mapping(read_json(folder / PEFT_CONFIG), PEFT_CONFIG)
            with safe_open(folder / PEFT_FILE, framework="pt") as file:
                there = _without_prefix(stored_tensors(file))
            lora.check_stored(there, config)
            tensors = _without_prefix(load_file(folder / PEFT_FILE))
            check_finite(tensors)
        except Exception as error:  # safetensors raises types of its own
            reason = reason_of(error)
            raise InputError(f"{folder}: holds no LoRA of a language model ({reason})") from error
        return lora.Lora(tensors=tensors, config=config)

    def write(self, folder: Path, weights: lora.Lora, about: Mapping[str, Any]) -> None:
        tensors = {f"{PEFT_PREFIX}{k}": v for k, v in weights.tensors.items()}
        save_tensors(folder / PEFT_FILE, tensors, {"format": "pt"})
        settings = {**weights.config, "base_model_name_or_path": about["base_model"]}
        write_json(folder / PEFT_CONFIG, settings | {"task_type": "CAUSAL_LM"})


def read_diffusers(path: Path) -> lora.Lora:
    """A LoRA file of diffusers for one part of a pipeline. InputError if it is not one."""
    found = _read_parts(path)
    if len(found) > 1:
        raise InputError(f"{path}: changes {' and '.join(found)}, where one part is expected")
    return next(iter(found.values()))


def _read_parts(path: Path) -> dict[str, lora.Lora]:
    """The LoRA of each part of a pipeline, by its name. InputError if the file is none of ours."""
    try:
        with safe_open(path, framework="pt") as file:
            there = stored_tensors(file)
            text = (file.metadata() or {})[DIFFUSERS_KEY]
            config = checks.mapping(parse_json(text, DIFFUSERS_KEY), DIFFUSERS_KEY)
            parts = sorted({name.partition(".")[0] for name in there})
            if not parts or any("." not in name for name in there):
                raise ValueError("unexpected tensors" if parts else "no tensors")
            for part in parts:
                lora.check_stored(_below(part, there), _below(part, config))
            tensors = {name: file.get_tensor(name) for name in there}
        check_finite(tensors)
    except Exception as error:  # safetensors raises types of its own
        reason = reason_of(error)
        raise InputError(f"{path}: not a LoRA file of an adapter ({reason})") from error
    return {
        part: lora.Lora(tensors=_below(part, tensors), config=_below(part, config))
        for part in parts
    }


def _without_prefix(named: Mapping[str, Value]) -> dict[str, Value]:
    return {name.removeprefix(PEFT_PREFIX): value for name, value in named.items()}


def _below(part: str, named: Mapping[str, Value]) -> dict[str, Value]:
    """What has a name that begins with this part, by the rest of it."""
    start = f"{part}."
    return {k.removeprefix(start): v for k, v in named.items() if k.startswith(start)}
