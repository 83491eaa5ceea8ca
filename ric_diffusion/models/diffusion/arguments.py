"""The arguments of a pipeline's call: bound to the stock call's names, and checked before it runs.

Stock calls swallow unknown names, and a value of the wrong type ends in the middle of them.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import torch

from ric_diffusion.io.bounds import (
    LATEST_START,
    MOST_PER_PROMPT,
    MOST_SCALE,
    MOST_SIDE,
    MOST_STEPS,
    check_count,
)
from ric_diffusion.io.errors import InputError, suggest

DEPRECATED = ("callback", "callback_steps")  # what stock calls still take out of their **kwargs
NUMBERS = ("guidance_scale", "guidance_rescale", "strength")
OPTIONAL = ("height", "width", "eta", "clip_skip")  # numbers, or None
TIMES = ("sigmas", "timesteps")  # lists of numbers, or None
COUNTS = ("num_inference_steps", "num_images_per_prompt")
_MOST = {  # MOST_SCALE of others
    "num_inference_steps": MOST_STEPS,
    "num_images_per_prompt": MOST_PER_PROMPT,
    "timesteps": MOST_STEPS,
    "height": MOST_SIDE,
    "width": MOST_SIDE,
    "reward_start": LATEST_START,
    "eta": 1.0,  # beyond, DDIM takes the root of what is below 0
}
NO_CLIP_SKIP = (
    "clip_skip: stock pipelines do not find the layers of transformers' text encoders any more; "
    "leave it out"
)
ALL_NOISE = 1.0 - 1e-6  # eta, nearly


def bound(
    signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any], own: Sequence[str]
) -> dict[str, Any]:
    """What a call was given, by name; ``own``: arguments of ours, which are suggested too.

    InputError for a name that the stock call, of this signature, does not have.
    """
    parameters = signature.parameters.values()
    known = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]
    if len(known) < len(parameters):
        known += DEPRECATED
    for name in kwargs:
        if name not in known:
            hint = suggest(name, [*known, *own])
            raise InputError(f"{name}: this pipeline's call has no such argument{hint}")
    arguments = signature.bind_partial(*args, **kwargs).arguments
    return {**arguments, **arguments.pop("kwargs", {})}


def is_number(value: Any) -> bool:
    """Whether a value is a finite number, and no truth value."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def most_of(argument: str) -> float:
    """The largest number that an argument of a call may be, or have in a list."""
    return _MOST.get(argument, MOST_SCALE)


def check_times(arguments: Mapping[str, Any], steps: int | None, scheduler: Any) -> None:
    """InputError for more denoising steps than the schedule has noise levels for, and for a list of
    times where it takes none; ``steps``: the default of the call."""
    for name in TIMES:
        listed = arguments.get(name) is not None
        if listed and name not in inspect.signature(scheduler.set_timesteps).parameters:
            raise InputError(
                f"{name}: {type(scheduler).__name__} takes no list of them; give "
                "num_inference_steps, or load another scheduler"
            )
    steps, config = arguments.get("num_inference_steps", steps), scheduler.config
    spared = config.get("steps_offset", 0) if config.get("timestep_spacing") == "leading" else 0
    most = config.get("num_train_timesteps", MOST_STEPS) - spared
    if steps is not None and steps > most:
        raise InputError(f"num_inference_steps {steps}: this model's schedule has {most} at most")


def steps_in(arguments: Mapping[str, Any], steps: int) -> int:
    """How many denoising steps a call asks for; ``steps``: the default of the call."""
    listed = next((arguments[name] for name in TIMES if arguments.get(name) is not None), None)
    return arguments.get("num_inference_steps", steps) if listed is None else len(listed)


def settle_eta(arguments: dict[str, Any], steps: int, strength: float, scheduler: Any) -> None:
    """Ask for a millionth less than all of DDIM's noise, in place, where every picture would be
    NaN; ``steps`` and ``strength``: the defaults of the call, 1 where it has no strength.

    A schedule that begins without any signal (zero terminal SNR) has no noise but the new one after
    its first step. The stock step takes the root of what is left of the old one: 0, or by rounding
    less, which depends on the number of steps.
    """
    cumulative = getattr(scheduler, "alphas_cumprod", None)
    if arguments.get("eta") != 1 or cumulative is None or cumulative[-1] != 0:
        return
    count = steps_in(arguments, steps)
    if int(count * arguments.get("strength", strength)) < count:
        return  # image to image leaves the first step out
    after = len(cumulative) - 1 - len(cumulative) // count
    signal = cumulative[after] if after >= 0 else getattr(scheduler, "final_alpha_cumprod", 1.0)
    noise = 1 - signal
    if noise < (noise**0.5) ** 2:
        arguments["eta"] = ALL_NOISE


def _at_most(value: Any, most: float) -> str:
    """The bound, for a number that is beyond it."""
    return f" from -{most:g} to {most:g}" if is_number(value) else ""


def check(arguments: Mapping[str, Any], guidance: str) -> None:
    """InputError for a number, a count or a generator that is none; ``guidance``: the argument for
    the scale of guidance."""
    for name, value in arguments.items():
        if name in COUNTS:
            # Timesteps of one's own say how many there are.
            listed = any(arguments.get(times) is not None for times in TIMES)
            if value is None and name == "num_inference_steps" and listed:
                continue
            check_count(name, value, int(most_of(name)))
        elif name in (guidance, *NUMBERS) or (name in OPTIONAL and value is not None):
            most = most_of(name)
            if not is_number(value) or abs(value) > most:
                raise InputError(f"{name} {value!r}: give a number{_at_most(value, most)}")
            if name == "clip_skip":
                raise InputError(NO_CLIP_SKIP)
        elif name == "generator" and value is not None:
            for one in value if isinstance(value, list) else [value]:
                if not isinstance(one, torch.Generator):
                    raise InputError(
                        f"generator {one!r}: give torch.Generator().manual_seed(0), or a list with "
                        "one such for each image"
                    )
