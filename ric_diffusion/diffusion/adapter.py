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

from ric_diffusion.conditioning import card as cards
from ric_diffusion.conditioning.adapter import BaseAdapter
from ric_diffusion.conditioning.hub import fetched
from ric_diffusion.conditioning.lora import Lora
from ric_diffusion.diffusion import modulation
from ric_diffusion.diffusion.lora_file import CONFIG_KEY, LORA_FILE


@dataclass(frozen=True, kw_only=True)
class Adapter(BaseAdapter):
    """``sampling`` holds pipeline arguments (guidance_scale, num_inference_steps, contrast,
    prompt_guidance)."""

    def check_fit(self, unet: UNet2DConditionModel) -> None:
        """InputError if this U-Net cannot hear what the adapter says."""
        self.conditioner.check_width(unet.config.cross_attention_dim)
        if self.encoder is not None:
            modulation.check_fit(unet, self.encoder)

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
            (temporary / cards.CARD_FILE).write_text(card(self), encoding="utf-8")


def resolve(path_or_id: str | Path, subfolder: str = "", **hub: Any) -> Path:
    """The folder of an adapter, fetched from the hub unless it is here."""
    return fetched(path_or_id, [LORA_FILE], subfolder, **hub)


def card(adapter: Adapter) -> str:
    """The adapter's model card."""
    python = [
        "from ric_diffusion import RiCStableDiffusionPipeline",
        "",
        f'pipe = RiCStableDiffusionPipeline.from_pretrained("{adapter.base_model}")',
        f'pipe.load_adapter("{cards.HERE}")',
        f'asked = {{"targets": {{"{adapter.space.names[0]}": 1.0}}, **pipe.adapter.sampling}}',
        'pipe("a prompt", **asked).images[0].save("picture.png")',
    ]
    exported = f"`ric export --adapter {cards.HERE} --format kohya --out sliders.safetensors`"
    if adapter.encoder is None:
        elsewhere = [
            f"Other programs take the LoRA ({exported}) and, as the prompt, what "
            f"`ric prompt --adapter {cards.HERE} …` prints.",
        ]
    else:
        elsewhere = [
            "ComfyUI takes it through the nodes of ric-diffusion, where it has the base. Stock "
            "diffusers loads the LoRA, but without its reward tokens it has no sliders.",
        ]
    return cards.card(
        adapter,
        library="diffusers",
        task="text-to-image",
        python=python,
        prompt="a prompt",
        elsewhere=elsewhere,
    )
