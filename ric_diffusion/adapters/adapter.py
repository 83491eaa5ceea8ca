"""The adapter: what training produces, small and self-describing, a folder.

ric_adapter.json             family, base model, conditioning, reward space, mapping, training
reward_encoder.safetensors   embedding mode only
README.md                    model card with the slider ranges
manifest.json                digests of all of these but the card, which is written on by hand
and the LoRA, in the files that the family's format has (adapters/format.py), unless its JSON says
"lora": false: the base model is then itself fine-tuned on the rewards, or, with "frozen": true, the
tokens of the reward encoder are all that was trained
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from ric_diffusion.adapters.format import LoraFormat
from ric_diffusion.adapters.lora import Lora
from ric_diffusion.adapters.modelspec import ModelSpec
from ric_diffusion.conditioning.conditioner import (
    Conditioner,
    EmbeddingConditioner,
    Mode,
    TextConditioner,
)
from ric_diffusion.conditioning.encoder import RewardEncoder
from ric_diffusion.conditioning.grammar import Grammar
from ric_diffusion.io.bounds import check_count
from ric_diffusion.io.config import from_dict
from ric_diffusion.io.errors import InputError, suggest
from ric_diffusion.io.files import digests, replacing_folder, write_json
from ric_diffusion.io.manifest import MANIFEST, DamagedError, check_manifest, write_manifest
from ric_diffusion.io.strict_json import read_json
from ric_diffusion.rewards import MAPPINGS, Curve, RewardSpace, calibration, checks, to_targets

FORMAT_VERSION = 1
ABOUT_FILE = "ric_adapter.json"
ENCODER_FILE = "reward_encoder.safetensors"
CARD_FILE = "README.md"

# Where no network is at hand to say what it expects of a prompt.
AVERAGE = "calibrated as for an average prompt; with the model at hand this prompt's own counts"

MOST_PATH = 4096  # characters
MOST_TRAINED = 10**12  # records, steps, rounds
TRAINING = {
    "digest": str,
    "records": int,
    "steps": int,
    "online": str,
    "rounds": int,
    "denoiser": str,
    "base_model": str,
}
TOLD = 0.05  # z; a target moved by less is not worth a line


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """All of an adapter but the LoRA weights, which live in the network once loaded.

    ``family``: the name of the model family; ``base_config``: whose configs and tokenizers the base
    model takes where it is a single file; ``sampling`` holds the arguments of sampling that the
    adapter was validated with: what every call uses unless told otherwise; ``calibration`` a curve
    for each reward whose slider was measured. ``lora``: whether there is one; not where the base
    model is itself fine-tuned on the rewards, nor where it is ``frozen`` and reward tokens are all
    that was trained. ``modelspec``: what other programs call the base
    model, None if they have no word for it.
    """

    family: str
    base_model: str
    space: RewardSpace
    conditioner: Conditioner
    mapping: str = "front"
    sampling: Mapping[str, float] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    calibration: Mapping[str, Curve] = field(default_factory=dict)
    lora: bool = True
    frozen: bool = False
    modelspec: ModelSpec | None = None
    base_config: str | None = None

    def __post_init__(self) -> None:
        checks.text(self.base_model, "base_model", MOST_PATH)
        checks.text(self.base_config or "", "base_config", MOST_PATH)
        checks.text(self.family, "family", checks.MOST_TEXT)
        _check_training(self.training)
        if self.mapping not in MAPPINGS:
            raise InputError(f"mapping {self.mapping!r}: choose one of {', '.join(MAPPINGS)}")
        if tuple(self.conditioner.names) != self.space.names:
            raise InputError(
                f"adapter: conditioned on {self.conditioner.names}, but its reward space holds "
                f"{self.space.names}; they must agree"
            )
        if self.frozen and (self.lora or self.conditioner.mode != "embedding"):
            raise InputError(
                "frozen goes with reward tokens and without a LoRA: they are all that was trained"
            )
        for name in self.calibration:
            checks.known(name, self.space.names, "calibration")

    def targets_for(
        self,
        *,
        preference: Mapping[str, float] | None = None,
        targets: Mapping[str, float] | None = None,
        mapping: str | None = None,
    ) -> dict[str, float]:
        """A preference, mapped, or targets, checked -> targets in z; neither is all on auto."""
        if preference is not None and targets is not None:
            raise InputError("preference and targets: give one of them, not both")
        if preference is not None:
            return self.mapped(preference, mapping)
        return self.space.check_targets(targets or {}, "targets")

    def mapped(
        self, preference: Mapping[str, float], mapping: str | None = None
    ) -> dict[str, float]:
        """A preference -> targets in z, by the adapter's own mapping unless one is given."""
        return to_targets(preference, self.space, mapping or self.mapping)

    @property
    def knows_prompts(self) -> bool:
        """Whether its calibration is another one for every prompt."""
        return any(curve.prompt for curve in self.calibration.values())

    def for_prompt(self, features: np.ndarray) -> Self:
        """The adapter as it is calibrated for the prompt with these features (D,): what it says of
        reach and of model targets holds for that prompt alone."""
        curves = {name: curve.for_prompt(features) for name, curve in self.calibration.items()}
        return replace(self, calibration=curves)

    def for_prompts(
        self, prompts: Sequence[str], features_of: Callable[[list[str]], np.ndarray]
    ) -> list[Self]:
        """The same for each of N prompts, whose features ``features_of`` is asked for once, if they
        matter at all."""
        if not self.knows_prompts:
            return [self] * len(prompts)
        distinct = list(dict.fromkeys(prompts))
        rows = zip(distinct, features_of(distinct), strict=True)
        found = {prompt: self.for_prompt(row) for prompt, row in rows}
        return [found[prompt] for prompt in prompts]

    def check_features(self, count: int) -> None:
        """InputError unless calibration reads as many features as prompts of a model have."""
        for name, curve in self.calibration.items():
            if curve.prompt is not None and curve.prompt.features != count:
                raise InputError(
                    f"the calibration of {name} reads {curve.prompt.features} features of a "
                    f"prompt, this model has {count}: it was calibrated on another architecture"
                )

    def reachable(self, targets: Mapping[str, float]) -> dict[str, float]:
        """Targets in z, each moved to the nearest value its calibration says can be had."""
        return {
            name: self.calibration[name].clamp(z) if name in self.calibration else z
            for name, z in targets.items()
        }

    def unreachable(self, targets: Mapping[str, float]) -> list[str]:
        """A line about every target that calibration moves."""
        return [
            f"{name}: {targets[name]:.2f} z is beyond the reachable range; {z:.2f} is used"
            for name, z in self.reachable(targets).items()
            if abs(z - targets[name]) > TOLD
        ]

    def used(self, targets: Mapping[str, float]) -> dict[str, float]:
        """Targets in z as they are really asked for: the nearest that can be reached where that was
        measured, else what the conditioning can say (text rounds)."""
        reachable = self.reachable(targets)
        return {
            name: reachable[name] if name in self.calibration else z
            for name, z in self.conditioner.used(targets).items()
        }

    def model_targets(self, targets: Mapping[str, float]) -> dict[str, float]:
        """What the model has to read so that it gives these targets, in z."""
        asked = {
            name: self.calibration[name].request(z) if name in self.calibration else z
            for name, z in targets.items()
        }
        return self.conditioner.used(asked)

    def text(self, prompt: str, targets: Mapping[str, float], tokenizer: Any) -> tuple[str, bool]:
        """Prompt and targets in z -> the text that the model reads in text mode, and whether the
        prompt was cut to make room; InputError in embedding mode."""
        conditioner = self.check_text()
        read = self.model_targets(self.used(targets))
        [text] = conditioner.texts([prompt], [read], [tokenizer])
        return text, text != conditioner.grammar.format(prompt, read)

    def check_text(self) -> TextConditioner:
        """The conditioner of text mode; InputError in embedding mode."""
        if isinstance(self.conditioner, TextConditioner):
            return self.conditioner
        raise InputError(
            "this adapter reads rewards as learned tokens, which no text can say; use `ric "
            "generate`, the Python API or the ComfyUI nodes, or train one with mode: text"
        )

    @property
    def in_model(self) -> bool:
        """Whether the base model is itself fine-tuned on the rewards."""
        return not (self.lora or self.frozen)

    @property
    def encoder(self) -> RewardEncoder | None:
        """What makes the reward tokens; None in text mode."""
        if isinstance(self.conditioner, EmbeddingConditioner):
            return self.conditioner.encoder
        return None

    def about(self) -> dict[str, Any]:
        """``ric_adapter.json``."""
        conditioning: dict[str, Any] = {"mode": self.conditioner.mode}
        if isinstance(self.conditioner, TextConditioner):
            conditioning["grammar"] = self.conditioner.grammar.to_dict()
        return {
            "format_version": FORMAT_VERSION,
            "family": self.family,
            "base_model": self.base_model,
            **({"base_config": self.base_config} if self.base_config else {}),
            **({"modelspec": asdict(self.modelspec)} if self.modelspec else {}),
            "conditioning": conditioning,
            "reward_space": self.space.to_dict(),
            "mapping": self.mapping,
            "sampling": dict(self.sampling),
            "training": dict(self.training),
            "calibration": {name: curve.to_dict() for name, curve in self.calibration.items()},
            **({} if self.lora else {"lora": False}),
            **({"frozen": True} if self.frozen else {}),
        }

    def save(self, folder: Path, weights: Lora, form: LoraFormat, card: str) -> None:
        """Write the folder with its LoRA and its model card, in one move."""
        with replacing_folder(folder) as temporary:
            write_json(temporary / ABOUT_FILE, self.about())
            if self.encoder is not None:
                self.encoder.save(temporary / ENCODER_FILE)
            if self.lora:
                form.write(temporary, weights, self.about())
            write_manifest(temporary, sorted(path.name for path in temporary.iterdir()))
            (temporary / CARD_FILE).write_text(card, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read all but the LoRA weights. InputError if the folder is not an adapter of ours, or if
        a file of it is not what its manifest says. One without a manifest was made by hand, or by
        an earlier release."""
        path = folder / ABOUT_FILE
        if path.exists() and (folder / MANIFEST).exists():
            try:
                check_manifest(folder, [ABOUT_FILE])
            except DamagedError as error:
                raise DamagedError(
                    f"{error}; make or fetch the adapter again, or delete its {MANIFEST} if that "
                    "was on purpose"
                ) from error
        try:
            about = read_json(path)
        except OSError as error:
            raise InputError(f"{folder}: not an adapter folder, it has no {ABOUT_FILE}") from error
        if not isinstance(about, dict) or about.get("format_version") != FORMAT_VERSION:
            raise InputError(f"{path}: this release reads format_version {FORMAT_VERSION}")
        if "family" not in about:
            raise InputError(
                f'{path}: names no family; it is of an earlier release: add "family": '
                '"stable-diffusion" (or "causal-lm") to it'
            )
        stored = from_dict(about, About, str(path))
        conditioner = _conditioner(stored.conditioning, path)
        try:
            return cls(
                family=stored.family,
                base_model=stored.base_model,
                space=RewardSpace.from_dict(stored.reward_space),
                conditioner=conditioner,
                mapping=stored.mapping,
                sampling=stored.sampling,
                training=stored.training,
                calibration=calibration.curves(stored.calibration),
                lora=stored.lora,
                frozen=stored.frozen,
                modelspec=ModelSpec.from_dict(stored.modelspec) if stored.modelspec else None,
                base_config=stored.base_config,
            )
        except InputError as error:
            raise InputError(f"{path}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Conditioning:
    """As ``ric_adapter.json`` has it; ``grammar`` in text mode."""

    mode: Mode
    grammar: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if (self.mode == "text") != (self.grammar is not None):
            raise ValueError("grammar goes with mode text, and with no other")


@dataclass(frozen=True, kw_only=True)
class About:
    """What ``ric_adapter.json`` may say, as ``Adapter`` has it; what is a mapping here is checked
    by those who read it."""

    format_version: Literal[1]
    family: str
    base_model: str
    conditioning: Conditioning
    reward_space: Mapping[str, Any]
    mapping: str
    sampling: Mapping[str, Any]
    training: Mapping[str, Any]
    calibration: Mapping[str, Any]
    base_config: str | None = None
    modelspec: Mapping[str, Any] | None = None
    lora: bool = True
    frozen: bool = False


def _conditioner(stored: Conditioning, path: Path) -> Conditioner:
    if stored.grammar is None:
        return EmbeddingConditioner(RewardEncoder.load(path.with_name(ENCODER_FILE)))
    try:
        return TextConditioner(Grammar.from_dict(stored.grammar))
    except InputError as error:
        raise InputError(f"{path}: conditioning: {error}") from error


def _check_training(told: Mapping[str, Any]) -> None:
    """InputError for what no training tells of itself; the card repeats it."""
    for key, value in checks.mapping(told, "training").items():
        where = f"training.{key}"
        if TRAINING.get(key) is int:
            check_count(where, value, MOST_TRAINED, least=0)
        elif key in TRAINING:
            checks.text(value, where, MOST_PATH)
        else:
            raise InputError(f"{where}: unknown field{suggest(key, TRAINING)}")


def _held(adapter: Adapter) -> str:
    """What an adapter beside its model has, as an error says it."""
    return "has a LoRA" if adapter.lora else "has no LoRA, only reward tokens"


def _training(adapter: Adapter) -> str:
    """Which ``train`` goes on with it."""
    return "lora" if adapter.lora else "tokens"


def _modulates(adapter: Adapter) -> bool:
    """Whether rewards also shift what a denoiser reads of the time, or steer layers."""
    encoder = adapter.encoder
    return encoder is not None and bool(encoder.time_width or encoder.layers)


def _labels(adapter: Adapter) -> str | None:
    """The words of text mode, with what stands before each."""
    grammar = getattr(adapter.conditioner, "grammar", None)
    return None if grammar is None else grammar.separator.join(grammar.labels)


def adapter_digests(folder: Path) -> list[str]:
    """One digest for each file that an adapter's samples depend on."""
    return digests([*sorted(folder.glob("*.safetensors")), folder / ABOUT_FILE])


def check_continues(folder: Path, stored: tuple[Adapter, Lora], ours: tuple[Adapter, Lora]) -> None:
    """InputError unless training can go on from what was stored in ``folder``: the same rewards,
    the same kind of conditioning, LoRA of the same shape, and nothing asked for in vain: mapping
    and sampling are the adapter's."""
    (adapter, weights), (own, lora) = stored, ours
    if adapter.in_model and not own.in_model:
        raise InputError(
            f"{folder}: has no {'LoRA' if own.lora else 'tokens of a frozen model'} to go on with, "
            f"its rewards are in {adapter.base_model} itself; start from an adapter that `ric "
            "train` made, or give train: full if that made it"
        )
    if own.in_model and not adapter.in_model:
        raise InputError(
            f"{folder}: {_held(adapter)}, where train: full goes on with a model's own weights; "
            f"give train: {_training(adapter)}"
        )
    if own.lora != adapter.lora:
        raise InputError(f"{folder}: {_held(adapter)}; give train: {_training(adapter)}")
    for what, theirs, wanted in (
        ("mode", adapter.conditioner.mode, own.conditioner.mode),
        ("rewards", adapter.space.names, own.space.names),
        *(
            (f"LoRA {word}", weights.settings.get(key), lora.settings.get(key))
            for word, key in (("rank", "r"), ("alpha", "lora_alpha"))
        ),
        ("modulation", _modulates(adapter), _modulates(own)),
        ("grammar", _labels(adapter), _labels(own)),
        ("mapping", adapter.mapping, own.mapping),
        *(
            (f"sampling.{key}", adapter.sampling.get(key), own.sampling.get(key))
            for key in sorted({*adapter.sampling, *own.sampling})
        ),
    ):
        if theirs != wanted:
            raise InputError(
                f"{folder}: its {what} is {theirs}, this run's {wanted}; give the same"
            )
    layers = [{part: set(one.tensors) for part, one in w.parts.items()} for w in (weights, lora)]
    if layers[0] != layers[1]:
        raise InputError(f"{folder}: has LoRA for other layers than this run trains")
