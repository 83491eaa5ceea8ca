"""The adapter: what training produces, small and self-describing, in one folder.

pytorch_lora_weights.safetensors   plain diffusers LoRA; ric_adapter.json again in its metadata
ric_adapter.json                   base model, conditioning, reward space, mapping, training
reward_encoder.safetensors         embedding mode only
README.md                          model card with the slider ranges
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

from ric_diffusion.conditioning.conditioner import (
    Conditioner,
    EmbeddingConditioner,
    TextConditioner,
)
from ric_diffusion.conditioning.encoder import RewardEncoder
from ric_diffusion.conditioning.grammar import Grammar
from ric_diffusion.diffusion import modulation
from ric_diffusion.diffusion.lora import CONFIG_KEY, LORA_FILE, Lora
from ric_diffusion.errors import InputError
from ric_diffusion.files import replacing_folder, write_json
from ric_diffusion.rewards import MAPPINGS, Curve, RewardSpace, calibration, checks

FORMAT_VERSION = 1
ABOUT_FILE = "ric_adapter.json"
ENCODER_FILE = "reward_encoder.safetensors"


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """All of an adapter but the LoRA weights, which live in the U-Net once loaded.

    ``sampling`` holds the pipeline arguments the adapter was validated with (guidance_scale,
    num_inference_steps, contrast, prompt_guidance): what command line and app use unless told
    otherwise.
    ``calibration`` holds a curve for each reward whose slider was measured.
    """

    base_model: str
    space: RewardSpace
    conditioner: Conditioner
    mapping: str = "front"
    sampling: Mapping[str, float] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Curve] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.base_model, str):
            raise InputError(f"base_model must be a hub id or a folder, not {self.base_model!r}")
        if self.mapping not in MAPPINGS:
            raise InputError(f"mapping {self.mapping!r}: choose one of {', '.join(MAPPINGS)}")
        if tuple(self.conditioner.names) != self.space.names:
            raise InputError(
                f"adapter: conditioned on {self.conditioner.names}, but its reward space holds "
                f"{self.space.names}; they must agree"
            )
        for name in self.calibration:
            checks.known(name, self.space.names, "calibration")

    def reachable(self, targets: Mapping[str, float]) -> dict[str, float]:
        """Targets in z, each moved to the nearest value its calibration says can be had."""
        return {
            name: self.calibration[name].clamp(z) if name in self.calibration else z
            for name, z in targets.items()
        }

    def requests(self, targets: Mapping[str, float]) -> dict[str, float]:
        """What the model has to read so that it gives these targets, in z."""
        asked = {
            name: self.calibration[name].request(z) if name in self.calibration else z
            for name, z in targets.items()
        }
        return self.conditioner.used(asked)

    @property
    def encoder(self) -> RewardEncoder | None:
        """What makes the reward tokens; None in text mode."""
        if isinstance(self.conditioner, EmbeddingConditioner):
            return self.conditioner.encoder
        return None

    def check_fit(self, unet: UNet2DConditionModel) -> None:
        """InputError if this U-Net cannot hear what the adapter says."""
        self.conditioner.check_width(unet.config.cross_attention_dim)
        if self.encoder is not None:
            modulation.check_fit(unet, self.encoder)

    def about(self) -> dict[str, Any]:
        """``ric_adapter.json``."""
        conditioning: dict[str, Any] = {"mode": self.conditioner.mode}
        if isinstance(self.conditioner, TextConditioner):
            conditioning["grammar"] = self.conditioner.grammar.to_dict()
        return {
            "format_version": FORMAT_VERSION,
            "base_model": self.base_model,
            "conditioning": conditioning,
            "reward_space": self.space.to_dict(),
            "mapping": self.mapping,
            "sampling": dict(self.sampling),
            "training": dict(self.training),
            "calibration": {name: curve.to_dict() for name, curve in self.calibration.items()},
        }

    def save(self, folder: Path, lora: Lora) -> None:
        """Write the folder, in one move."""
        about = self.about()
        tensors = {f"unet.{k}": v.contiguous() for k, v in lora.tensors.items()}
        metadata = {
            "format": "pt",
            CONFIG_KEY: json.dumps({f"unet.{k}": v for k, v in lora.config.items()}),
            "ric_adapter": json.dumps(about),
        }
        with replacing_folder(folder) as temporary:
            save_file(tensors, temporary / LORA_FILE, metadata=metadata)
            write_json(temporary / ABOUT_FILE, about)
            if self.encoder is not None:
                self.encoder.save(temporary / ENCODER_FILE)
            (temporary / "README.md").write_text(card(self), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Adapter:
        """Read all but the LoRA weights. InputError if the folder is not an adapter of ours."""
        path = folder / ABOUT_FILE
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"{folder}: not an adapter folder, it has no {ABOUT_FILE}") from error
        except ValueError as error:
            raise InputError(f"{path}: not valid JSON ({error})") from error
        if not isinstance(about, dict) or about.get("format_version") != FORMAT_VERSION:
            raise InputError(f"{path}: this release reads format_version {FORMAT_VERSION}")
        try:
            return cls(
                base_model=about["base_model"],
                space=RewardSpace.from_dict(about["reward_space"]),
                conditioner=_conditioner(about["conditioning"], folder),
                mapping=about["mapping"],
                sampling=checks.mapping(about["sampling"], "sampling"),
                training=checks.mapping(about["training"], "training"),
                calibration=calibration.curves(about["calibration"]),
            )
        except InputError as error:
            named = str(error).startswith(str(folder))
            raise InputError(str(error) if named else f"{path}: {error}") from error
        except (KeyError, TypeError) as error:
            raise InputError(f"{path}: {error} is missing or malformed") from error


def _conditioner(stored: Mapping[str, Any], folder: Path) -> Conditioner:
    if stored["mode"] == "text":
        return TextConditioner(Grammar.from_dict(stored["grammar"]))
    if stored["mode"] == "embedding":
        return EmbeddingConditioner(RewardEncoder.load(folder / ENCODER_FILE))
    raise InputError(f"{folder}: conditioning mode {stored['mode']!r} is unknown")


def resolve(path_or_id: str | Path, subfolder: str = "", **hub: Any) -> Path:
    """A local folder as it is; anything else is a hub id, of which an adapter's files are fetched.

    ``hub``: revision, token, cache_dir and so on, as huggingface_hub's snapshot_download has them.
    The ``subfolder`` of either may turn out not to be there.
    """
    if (local := Path(path_or_id)).is_dir():
        return local / subfolder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = [str(PurePosixPath(subfolder, f)) for f in (LORA_FILE, ABOUT_FILE, ENCODER_FILE)]
    try:
        return Path(snapshot_download(str(path_or_id), allow_patterns=wanted, **hub), subfolder)
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path_or_id}: no such folder, and the hub did not give it ({reason})"
        ) from error


def card(adapter: Adapter) -> str:
    """The adapter's model card, with the ranges of the sliders, and how much of them calibrated
    ones reach."""
    header = ["reward", "unit", "range (z)", "mean", "one z"]
    rows = [
        [reward.name, reward.unit, _ends(*adapter.space.range(reward.name)), f"{reward.mean:.2f}",
         f"{reward.std:.2f}"]
        for reward in adapter.space.rewards
    ]  # fmt: skip
    said = []
    if curves := adapter.calibration:
        header.append("reachable (z)")
        for row in rows:
            row.append(_ends(*curves[row[0]].reach) if row[0] in curves else "not calibrated")
        said = [
            "",
            "A calibrated slider gives on average what it is asked, as far as that was measured to "
            "be reachable; beyond, it gives the nearest that is.",
        ]
    name = next(iter(adapter.space.names))
    return "\n".join(
        [
            "---",
            f"base_model: {adapter.base_model}",
            "library_name: diffusers",
            "tags: [ric-diffusion, lora, text-to-image]",
            "---",
            "",
            "# Reward sliders",
            "",
            f"An adapter for `{adapter.base_model}` with {len(adapter.space.names)} reward "
            f"sliders, in {adapter.conditioner.mode} mode, made with ric-diffusion.",
            "",
            *("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows]),
            *said,
            "",
            "```python",
            "from ric_diffusion import RiCStableDiffusionPipeline",
            "",
            f'pipe = RiCStableDiffusionPipeline.from_pretrained("{adapter.base_model}")',
            'pipe.load_adapter("this/folder")',
            f'pipe("a prompt", targets={{"{name}": 1.0}}).images[0]',
            "```",
            "",
        ]
    )


def _ends(low: float, high: float) -> str:
    return f"{low:+.2f} … {high:+.2f}"
