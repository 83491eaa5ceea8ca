"""The adapter of a language model: a plain peft LoRA, which stock peft loads, and what is ours.

adapter_model.safetensors, adapter_config.json   the LoRA as peft writes it
ric_adapter.json                                 base model, conditioning, reward space, training
reward_encoder.safetensors                       embedding mode only
README.md                                        model card with the slider ranges
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from ric_diffusion import config
from ric_diffusion.conditioning import lora
from ric_diffusion.conditioning.adapter import BaseAdapter
from ric_diffusion.conditioning.card import CARD_FILE, TEXTS, card
from ric_diffusion.conditioning.hub import fetched
from ric_diffusion.errors import InputError
from ric_diffusion.files import write_json
from ric_diffusion.llm.generation import Sampling

WEIGHTS_FILE, CONFIG_FILE = "adapter_model.safetensors", "adapter_config.json"
PREFIX = "base_model.model."  # of the names in peft's files


@dataclass(frozen=True, kw_only=True)
class Adapter(BaseAdapter):
    """``sampling`` holds the fields of Sampling."""

    def __post_init__(self) -> None:
        super().__post_init__()
        config.from_dict(dict(self.sampling), Sampling, "sampling")

    def check_fit(self, model: Any) -> None:
        """InputError if this model cannot hear what the adapter says."""
        self.conditioner.check_width(model.config.hidden_size)
        if self.encoder is not None:
            self.encoder.check_fit(layers=model.config.num_hidden_layers)

    def save(self, folder: Path, weights: lora.Lora) -> None:
        """Write the folder, in one move."""
        tensors = {f"{PREFIX}{k}": v.contiguous() for k, v in weights.tensors.items()}
        about = {**weights.config, "base_model_name_or_path": self.base_model}
        about["task_type"] = "CAUSAL_LM"
        with self.writing(folder) as temporary:
            save_file(tensors, temporary / WEIGHTS_FILE, metadata={"format": "pt"})
            write_json(temporary / CONFIG_FILE, about)
            (temporary / CARD_FILE).write_text(card(self, TEXTS), encoding="utf-8")


def resolve(path_or_id: str | Path) -> Path:
    """The folder of an adapter, fetched from the hub unless it is here."""
    return fetched(path_or_id, [WEIGHTS_FILE, CONFIG_FILE])


def read(folder: Path) -> lora.Lora:
    """The LoRA of an adapter folder. InputError if it is not one of a language model."""
    try:
        tensors = load_file(folder / WEIGHTS_FILE)
        found = lora.Lora(
            tensors={k.removeprefix(PREFIX): v for k, v in tensors.items()},
            config=json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8")),
        )
        problem = lora.problem_of(found)
    except Exception as error:  # safetensors raises types of its own
        problem = next(iter(str(error).splitlines()), type(error).__name__)
    if problem:
        raise InputError(f"{folder}: holds no LoRA of a language model ({problem})")
    return found
