"""``like``: a picture again from what its own file says, but for what a call gives."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ric_diffusion.api.drawing import Asked, InitPicture
from ric_diffusion.api.picture_settings import (
    InitImage,
    ModelUsed,
    PictureSettings,
    read_metadata,
)
from ric_diffusion.data.images import pixel_digest
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.paths import expanded
from ric_diffusion.models.checkpoint import Checkpoint
from ric_diffusion.models.family import bundled_names

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Like:
    """A picture to make again.

    Attributes:
        settings: all that it was made from.
        name: what errors and warnings call it.
        folder: where it lies, None if that is not known.
    """

    settings: PictureSettings
    name: str
    folder: Path | None = None

    @classmethod
    def of(cls, given: str | Path | PictureSettings) -> Like:
        """A PNG, or what one said. InputError if it says nothing of how it was made."""
        if isinstance(given, PictureSettings):
            found = cls(settings=given, name="the picture")
        else:
            path = expanded(given)
            settings = read_metadata(path, f"like {given}").settings
            found = cls(settings=settings, name=str(given), folder=path.parent)
        return found

    @property
    def model(self) -> Checkpoint:
        """The checkpoint that made it. InputError for one on the hub: what a file says is nothing
        to be fetched unless somebody asks for it."""
        checkpoint = self.settings.model.checkpoint
        if checkpoint.on_hub and checkpoint.model not in bundled_names():
            raise InputError(
                f"like {self.name}: was made with {checkpoint.model}, which is not here; give it "
                "as the model, to have it fetched from the hub"
            )
        return checkpoint

    @property
    def adapter(self) -> str | None:
        """What its adapter was loaded from, None for the model's own. InputError for one that is
        not here."""
        adapter = self.settings.model.adapter
        if adapter is not None and not expanded(adapter).is_dir():
            raise InputError(
                f"like {self.name}: was made with the adapter {adapter}, which is not here; give "
                "it as the adapter"
            )
        return adapter

    @property
    def device(self) -> str | None:
        """Where it was computed, None if that is not here; ``check`` says so."""
        made_on = self.settings.model.device
        here = made_on == "cpu" or (made_on == "cuda" and torch.cuda.is_available())
        return made_on if here else None

    def asked(self, given: Asked) -> Asked:
        """What it was asked for, but for what is ``given``: preference or targets take the place of
        either, and contrast that of negative targets."""
        made, found = self.settings, given
        if given.preference is None and given.targets is None:
            found = replace(found, preference=made.preference, targets=made.targets)
        if given.mapping is None and found.preference is made.preference:
            found = replace(found, mapping=made.mapping)
        if given.negative_targets is None and given.sampling.get("contrast") is None:
            found = replace(found, negative_targets=made.negative_targets)
        for name in ("negative_prompt", "refine"):
            if getattr(given, name) is None:
                found = replace(found, **{name: getattr(made, name)})
        if (image := made.init_image) is not None:
            found = replace(
                found,
                init=given.init or self._init(image),
                strength=image.strength if given.strength is None else given.strength,
            )
        return found

    def sampling(self, given: Mapping[str, Any], guidance: str, asked: Asked) -> dict[str, Any]:
        """Its arguments of sampling, but for those ``given``; ``guidance``: the family's argument
        for the scale. What would contradict something given is left out."""
        made = {name: v for name, v in self.settings.sampling.items() if v is not None}
        found: dict[str, Any] = {**made, **given}
        if asked.negative_targets is not None and "contrast" not in given:
            found.pop("contrast", None)
        scale = found.get(guidance)
        if "prompt_guidance" in found and "prompt_guidance" not in given and scale is not None:
            found["prompt_guidance"] = min(found["prompt_guidance"], scale)
        return found

    def _init(self, made: InitImage) -> InitPicture:
        """The picture that it was made from, by its name beside it or in the working folder."""
        for folder in (self.folder, Path()):
            if folder is not None and (path := folder / made.name).is_file():
                found = InitPicture.of(path)
                if pixel_digest(found.image) == made.digest:
                    return found
        raise InputError(
            f"like {self.name}: was made from the picture {made.name} (digest {made.digest[:12]}), "
            "which is not beside it; give it as init_image"
        )

    def check(self, here: ModelUsed, *, model_chosen: bool, adapter_chosen: bool) -> None:
        """InputError if the model or adapter ``here`` is another one than made the picture, or a
        warning where it was chosen by name; warnings for what else may change pixels."""
        made = self.settings.model
        if here.dtype != made.dtype:  # and so do the weights, in their last bits
            self._warn(f"weights in {made.dtype}", here.dtype)
        elif None not in (made.digest, here.digest):
            self._compare("model", made.checkpoint.model, made.digest == here.digest, model_chosen)
        same, own = made.adapter_digest == here.adapter_digest, made.adapter or "the model's own"
        named = "no adapter" if made.adapter_digest is None else own
        self._compare("adapter", named, same, adapter_chosen or model_chosen)
        if here.device != made.device:
            self._warn(made.device, here.device)
        for name in made.versions.keys() & here.versions.keys():
            if made.versions[name] != here.versions[name]:
                self._warn(f"{name} {made.versions[name]}", here.versions[name])

    def _compare(self, what: str, made: str, same: bool, chosen: bool) -> None:
        if same:
            return
        if not chosen:
            raise InputError(
                f"like {self.name}: was made with another {what} ({made}) than is here by that "
                f"name now; put that one back, or give the {what} to draw with all the same"
            )
        _log.warning("%s was made with another %s (%s): expect another picture",
                     self.name, what, made)  # fmt: skip

    def _warn(self, made: str, here: str) -> None:
        _log.warning("%s was made with %s, here it is %s: pixels may differ", self.name, made, here)
