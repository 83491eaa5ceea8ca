"""What a report says in words: one plain sentence for each finding, from ``metrics.json``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Metrics = Mapping[str, Any]
Figure = Mapping[str, float | None]

TOLD = 3  # so many models are told about one by one


def number(value: float | None, digits: int = 2, *, sign: bool = False) -> str:
    """A number as it is printed, with a minus sign as wide as the plus; a dash for none."""
    if value is None:
        return "–"
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    return text.replace("-", "−")


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f} %"


def with_interval(figure: Figure, digits: int = 2, *, sign: bool = False) -> str:
    """``1.25 (1.10 to 1.40)``."""
    value, low, high = (number(figure[key], digits, sign=sign) for key in ("value", "low", "high"))
    return value if figure["low"] is None else f"{value} ({low} to {high})"


def percent_with_interval(figure: Figure) -> str:
    if figure["value"] is None:
        return "–"
    low, high = (percent(figure[key]).removesuffix(" %") for key in ("low", "high"))
    return f"{percent(figure['value'])} ({low} to {high})"


def findings(metrics: Metrics) -> list[str]:
    """The sentences, most telling first; of many models, the tables say more than these do."""
    models = metrics["models"]
    told = models if len(models) <= TOLD else models[:1]
    found = [*_calibration(metrics), *(_volume(metrics, model) for model in models)]
    found += [_near(model) for model in told if model["near_front"]["of"] > 1]
    calibrated = [one["reward"] for one in (metrics["calibration"] or {"rewards": []})["rewards"]]
    found += [
        _control(model, sweep, untold=sweep["reward"] not in calibrated)
        for model in told
        for sweep in model["control"]
    ]
    found += [
        f"{model['name']}: a sample fits its own prompt better than another in "
        f"{percent_with_interval(model['prompt_kept'])} of comparisons."
        for model in told
    ]
    return [*found, *_faults(models)]


def _calibration(metrics: Metrics) -> Iterator[str]:
    """Whether calibrated sliders do what they say better than without: what it was done for."""
    if metrics["calibration"] is None:
        return
    for found in metrics["calibration"]["rewards"]:
        name, ratio = found["reward"], found["error_ratio"]
        reach = " to ".join(number(end, sign=True) for end in found["reach"])
        without, calibrated = errors_of(metrics, name)
        if without["value"] is None or calibrated["value"] is None:
            yield f"Calibrated, {name} reaches {reach} z; no request of the report lies in there."
            continue
        verdict = "the two cannot be told apart"
        if ratio["low"] is not None and ratio["low"] > 1:
            verdict = "it does harm"
        elif ratio["high"] is not None and ratio["high"] < 1:
            verdict = "it helps"
        yield (
            f"Calibration brings the error of {name} from {with_interval(without)} to "
            f"{with_interval(calibrated)} z inside what can be reached, {reach} z: {verdict}."
        )
    for name in metrics["calibration"]["uncalibrated"]:
        yield f"{name} is not calibrated, since what is obtained does not rise with its slider."


def errors_of(metrics: Metrics, reward: str) -> list[Figure]:
    """The control errors that a calibration is judged by: without it and with it."""
    models = {model["name"]: model for model in metrics["models"]}
    return [
        sweep["error"]
        for name in metrics["calibration"]["models"]
        for sweep in models[name]["control"]
        if sweep["reward"] == reward
    ]


def _volume(metrics: Metrics, model: Mapping[str, Any]) -> str:
    """How much the model's sweep covers, and how that compares to the first model's."""
    volume, ratio = with_interval(model["hypervolume"]), model["hypervolume_ratio"]
    if ratio is None:
        where = ", ".join(number(value, 0) for value in metrics["reference"])
        return (
            f"{model['name']} covers a hypervolume of {volume} above the reference point ({where})."
        )
    said = f"{model['name']} covers {volume}"
    if ratio["low"] is None:
        return f"{said}."
    verdict = "the two cannot be told apart"
    if ratio["low"] > 1:
        verdict = "it covers more"
    elif ratio["high"] < 1:
        verdict = "it covers less"
    return (
        f"{said}, {with_interval(ratio)} times as much as {metrics['models'][0]['name']}: "
        f"{verdict}."
    )


def _near(model: Mapping[str, Any]) -> str:
    near = model["near_front"]
    return (
        f"{near['count']} of {near['of']} preferences of {model['name']} lie on its front or "
        "within 2 % of it."
    )


def _control(model: Mapping[str, Any], sweep: Mapping[str, Any], *, untold: bool) -> str:
    """``untold``: its error is not said elsewhere, with a calibration's."""
    low, high = (number(end, sign=True) for end in sweep["reached"])
    asked = [number(end, sign=True) for end in (sweep["requested"][0], sweep["requested"][-1])]
    sentence = (
        f"{model['name']}, asked for {sweep['reward']} from {asked[0]} to {asked[1]} z, gives "
        f"{low} to {high} z on average"
    )
    if untold and sweep["error"]["value"] is not None:
        sentence += f", and misses by {with_interval(sweep['error'])} z inside what can be reached"
    return f"{sentence}; {percent(sweep['saturation']['value'])} of the slider lies outside it."


def _faults(models: list[Mapping[str, Any]]) -> Iterator[str]:
    total = sum(model["samples"] for model in models)
    if not any(model["faults"] for model in models):
        yield f"None of the {total} samples had a fault."
    for model in models:
        kinds = ", ".join(f"{count} {kind}" for kind, count in model["faults"].items())
        if kinds:
            yield (
                f"{sum(model['faults'].values())} of {model['samples']} samples of {model['name']} "
                f"had a fault ({kinds}) and are left out of its scores."
            )
