"""A checkpoint that is one .safetensors file: its family, its config, and the parts it lacks."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from diffusers.loaders.single_file_utils import DIFFUSERS_DEFAULT_PIPELINE_PATHS

from ric_diffusion.io.errors import InputError
from ric_diffusion.models.checkpoint import Header, check_shards, local_file, read_header
from ric_diffusion.models.family import Source, family_claiming, source_of

LIBRARIES = ("diffusers", "transformers")  # whose classes a config may name
# What begins the keys of a part in a single file, by what begins its class's name. Of other text
# encoders diffusers reads none there.
HELD = {
    "CLIPText": ("cond_stage_model.", "conditioner.embedders.", "text_encoders.clip_"),
    "T5": ("text_encoders.t5xxl.",),
    "Autoencoder": ("first_stage_model.", "vae."),
}


@dataclass(frozen=True, kw_only=True)
class SingleFile:
    """A checkpoint in one file.

    Attributes:
        name: how the user called it.
        path: where it is.
        header: its tensors by key.
        family: of them, and of ``config``, the pipeline whose configs and tokenizers it takes.
    """

    name: str
    path: Path
    header: Header
    family: Any
    config: Source

    @classmethod
    def read(cls, name: str, config: Any, **hub: Any) -> Self:
        """``config``: a folder or hub id. InputError without it, for what is no whole checkpoint of
        a family here, and for a config of another family."""
        path = local_file(name, **hub)
        header = read_header(path, name)
        family = family_claiming(Source(name=name, header=header))
        if config is None:
            raise InputError(f"config: {needs_config(name, header)}")
        source = source_of(config, **hub)
        if (other := family_claiming(source)).name != family.name:
            raise InputError(
                f"{name}: a model of {family.title}, and {source.name} is of {other.title}; give a "
                "config of its own family"
            )
        return cls(name=name, path=path, header=header, family=family, config=source)

    def parts_beside(self, parts: Sequence[str], dtype: torch.dtype) -> dict[str, Any]:
        """Those of a pipeline's ``parts`` that the file does not hold, from the folder of its
        config. InputError where that has no safetensors of them: nothing is fetched that was not
        asked for."""
        found = {}
        for part in parts:
            library, cls = (self.config.index or {}).get(part) or ("", None)
            if cls is None or self._holds(cls):
                continue
            if library not in LIBRARIES:
                raise InputError(
                    f"{self.config.name}: its {part} is of {library}, where only those of "
                    f"{' and '.join(LIBRARIES)} are read"
                )
            folder = Path(self.config.name, part)
            if not any(folder.glob("*.safetensors")):
                raise InputError(
                    f"{self.name}: holds no {part}, and {self.config.name} is no folder with "
                    "safetensors of it; give one that is"
                )
            check_shards(folder)
            loaded = getattr(importlib.import_module(library), cls)
            found[part] = loaded.from_pretrained(folder, use_safetensors=True, dtype=dtype)
        return found

    def _holds(self, cls: str) -> bool:
        begins = next((keys for start, keys in HELD.items() if cls.startswith(start)), ())
        return any(key.startswith(begins) for key in self.header.tensors)

    def check_complete(self, modules: Mapping[str, torch.nn.Module]) -> None:
        """InputError if one of the parts that were loaded is not all there."""
        for part, module in modules.items():
            lacking = [key for key, tensor in module.state_dict().items() if tensor.is_meta]
            if lacking:
                raise self.misfit(f"{lacking[0]} of {part} is missing")

    def misfit(self, reason: object) -> InputError:
        """The error for tensors that are not those of the config."""
        line = next(iter(str(reason).strip().splitlines()), type(reason).__name__)
        return InputError(f"{self.name}: does not fit the configs of {self.config.name} ({line})")


def needs_config(name: str, header: Header) -> str:
    """What to say about a single file without a config: whose it usually takes."""
    usual = DIFFUSERS_DEFAULT_PIPELINE_PATHS[header.type]["pretrained_model_name_or_path"]
    return (
        f"{name} holds weights alone; give the pipeline whose configs and tokenizers it takes, a "
        f"folder or hub id, usually {usual}"
    )
