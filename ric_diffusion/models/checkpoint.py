"""How a checkpoint is named, and what the header of a single file says before it is loaded."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from ric_diffusion.io.errors import InputError, reason_of
from ric_diffusion.io.hub import hurry, refusal
from ric_diffusion.io.paths import expanded, expanded_name
from ric_diffusion.io.tensors import StoredTensor, stored_tensors
from scorers.weights import problem_of_shards

SUFFIX = ".safetensors"
PICKLES = (".ckpt", ".pt", ".pth", ".bin")
# An address of a file on the hub: repository, revision where it has one, file.
ADDRESS = re.compile(
    r"(?:https?://)?(?:huggingface\.co|hf\.co)/([^/]+/[^/]+)/(?:(?:blob|resolve)/([^/]+)/)?([^?]+)"
    r"(?:\?.*)?"
)
DENOISER = "model.diffusion_model."  # begins its keys where a file holds more than that
# As kohya, diffusers, peft and LyCORIS name the factors of a low-rank update.
LORA = re.compile(r"\blora_|\.lora[._]|\.hada_w|\.lokr_|\.oft_")
HALF = {"F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model by its name, and which of its weights.

    Attributes:
        model: bundled name, folder, hub id, or one .safetensors file, on the hub by its address.
        base_config: the pipeline, a folder or hub id, whose configs and tokenizers such a file
            takes: it has none.
        variant: of weights that lie side by side, ``fp16`` for those in ``….fp16.safetensors``.
        revision: branch, tag or commit, for all of this that is on the hub and for the adapter that
            belongs to the model.
    """

    model: str
    base_config: str | None = None
    variant: str | None = None
    revision: str | None = None

    def __post_init__(self) -> None:
        for name in ("model", "base_config"):
            if (value := getattr(self, name)) is not None:  # from Python it may be a Path
                object.__setattr__(self, name, expanded_name(str(value)))

    @classmethod
    def of(cls, model: ModelName) -> Checkpoint:
        """A name alone is a checkpoint with nothing else said."""
        return model if isinstance(model, Checkpoint) else cls(model=str(model))

    @property
    def is_file(self) -> bool:
        """Whether it is a single file, by its suffix."""
        return suffix_of(self.model) in (SUFFIX, *PICKLES) and not Path(self.model).is_dir()

    @property
    def hub(self) -> dict[str, Any]:
        """How the hub is asked for what is there."""
        return {"revision": self.revision} if self.revision else {}

    @property
    def on_hub(self) -> bool:
        """Whether any of it is on the hub."""
        names = filter(None, (self.model, self.base_config))
        return any("/" in name and not Path(name).exists() for name in names)


ModelName = str | Path | Checkpoint


@dataclass(frozen=True)
class Header:
    """The header of a .safetensors file: its tensors by key."""

    tensors: Mapping[str, StoredTensor]

    @cached_property
    def type(self) -> str | None:
        """What diffusers calls such a checkpoint, None where it has no name for it."""
        from diffusers.loaders.single_file_utils import infer_diffusers_model_type

        try:
            found: str = infer_diffusers_model_type(self.tensors)
        except Exception:  # some of its cases know one size of a tensor only
            return None
        # v1 is also its name for all that it does not know.
        return None if found == "v1" and not self._is_v1() else found

    def _is_v1(self) -> bool:
        """Whether there is a U-Net of Stable Diffusion that is told nothing but time and text."""
        keys = f"{DENOISER}input_blocks.0.0.weight", f"{DENOISER}label_emb.0.0.weight"
        return [key in self.tensors for key in keys] == [True, False]

    @property
    def dtype(self) -> torch.dtype:
        """Half precision if most of the denoiser is stored in it, else float32."""
        own = [tensor for key, tensor in self.tensors.items() if key.startswith(DENOISER)]
        sizes: Counter[str] = Counter()
        for tensor in own or self.tensors.values():
            sizes[tensor.dtype] += math.prod(tensor.shape)
        return HALF.get(sizes.most_common(1)[0][0], torch.float32)


def suffix_of(name: str) -> str:
    """The end of a file's name, of an address without what follows a question mark."""
    return Path(name.partition("?")[0]).suffix.lower()


def local_file(name: str, **hub: Any) -> Path:
    """A path as it is; a file on the hub, by its address, is fetched. InputError if it is not
    given."""
    if not (match := ADDRESS.fullmatch(name)):
        return expanded(name)
    from huggingface_hub import hf_hub_download

    repository, revision, file = match.groups()
    check_suffix(name)
    hurry()
    try:
        return Path(
            hf_hub_download(repository, file, **hub | ({"revision": revision} if revision else {}))
        )
    except OSError as error:
        raise InputError(f"{name}: {refusal(error)}") from error


def read_header(path: Path, name: str = "") -> Header:
    """The header of a checkpoint that is a single file; ``name`` is what errors call it. InputError
    for a pickle, for what is no whole .safetensors file, and for a LoRA."""
    name = name or str(path)
    check_suffix(name)
    if not path.is_file():
        raise InputError(f"{name}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = stored_tensors(file)
    except Exception as error:  # safetensors raises types of its own
        reason = reason_of(error)
        raise InputError(
            f"{name}: not a whole .safetensors file ({reason}); download it again"
        ) from error
    if not tensors:
        raise InputError(f"{name}: holds no tensors; give a checkpoint")
    if any(LORA.search(key) for key in tensors):
        raise InputError(f"{name}: a LoRA, not a checkpoint; give the model that it was made for")
    return Header(tensors)


def check_shards(name: str | Path, **hub: Any) -> None:
    """InputError for a model, a folder with its parts or a hub id, some of whose weights would be
    read from what is no safetensors."""
    if problem := problem_of_shards(name, **hub):
        raise InputError(f"{name}: {problem}")


def check_suffix(name: str) -> None:
    """InputError for a pickle, with how to convert it."""
    if suffix_of(name) in PICKLES:
        raise InputError(
            f"{name}: a pickle, which can run any code when it is read, so it is not; convert it "
            "with diffusers' scripts/convert_original_stable_diffusion_to_diffusers.py "
            f"--checkpoint_path {name} --dump_path FOLDER --to_safetensors, and give FOLDER"
        )
