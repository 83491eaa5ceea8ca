"""What an exported LoRA says of itself, in the keys that other programs read and show.

They are those of Stability's metadata standard (https://github.com/Stability-AI/ModelSpec). Nothing
in them depends on when or where they are written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ric_diffusion.conditioning.conditioner import TextConditioner
from ric_diffusion.io.bounds import MOST_SIDE, check_count
from ric_diffusion.io.errors import InputError
from ric_diffusion.rewards import Reward, checks

if TYPE_CHECKING:
    from ric_diffusion.adapters.adapter import Adapter

VERSION = "1.0.1"  # of the standard
MARKUP = re.compile(r"[<>&`\[\]]")  # of HTML and Markdown, which programs show descriptions as


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """What kind of model an adapter's base model is, in the standard's words.

    ``architecture``: its ID there, as ``stable-diffusion-v2-768-v``; ``resolution``: the side in
    pixels that was trained at; ``prediction_type``: ``epsilon`` or ``v``, None for neither.
    """

    architecture: str
    resolution: int
    prediction_type: str | None = None

    def __post_init__(self) -> None:
        checks.text(self.architecture, "modelspec: architecture", checks.MOST_TEXT)
        check_count("modelspec: resolution", self.resolution, MOST_SIDE)
        if self.prediction_type not in (None, "epsilon", "v"):
            raise InputError(
                f"modelspec: prediction_type {self.prediction_type!r}: give epsilon, v or null"
            )

    @classmethod
    def from_dict(cls, stored: Any) -> Self:
        """Of an adapter's JSON. InputError if it is not that."""
        return cls(**checks.fields(stored, [f.name for f in fields(cls)], "modelspec"))


def metadata(adapter: Adapter, title: str, implementation: str) -> dict[str, str]:
    """The keys of the standard for an adapter's LoRA; ``implementation``: the program whose names
    its layers have.

    An adapter that does not say what it was trained on goes without architecture, resolution and
    prediction type: to guess one is worse.
    """
    names = ", ".join(adapter.space.names)
    keys = {
        "sai_model_spec": VERSION,
        "implementation": implementation,
        "title": f"{plain(title)}: sliders for {names}",
        "description": _description(adapter),
        "usage_hint": usage_hint(adapter),
        "tags": "slider",
    }
    if (spec := adapter.modelspec) is not None:
        keys["architecture"] = f"{spec.architecture}/lora"
        keys["resolution"] = f"{spec.resolution}x{spec.resolution}"
        if spec.prediction_type is not None:
            keys["prediction_type"] = spec.prediction_type
    if isinstance(adapter.conditioner, TextConditioner):
        keys["trigger_phrase"] = _balanced(adapter, adapter.conditioner).strip()
    return {f"modelspec.{name}": text for name, text in sorted(keys.items())}


def usage_hint(adapter: Adapter) -> str:
    """What to type for each end of every slider; in embedding mode, where sliders are to be had."""
    conditioner = adapter.conditioner
    if not isinstance(conditioner, TextConditioner):
        ranges = ", ".join(
            f"{name} {low:.1f} to {high:.1f} z"
            for name in adapter.space.names
            for low, high in [_range(adapter, name)]
        )
        return (
            "This file alone has no sliders: its rewards are learned tokens, in the adapter's "
            "folder, which the nodes of ric-diffusion for ComfyUI load, and its Python API. "
            f"Sliders there: {ranges}."
        )
    ends = "; ".join(
        f"{name} from {low} (low) to {high} (high)"
        for name in adapter.space.names
        for low, high in [(_words(adapter, conditioner, name, z) for z in _range(adapter, name))]
    )
    return (
        f"Type at the end of the prompt, in this order: {ends}. What is left out is auto. LoRA "
        f"weight 1. Example: a prompt{_balanced(adapter, conditioner)}"
    )


def _words(adapter: Adapter, conditioner: TextConditioner, name: str, z: float) -> str:
    """What the model reads for one target."""
    read = adapter.model_targets(adapter.used({name: z}))
    return conditioner.grammar.reward_words(read).strip()


def _balanced(adapter: Adapter, conditioner: TextConditioner) -> str:
    """What the model reads for a preference that weighs all rewards alike."""
    targets = adapter.targets_for(preference=dict.fromkeys(adapter.space.names, 1.0))
    return conditioner.grammar.reward_words(adapter.model_targets(adapter.used(targets)))


def _range(adapter: Adapter, name: str) -> tuple[float, float]:
    """The ends of a slider in z, as calibrated where it was."""
    if name in adapter.calibration:
        return adapter.calibration[name].reachable
    return adapter.space.range(name)


def _description(adapter: Adapter) -> str:
    sliders = "; ".join(_slider(adapter, reward) for reward in adapter.space.rewards)
    return (
        f"Reward sliders for {base_name(adapter)}. {sliders}. Higher is better. Made with "
        "ric-diffusion after Rewards-in-Context (arXiv 2402.10207)."
    )


def _slider(adapter: Adapter, reward: Reward) -> str:
    """The range of a slider in the reward's own unit."""
    low, high = (reward.mean + z * reward.std for z in _range(adapter, reward.name))
    measured = "calibrated" if reward.name in adapter.calibration else "in the training data"
    unit = f" {plain(reward.scale)}" if plain(reward.scale) else ""
    return f"{reward.name}: {low:.2f} to {high:.2f}{unit} ({measured})"


def base_name(adapter: Adapter) -> str:
    """The base model's hub id, or its folder's name: where that lies is nobody's business."""
    base = Path(adapter.base_model)
    return plain(base.name if base.is_absolute() else adapter.base_model)


def plain(text: str) -> str:
    """A text on one line, without what a page would read as markup."""
    return MARKUP.sub("", " ".join("".join(c if c.isprintable() else " " for c in text).split()))
