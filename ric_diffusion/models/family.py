"""Model families: what the rest of the house asks of any model, and the one dict of them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from ric_diffusion.adapters.adapter import ABOUT_FILE, Adapter
from ric_diffusion.adapters.card import Use, card
from ric_diffusion.adapters.format import LoraFormat
from ric_diffusion.adapters.hub import fetched
from ric_diffusion.adapters.lora import NO_LORA, Lora
from ric_diffusion.data.medium import Medium
from ric_diffusion.io import config
from ric_diffusion.io.errors import InputError, reason_of, suggest
from ric_diffusion.io.hub import hurry, lacks_file, refusal
from ric_diffusion.io.paths import expanded, expanded_name, is_path
from ric_diffusion.io.strict_json import read_json
from ric_diffusion.models.checkpoint import (
    Checkpoint,
    Header,
    ModelName,
    local_file,
    read_header,
)
from ric_diffusion.models.hardware import Precision, resolve_precision
from ric_diffusion.models.known import BUNDLED, FAMILIES
from ric_diffusion.models.protocol import Backend, Sampler
from ric_diffusion.models.sharding import Sharding
from ric_diffusion.rewards import MAPPINGS, RewardSpace

ADAPTER_SUBFOLDER = "ric_adapter"  # of a pipeline folder, for the adapter that belongs to it
INDEX_FILE, CONFIG_FILE = "model_index.json", "config.json"
CHECKPOINT_FIELDS = ("base_config", "variant", "revision")  # what errors about them begin with


class Model(Protocol):
    """A loaded model of any family, with at most one adapter."""

    family: Family
    adapter: Adapter | None

    def load_adapter(self, path_or_id: str | Path) -> None:
        """Load an adapter folder or hub id, in place of the one before. InputError, and nothing
        changed, if it was made for another family or architecture."""

    def unload_adapter(self) -> None:
        """Take the adapter out again, bit for bit."""

    def without_adapter(self) -> AbstractContextManager[None]:
        """The base model inside the block, also with an adapter in training."""

    def uncalibrated(self) -> AbstractContextManager[None]:
        """Targets are model targets inside the block: the adapter has no calibration there."""

    def save_adapter(self, folder: str | Path) -> None:
        """Write the loaded adapter, or the one in training, as a folder of its own."""

    def prompt_features(self, prompts: Sequence[str]) -> np.ndarray:
        """(N, D) float32: what calibration knows N prompts by, rewards on auto. InputError without
        an adapter."""

    def adapters_for(self, prompts: Sequence[str]) -> list[Adapter]:
        """The loaded adapter as it is calibrated for each of these prompts."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """What is known of a model before it is loaded: its path or hub id, and the JSON of its
    ``model_index.json`` (a pipeline) or its ``config.json`` (a plain model), or the header of a
    single file; None without one."""

    name: str
    index: Mapping[str, Any] | None = None
    config: Mapping[str, Any] | None = None
    header: Header | None = None


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family of models: a spec, and what is done differently for it.

    Attributes:
        name: as adapters name it, ``stable-diffusion``.
        title: as a person calls it.
        medium: what its samples are.
        section: the key of its settings in a training's YAML, and ``settings`` their dataclass.
        format: how the LoRA of an adapter is stored.
        use: what a model card says about using adapters of this family.
        options: the arguments of sampling that the command line can set, by the option's name.
        software: the packages whose versions a report tells.
        bundled: its models that need neither a folder nor a hub.
        guidance: the argument for the scale of classifier-free guidance.
        guidance_off: the scale at which there is none: 1 as Saharia et al. (2022, eq. 2)
            count it, 0 as Ho & Salimans (2022, eq. 6).
    """

    name: str
    title: str
    medium: Medium
    section: str
    settings: type
    format: LoraFormat
    use: Use
    options: Mapping[str, str]
    software: tuple[str, ...]
    bundled: tuple[str, ...] = ()
    guidance: str = "guidance_scale"
    guidance_off: float = 1.0

    def claims(self, source: Source) -> bool:
        """Whether a model is of this family. InputError, by name, for one of its kin that cannot be
        conditioned."""
        raise NotImplementedError

    def check_checkpoint(self, checkpoint: Checkpoint) -> None:
        """InputError for what is said of a checkpoint and has no meaning for it, and for what is
        missing."""
        if checkpoint.revision and not checkpoint.on_hub:
            raise InputError(
                f"revision {checkpoint.revision}: {checkpoint.model} is not on the hub; leave it "
                "out"
            )

    def load(self, model: ModelName, device: str | torch.device, dtype: torch.dtype | None) -> Any:
        """A model by its name, with the adapter that belongs to it if there is one; ``dtype``
        None: as it is stored, where the device computes in that."""
        raise NotImplementedError

    def sampler(self, model: Any, sampling: Mapping[str, Any] | None = None) -> Sampler:
        """Samples from a model; ``sampling``: arguments of every call, by default what its adapter
        was validated with."""
        raise NotImplementedError

    def create_backend(
        self,
        model: ModelName,
        space: RewardSpace,
        settings: Any,
        *,
        seed: int = 0,
        device: str | torch.device = "cpu",
        sampled: bool = False,
        sharding: Sharding | None = None,
    ) -> Backend:
        """A new adapter on a base model; ``settings`` is a ``self.settings``, ``seed`` draws the
        first weights. ``sampled``: its samples are used, and not only looked at, so that parts of
        the model which judge them are loaded too. ``sharding``: of the network that is trained, in
        all processes. InputError for settings that do not go with it."""
        raise NotImplementedError

    def digests(self, model: Any) -> list[str]:
        """One digest for each part of a model that has weights, to tell runs apart."""
        raise NotImplementedError

    def held_out(
        self, model: Any, digests: Sequence[str], sampling: Mapping[str, Any]
    ) -> list[Any]:
        """A model without adapter and its digests -> the scorers that are in every report on this
        family and never a reward."""
        return []

    def tokenizer(self, model: ModelName, adapter: Adapter) -> Any:
        """What counts the tokens of a prompt, of the length that a prompt may have."""
        raise NotImplementedError

    def fetch_adapter(self, path_or_id: str | Path, subfolder: str = "", **hub: Any) -> Path:
        """The folder of an adapter, fetched from the hub unless it is here."""
        return fetched(path_or_id, self.format.files, subfolder, **hub)

    def read_adapter(self, folder: Path) -> tuple[Adapter, Lora]:
        """An adapter and its LoRA, NO_LORA if it has none. InputError if it is of another
        family."""
        adapter = self.check_adapter(folder)
        return adapter, self.format.read(folder) if adapter.lora else NO_LORA

    def check_adapter(self, folder: Path) -> Adapter:
        """An adapter without its LoRA. InputError if it is of another family."""
        adapter = Adapter.load(folder)
        if adapter.family != self.name:
            raise InputError(
                f"{folder}: an adapter for {adapter.family} models, and this one is {self.title}"
            )
        try:
            self.check_sampling(adapter.sampling)
        except ValueError as error:
            raise InputError(f"{folder / ABOUT_FILE}: {error}") from error
        return adapter

    def check_settings(self, settings: Any, source: str = "") -> None:
        """InputError for settings of a training that models of this family do not take; ``source``
        comes before the field."""
        try:
            self.check_sampling(config.to_dict(settings.sampling))  # a mapping, or a dataclass
        except ValueError as error:
            raise InputError(f"{source}{self.section}.{error}") from error
        if settings.mapping not in MAPPINGS:
            raise InputError(
                f"{source}{self.section}.mapping {settings.mapping!r}: choose one of "
                f"{', '.join(MAPPINGS)}"
            )
        for name in ("everything", "reward"):
            if getattr(settings.dropout, name) == 1:
                raise InputError(
                    f"{source}{self.section}.dropout.{name} is 1; give less, or no reward is ever "
                    "seen"
                )

    def resolved(
        self, settings: Any, precision: Precision, device: str | torch.device
    ) -> tuple[Any, Precision]:
        """Settings of a training and the precision of its passes, with what ``device`` takes
        instead of ``auto``. InputError for what it cannot, or cannot together."""
        return settings, resolve_precision(precision, device)

    def default_sampling(self, model: Any = None) -> dict[str, Any]:
        """Arguments of sampling of a new adapter that says nothing else; ``model``: the loaded one,
        if there is one."""
        return dict(config.to_dict(self.settings().sampling))

    def merged(self, own: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """An adapter's own arguments of sampling with those given in their place. InputError for
        what does not go together."""
        found = {**own, **given}
        asked, scale = given.get("contrast"), self.scale(found)
        if asked and asked != own.get("contrast") and scale <= self.guidance_off:
            raise InputError(f"contrast: {self.unguided(scale)}")
        return found

    def scale(self, sampling: Mapping[str, Any]) -> float:
        """The scale of classifier-free guidance of a call with these arguments."""
        scale: float = sampling.get(self.guidance, self.guidance_off)
        return scale

    def unguided(self, scale: float) -> str:
        """What to do about a call with this scale, which has none."""
        return f"give {self.guidance} above {self.guidance_off:g}, not {scale}"

    def check_sampling(self, sampling: Mapping[str, Any]) -> None:
        """ValueError for arguments of sampling that models of this family do not take."""
        raise NotImplementedError

    def save_adapter(self, adapter: Adapter, weights: Lora, folder: Path) -> None:
        """Write an adapter folder, in one move."""
        adapter.save(expanded(folder), weights, self.format, card(adapter, self.use))


def family_named(name: str) -> Family:
    """A family by its name. InputError if there is none."""
    if name not in FAMILIES:
        raise InputError(f"model family {name!r} is unknown{suggest(name, FAMILIES)}")
    family: Family = importlib.import_module(FAMILIES[name]).FAMILY
    return family


def families() -> Iterator[Family]:
    """All of them."""
    return map(family_named, FAMILIES)


def family_of(model: ModelName, **hub: Any) -> Family:
    """The family of a checkpoint, by what ``source_of`` knows of it. InputError, with the families
    there are, if it is of none, and for what is said of it and has no meaning for it."""
    checkpoint = Checkpoint.of(model)
    family = family_claiming(source_of(checkpoint, **hub))
    family.check_checkpoint(checkpoint)
    return family


def family_claiming(source: Source) -> Family:
    """The family that a model is of. InputError, with those there are, if it is of none."""
    for family in families():
        if source.name in family.bundled or family.claims(source):
            return family
    known = ", ".join(family.title for family in families())
    if source.index is None and source.config is None and source.header is None:
        raise InputError(
            f"{source.name}: holds no {INDEX_FILE} or {CONFIG_FILE}; give a model of {known}"
        )
    kind = (source.index or {}).get("_class_name") or (source.config or {}).get("model_type")
    kind = source.header.type if source.header else kind
    raise InputError(
        f"{source.name}: {kind or 'it'} is of no model family known here; they are {known}"
    )


def model_path(model: str | Path) -> str:
    """A bundled pipeline's name -> its folder; any other name or path as it is, home folders
    written out."""
    return expanded_name(str(BUNDLED.get(str(model), model)))


def bundled_names() -> list[str]:
    """The models that need neither a folder nor a hub."""
    return [name for family in families() for name in family.bundled]


def source_of(model: ModelName, **hub: Any) -> Source:
    """What is known of a model without loading it. A hub id is asked for its index, then for its
    config; ``hub``: revision, token, cache_dir and so on."""
    checkpoint = Checkpoint.of(model)
    name, hub = checkpoint.model, {**checkpoint.hub, **hub}
    if is_path(name) and not Path(name).exists():
        raise InputError(f"{name}: no such file or folder")
    if checkpoint.is_file:
        return Source(name=name, header=read_header(local_file(name, **hub), name))
    folder = Path(model_path(name))
    if folder.is_dir():
        found = {file: _json(folder / file) for file in (INDEX_FILE, CONFIG_FILE)}
    else:
        found = _from_hub(name, **hub) if "/" in name and not folder.exists() else {}
    return Source(name=name, index=found.get(INDEX_FILE), config=found.get(CONFIG_FILE))


def _json(path: Path) -> Mapping[str, Any] | None:
    try:
        stored = read_json(path)
    except FileNotFoundError:
        return None
    return stored if isinstance(stored, dict) else {}


def _from_hub(name: str, **hub: Any) -> dict[str, Mapping[str, Any] | None]:
    """The first of the two files that a hub repository has, by its name; neither if it has none.
    InputError if the hub does not say."""
    from huggingface_hub import hf_hub_download

    hurry()
    why = ""
    for file in (INDEX_FILE, CONFIG_FILE):
        try:
            path = Path(hf_hub_download(name, file, **hub))
        except Exception as error:  # not there, no net, no such id: the client has types for each
            why = "" if lacks_file(error) else refusal(error)
        else:
            return {file: _json(path)}
    if why:
        raise InputError(f"{name}: no such folder, and {why}")
    return {}


@contextmanager
def loading(model: ModelName, field: str) -> Iterator[None]:
    """Whatever stops a model from being loaded in this block is one line of InputError; ``field``
    is where the user named it."""
    import diffusers
    import transformers

    checkpoint = Checkpoint.of(model)
    name = checkpoint.model
    given = checkpoint.is_file or "/" in name or Path(model_path(name)).exists()
    if not given and name not in (names := bundled_names()):  # all families say theirs
        raise InputError(f"{field} {name}: no such folder or bundled model{suggest(name, names)}")
    hurry()
    # Their bars count five files; what is being downloaded has a bar of its own.
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    except InputError as error:
        if str(error).startswith(f"{name}: "):
            raise InputError(f"{field} {error}") from error
        if str(error).startswith(CHECKPOINT_FIELDS):  # which lie where the model is named
            raise InputError(f"{''.join(field.rpartition(': ')[:2])}{error}") from error
        raise
    except (OSError, ValueError) as error:
        reason = reason_of(error)
        raise InputError(f"{field} {name}: cannot be loaded ({reason})") from error


def load_model(
    model: ModelName,
    adapter: str | Path | None = None,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = torch.float32,
    option: str = "--model",
) -> Any:
    """A checkpoint with its own adapter, or with the ``adapter`` given; ``dtype`` None: as it is
    stored, where the device computes in that. What is wrong with the model is one line of
    InputError that begins with ``option``."""
    with loading(model, option):
        family = family_of(model)
    if adapter is not None:  # before the model, which takes long
        adapter = family.fetch_adapter(adapter)
        family.check_adapter(adapter)
    with loading(model, option):
        found = family.load(model, device, dtype)
    if adapter is not None:
        found.load_adapter(adapter)
    return found


def adapter_family(path_or_id: str | Path) -> tuple[Family, Path]:
    """The family of an adapter, and its folder, fetched from the hub unless it is here. InputError
    if it is no adapter."""
    files = sorted({file for family in families() for file in family.format.files})
    folder = fetched(path_or_id, files)
    return family_named(Adapter.load(folder).family), folder
