"""What all controls of the page stand on, as one value: to restore, to keep, to say elsewhere."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ric_diffusion.api.picture_settings import PictureSettings
from ric_diffusion.app.choice import ModelChoice
from ric_diffusion.app.engine import (
    LIMITS,
    MAX_COUNT,
    MAX_SEED,
    REFINE,
    Engine,
    SampleRequest,
    whole,
)
from ric_diffusion.app.sliders import MODES, PREFERENCE, STEP, TARGETS, shares, sliders_of
from ric_diffusion.io.errors import InputError
from ric_diffusion.rewards import MAPPINGS, checks

SAMPLING = tuple(LIMITS)  # a control each, in this order, also where the model has no such setting


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Both modes' positions of the sliders and all else that decides a sample.

    Attributes:
        weights: of the preference, by reward.
        values: targets in z by reward, also of those on auto; ``autos`` says which are.
        mapping: from preference to targets; None: the adapter's own.
        sampling: what is not as the adapter has it, by the name of its control.
    """

    prompt: str
    negative_prompt: str = ""
    seed: int = 0
    count: int = 1
    refine: bool = False
    mode: str
    weights: Mapping[str, float]
    values: Mapping[str, float]
    autos: Mapping[str, bool]
    mapping: str | None = None
    sampling: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Any) -> Settings:
        """InputError for what is no settings; reward names and ranges are the form's to check."""
        given = checks.fields(stored, cls.__dataclass_fields__, "settings")
        for name in ("weights", "values", "sampling"):
            plain = checks.mapping(given[name], f"settings: {name}")
            given[name] = {key: checks.number(value, key) for key, value in plain.items()}
        autos = checks.mapping(given["autos"], "settings: autos")
        given["autos"] = {key: bool(value) for key, value in autos.items()}
        for name in ("prompt", "negative_prompt"):
            if not isinstance(given[name], str):
                raise InputError(f"settings: {name} must be a text")
        if given["mode"] not in MODES:
            raise InputError(f"settings: mode {given['mode']!r}: choose {' or '.join(MODES)}")
        if given["mapping"] is not None and given["mapping"] not in list(MAPPINGS):
            raise InputError(f"settings: mapping {given['mapping']!r} is unknown")
        given |= {"seed": int(checks.number(given["seed"], "settings: seed"))}
        given |= {"count": whole(given["count"], "settings: count", 1, MAX_COUNT)}
        return cls(**given | {"refine": bool(given["refine"])})

    @property
    def asked(self) -> dict[str, dict[str, float]]:
        """Preference or targets, as the verbs take them."""
        if self.mode == PREFERENCE:
            return {"preference": dict(self.weights)}
        return {"targets": {name: z for name, z in self.values.items() if not self.autos[name]}}

    def command(self, choice: ModelChoice) -> str:
        """The same on the command line."""
        words = ["ric", "generate", *choice.command(), *_text("--prompt", self.prompt)]
        if self.negative_prompt:
            words += _text("--negative-prompt", self.negative_prompt)
        [(name, values)] = self.asked.items()
        if values:
            words += [f"--{name}", *(f"{reward}={value:g}" for reward, value in values.items())]
        if self.mapping and self.mode == PREFERENCE:
            words += ["--mapping", self.mapping]
        words += ["--seed", str(self.seed)]
        if self.count > 1:
            words += ["--count", str(self.count)]
        if self.refine:
            words += ["--refine", str(REFINE)]
        for name, value in self.sampling.items():
            words += [f"--{name.replace('_', '-')}", f"{value:g}"]
        return shlex.join([*words, "--out", "out"])

    def python(self, choice: ModelChoice) -> str:
        """The same in Python."""
        model, options = choice.python()
        [(name, values)] = self.asked.items()
        arguments: dict[str, Any] = dict(options)
        if self.negative_prompt:
            arguments["negative_prompt"] = self.negative_prompt
        arguments[name] = values
        if self.mapping and self.mode == PREFERENCE:
            arguments["mapping"] = self.mapping
        arguments["seed"] = self.seed
        if self.count > 1:
            arguments["count"] = self.count
        if self.refine:
            arguments["refine"] = REFINE
        if self.sampling:
            arguments["sampling"] = dict(self.sampling)
        lines = [model, repr(self.prompt), *(f"{k}={v!r}" for k, v in arguments.items())]
        imports = ["from ric_diffusion import generate"]
        if model.startswith("Checkpoint("):
            imports.append("from ric_diffusion.api import Checkpoint")
        call = "".join(f"    {line},\n" for line in lines)
        return "\n".join([*imports, "", f"samples = generate(\n{call})"])


class Form:
    """The row of all controls' values, and the settings that it says, for one engine.

    The row is: prompt, negative prompt, seed, count, refine, mode; weights, values in z and autos,
    n each; mapping, and one of each of ``SAMPLING``.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.sliders = sliders_of(engine.adapter)
        self.names = [slider.name for slider in self.sliders]
        self.own = engine.sampling

    def initial(self, prompt: str) -> Settings:
        """What the page begins with."""
        names, several = self.names, len(self.names) > 1
        return Settings(
            prompt=prompt,
            mode=PREFERENCE if several else TARGETS,
            weights=dict(zip(names, shares(len(names)), strict=True)),
            values=dict.fromkeys(names, 0.0),
            autos=dict.fromkeys(names, True),
        )

    def settings(self, row: Sequence[Any]) -> Settings:
        """InputError for what no control can say."""
        n = len(self.names)
        if len(row) != 7 + 3 * n + len(SAMPLING):
            raise InputError("this page shows another model; reload it")
        prompt, negative, seed, count, refine, mode = row[:6]
        weights, values, autos = (
            dict(zip(self.names, row[6 + i * n : 6 + (i + 1) * n], strict=True)) for i in range(3)
        )
        mapping, *sampling = row[6 + 3 * n :]
        if mode not in MODES:
            raise InputError(f"mode {mode!r}: choose {' or '.join(MODES)}")
        for slider in self.sliders:
            _check_end(slider.name, weights[slider.name], 0, 100)
            _check_end(slider.name, values[slider.name], slider.low, slider.high)
        return Settings(
            prompt=prompt,
            negative_prompt=negative or "",
            seed=whole(seed, "seed", 0, MAX_SEED),
            count=whole(count, "count", 1, MAX_COUNT),
            refine=bool(refine),
            mode=mode,
            weights=weights,
            values=values,
            autos={name: bool(auto) for name, auto in autos.items()},
            mapping=None if mapping == self.engine.adapter.mapping else mapping,
            sampling={
                name: _numeric(value, name)
                for name, value in zip(SAMPLING, sampling, strict=True)
                if name in self.own and value != self.own[name]
            },
        )

    def row(self, settings: Settings) -> list[Any]:
        """The controls' values for settings; positions outside a slider are moved to its end.
        InputError for settings of other rewards."""
        for name in (*settings.weights, *settings.values):
            if name not in self.names:
                raise InputError(
                    f"settings: they are for {', '.join(settings.weights)}, and this model has "
                    f"{', '.join(self.names)}"
                )
        values = [
            min(max(settings.values.get(slider.name, 0.0), slider.low), slider.high)
            for slider in self.sliders
        ]
        return [
            settings.prompt,
            settings.negative_prompt,
            settings.seed,
            settings.count,
            settings.refine,
            settings.mode,
            *(settings.weights.get(name, 0) for name in self.names),
            *values,
            *(settings.autos.get(name, True) for name in self.names),
            settings.mapping or self.engine.adapter.mapping,
            *(settings.sampling.get(name, self.own.get(name)) for name in SAMPLING),
        ]

    def of_picture(self, made: PictureSettings) -> Settings:
        """Where the controls stand nearest to what made a picture: a slider has steps and ends, so
        a picture is drawn again from ``made`` itself."""
        first = self.initial(made.prompt)
        given = {self.engine.family.options.get(n, n): n for n in self.own}
        numbers = {n: v for n, v in made.sampling.items() if isinstance(v, int | float)}
        sampling = {given[name]: number for name, number in numbers.items() if name in given}
        weights, targets = made.preference or {}, made.targets or {}
        total = sum(weights.values())
        shares = {name: round(100 * weights.get(name, 0) / total) for name in self.names if total}
        values = {name: targets.get(name, first.values[name]) for name in self.names}
        settings = replace(
            first,
            negative_prompt=made.negative_prompt or "",
            seed=made.seed,
            refine=made.refine is not None,
            mode=PREFERENCE if total else TARGETS,
            weights=shares or first.weights,
            values=values,
            autos={name: name not in targets for name in self.names},
            mapping=made.mapping,
            sampling=sampling,
        )
        return self.settings(self.row(settings))

    def request(
        self, settings: Settings, *, seed: Any = None, refine: bool = False
    ) -> SampleRequest:
        """What the engine is asked for; ``seed``: in place of theirs."""
        return self.engine.request(
            settings.prompt,
            settings.seed if seed is None else seed,
            **settings.asked,
            refine=refine,
            mapping=settings.mapping,
            negative_prompt=settings.negative_prompt or None,
            sampling=settings.sampling,
        )

    def targets(self, settings: Settings) -> dict[str, float]:
        """Where the sliders stand, in z; those on auto are left out."""
        return dict(self.request(settings, seed=0).targets)


def _check_end(name: str, value: Any, low: float, high: float) -> None:
    """InputError for a position beyond the ends of a slider, but for what rounding makes of one."""
    number = checks.number(value, name)
    if not low - STEP / 2 <= number <= high + STEP / 2:
        end = low if number < low else high
        raise InputError(f"{name} {number:g}: its slider ends at {end:g}")


def _text(option: str, text: str) -> list[str]:
    """An option with its text, in one word where this alone would be taken for an option."""
    return [f"{option}={text}"] if text.startswith("-") else [option, text]


def _numeric(value: Any, name: str) -> Any:
    """What a control holds, if it is a number: an empty one holds None. InputError."""
    checks.number(value, name)
    return value
