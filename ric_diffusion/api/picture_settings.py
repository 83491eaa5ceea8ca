"""What made a picture, in its own PNG: to read again, to make the same again.

A PNG holds three kinds of texts: ``ric_diffusion``, JSON of PictureMetadata with a version, which
is read back; ``parameters``, as A1111 writes it, for its viewers; and single values (``prompt``,
``seed``, ``targets`` …) for whoever asks for one of them.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ric_diffusion.api.refinement import Refinement
from ric_diffusion.data import png
from ric_diffusion.data.prompts import check_text
from ric_diffusion.evaluation.refine import check_passes
from ric_diffusion.io import config
from ric_diffusion.io.bounds import MOST_SEED
from ric_diffusion.io.errors import InputError
from ric_diffusion.io.files import check_regular
from ric_diffusion.models.checkpoint import Checkpoint
from ric_diffusion.rewards import MAPPINGS
from ric_diffusion.rewards.checks import is_one_line

VERSION = 1  # of the JSON
TEXT, A1111 = "ric_diffusion", "parameters"  # keywords of a PNG's texts
MOST_BYTES = 2**20  # of the JSON
SAMPLERS = {  # what A1111 calls diffusers' schedulers; others go by their own names
    "DDIMScheduler": "DDIM",
    "DPMSolverMultistepScheduler": "DPM++ 2M",
    "EulerAncestralDiscreteScheduler": "Euler a",
    "EulerDiscreteScheduler": "Euler",
    "FlowMatchEulerDiscreteScheduler": "Euler",
    "HeunDiscreteScheduler": "Heun",
    "LCMScheduler": "LCM",
    "LMSDiscreteScheduler": "LMS",
    "PNDMScheduler": "PLMS",
    "UniPCMultistepScheduler": "UniPC",
}

SamplingValue = bool | int | float | tuple[float, ...] | None
Values = Mapping[str, float]
Scores = Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class ModelUsed:
    """The model that made a picture.

    Attributes:
        checkpoint: what it was loaded from.
        digest: of its weights and its scheduler's settings, without the adapter; None where they
            were offloaded, and so out of sight.
        adapter: what the adapter was loaded from; None without one, with several, and where it is
            the model's own.
        adapter_digest: of all that the adapter is, calibration included; None without one.
        scheduler: its class in diffusers.
        dtype: of the weights.
        device: what it was computed on, as torch calls that.
        versions: of the packages that computed it, by name.
    """

    checkpoint: Checkpoint
    digest: str | None
    adapter: str | None = None
    adapter_digest: str | None = None
    scheduler: str
    dtype: str
    device: str
    versions: Mapping[str, str]

    def __post_init__(self) -> None:
        where = self.checkpoint
        _check_names("model", (where.model, where.base_config, where.variant, where.revision))
        _check_names("adapter", (self.adapter,))
        _check_names("versions", (*self.versions, *self.versions.values()))
        _check_names("scheduler", (self.scheduler,))
        for name in ("digest", "adapter_digest"):
            _check_digest(name, getattr(self, name))
        if not re.fullmatch(r"[a-z0-9_]{1,32}", self.dtype):
            raise ValueError(f"dtype is {self.dtype[:80]!r}; a name as float32 is expected")
        if not re.fullmatch(r"[a-z]{1,16}", self.device):
            raise ValueError(f"device is {self.device[:80]!r}; a name as cpu or cuda is expected")


@dataclass(frozen=True, kw_only=True)
class InitImage:
    """The picture that another one was made from.

    Attributes:
        name: of its file, without folders.
        digest: of its pixels (data.images.pixel_digest).
        strength: how much of it was drawn anew, above 0, at most 1.
    """

    name: str
    digest: str
    strength: float

    def __post_init__(self) -> None:
        _check_names("name", (self.name,))
        if Path(self.name).name != self.name:
            raise ValueError("name holds a folder; the name of a file is expected")
        _check_digest("digest", self.digest)
        if not 0 < self.strength <= 1:
            raise ValueError(f"strength is {self.strength}; above 0 and at most 1 is expected")


@dataclass(frozen=True, kw_only=True)
class PictureSettings:
    """All that a picture depends on: from the same settings comes the same picture.

    Attributes:
        prompt: what was drawn.
        negative_prompt: what was steered away from, in words.
        seed: of its noise.
        preference: weights by reward, as the sliders were set, and ``mapping``, what made targets
            of them; None of both where targets were given.
        targets: values in z that were asked for, before calibration; None with a preference.
        negative_targets: values in z that were steered away from.
        refine: up to how many times it was drawn again.
        sampling: all arguments of sampling by diffusers' names, also those that the adapter or the
            pipeline brought.
        init_image: the picture that this one was made from.
        model: what made it.
    """

    prompt: str
    negative_prompt: str | None = None
    seed: int
    preference: Values | None = None
    mapping: str | None = None
    targets: Values | None = None
    negative_targets: Values | None = None
    refine: int | None = None
    sampling: Mapping[str, SamplingValue] = field(default_factory=dict)
    init_image: InitImage | None = None
    model: ModelUsed

    def __post_init__(self) -> None:
        check_text("prompt", self.prompt)
        check_text("negative_prompt", self.negative_prompt or "")
        if not 0 <= self.seed <= MOST_SEED:
            raise ValueError(f"seed is {self.seed}; 0 to {MOST_SEED} is expected")
        if self.preference is not None and self.targets is not None:
            raise ValueError("holds both preference and targets; one of them is expected")
        if self.mapping is not None and self.mapping not in MAPPINGS:
            raise ValueError(f"mapping {self.mapping!r}: one of {', '.join(MAPPINGS)} is expected")
        if self.refine is not None:
            check_passes(self.refine)
        for name in ("preference", "targets", "negative_targets", "sampling"):
            _check_names(name, getattr(self, name) or ())


@dataclass(frozen=True, kw_only=True)
class PictureMetadata:
    """What a PNG says of its picture.

    Attributes:
        settings: what it was made from.
        targets: values in z that were used, after calibration; a reward left out was auto.
        scores: in each scorer's unit, and ``obtained`` in z, as GeneratedSample has them.
        refinement: how it came near its targets; None where it was not refined.
    """

    settings: PictureSettings
    targets: Values = field(default_factory=dict)
    scores: Scores = field(default_factory=dict)
    obtained: Scores = field(default_factory=dict)
    refinement: Refinement | None = None

    def __post_init__(self) -> None:
        for name in ("targets", "scores", "obtained"):
            _check_names(name, getattr(self, name))

    def texts(self, size: tuple[int, int]) -> dict[str, str]:
        """The texts of the PNG by keyword; ``size``: its width and height. The same for the same
        metadata."""
        plain = {"version": VERSION, **config.to_dict(self)}
        return {
            TEXT: json.dumps(plain, ensure_ascii=False, allow_nan=False),
            A1111: self.as_a1111(size),
        }

    def as_a1111(self, size: tuple[int, int]) -> str:
        """The settings as A1111 writes them (``create_infotext`` in its modules/processing.py):
        the prompt, the negative prompt, and a line of values that has ours at its end."""
        settings, lines = self.settings, [self.settings.prompt]
        if settings.negative_prompt:
            lines.append(f"Negative prompt: {settings.negative_prompt}")
        model, sampling = settings.model, settings.sampling
        guidance = sampling.get("true_cfg_scale", sampling.get("guidance_scale"))
        image, said = settings.init_image, settings.preference
        values = {
            "Steps": sampling.get("num_inference_steps"),
            "Sampler": SAMPLERS.get(model.scheduler, model.scheduler.removesuffix("Scheduler")),
            "CFG scale": guidance,
            "Seed": settings.seed,
            "Size": f"{size[0]}x{size[1]}",
            "Model": Path(model.checkpoint.model).name,
            "Denoising strength": image.strength if image else None,
            "Reward preference": _listed(said) if said else None,
            "Reward targets": _listed(self.targets) if self.targets else None,
            "Version": f"ric-diffusion {model.versions.get('ric-diffusion', 'unknown')}",
        }
        told = ((name, value) for name, value in values.items() if value is not None)
        lines.append(", ".join(f"{name}: {_quoted(str(value))}" for name, value in told))
        return "\n".join(lines)


def as_stored(value: Any) -> SamplingValue:
    """An argument of sampling as a file gives it back: a list, of times, is a tuple there."""
    return tuple(value) if isinstance(value, list) else value


def read_metadata(source: Path | bytes, name: str = "") -> PictureMetadata:
    """What a PNG says of its picture; nobody vouches for it. ``name``: what errors call it.

    InputError if it says nothing in our words, or what makes no sense.
    """
    name = name or str(source if isinstance(source, Path) else "picture")
    try:
        if isinstance(source, Path):
            check_regular(source)
        with open(source, "rb") if isinstance(source, Path) else io.BytesIO(source) as file:
            text = png.text(file, TEXT, MOST_BYTES)
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror})") from None
    if text is None:
        raise InputError(
            f"{name}: says nothing of how it was made; give a PNG of ric generate, ric sweep or "
            "the app as it was written: other programs leave that out when they save it"
        )
    try:
        stored = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError(f"{name}: its text {TEXT!r} is damaged") from None
    if not isinstance(stored, dict) or stored.pop("version", None) != VERSION:
        raise InputError(f"{name}: its text {TEXT!r} is not of version {VERSION}, which this reads")
    try:
        found = config.from_dict(stored, PictureMetadata, name)
        _check_places(found.settings, name)
        return found
    except InputError as error:  # quotes a stranger, to a terminal
        line = "".join(c if c.isprintable() else "?" for c in str(error))
        raise InputError(line) from None


def _check_names(name: str, values: Iterable[str | None]) -> None:
    """ValueError for names that are not one line of text: they are shown, in terminals too. Spaces
    of every kind are, which people and systems write into names."""
    for value in values:
        if value is not None and not is_one_line(value):
            raise ValueError(f"{name} holds characters that cannot be printed")


def _check_places(settings: PictureSettings, where: str) -> None:
    """InputError for what a stranger's picture says is on another machine, where that looks like a
    path: to look whether it is there would be to call that. Here ``\\`` may be part of a name."""
    if settings.init_image is not None and "\\" in settings.init_image.name:
        raise InputError(
            f"{where}: init_image: name holds a folder; the name of a file is expected"
        )
    used = settings.model
    for name, value in (
        ("model", used.checkpoint.model),
        ("base_config", used.checkpoint.base_config),
        ("adapter", used.adapter),
    ):
        if value is not None and value.replace("\\", "/").startswith("//"):
            raise InputError(f"{where}: {name} is {value[:80]!r}, on another machine")


def _check_digest(name: str, digest: str | None) -> None:
    if digest is not None and not re.fullmatch(r"[0-9a-f]{16,64}", digest):
        raise ValueError(f"{name} is {digest[:80]!r}; 16 to 64 hex digits are expected")


def _listed(values: Values) -> str:
    return ", ".join(f"{name}: {value:g}" for name, value in values.items())


def _quoted(value: str) -> str:
    """As A1111 quotes what would end a value."""
    return json.dumps(value, ensure_ascii=False) if set(",:\n") & set(value) else value
