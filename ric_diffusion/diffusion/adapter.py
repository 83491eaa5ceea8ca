"""The adapter of a diffusion model: what training produces, small and self-describing, a folder.

pytorch_lora_weights.safetensors   plain diffusers LoRA; ric_adapter.json again in its metadata
ric_adapter.json                   base model, conditioning, reward space, mapping, training
reward_encoder.safetensors         embedding mode only
README.md                          model card with the slider ranges
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

from ric_diffusion.conditioning.adapter import BaseAdapter
from ric_diffusion.conditioning.card import CARD_FILE, PICTURES, card
from ric_diffusion.conditioning.hub import fetched
from ric_diffusion.conditioning.lora import Lora
from ric_diffusion.diffusion.lora_file import CONFIG_KEY, LORA_FILE
from ric_diffusion.diffusion.modulation import time_width


@dataclass(frozen=True, kw_only=True)
class Adapter(BaseAdapter):
    """``sampling`` holds pipeline arguments (guidance_scale, num_inference_steps, contrast,
    prompt_guidance)."""

    def check_fit(self, unet: UNet2DConditionModel) -> None:
        """InputError if this U-Net cannot hear what the adapter says."""
        self.conditioner.check_width(unet.config.cross_attention_dim)
        if self.encoder is not None:
            self.encoder.check_fit(time_width=time_width(unet))

    def save(self, folder: Path, lora: Lora) -> None:
        """Write the folder, in one move."""
        tensors = {f"unet.{k}": v.contiguous() for k, v in lora.tensors.items()}
        metadata = {
            "format": "pt",
            CONFIG_KEY: json.dumps({f"unet.{k}": v for k, v in lora.config.items()}),
            "ric_adapter": json.dumps(self.about()),
        }
        with self.writing(folder) as temporary:
            save_file(tensors, temporary / LORA_FILE, metadata=metadata)
            (temporary / CARD_FILE).write_text(card(self, PICTURES), encoding="utf-8")


def resolve(path_or_id: str | Path, subfolder: str = "", **hub: Any) -> Path:
    """The folder of an adapter, fetched from the hub unless it is here."""
    return fetched(path_or_id, [LORA_FILE], subfolder, **hub)
