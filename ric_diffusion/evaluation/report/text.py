"""What a report says in words: one plain sentence for each statement, from its result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ric_diffusion.evaluation.report.schema import (
    ControlResult,
    Estimate,
    EvaluationResult,
    MethodResult,
    RewardCalibration,
)
from ric_diffusion.io.counting import counted

DETAILED = 3  # so many methods are spoken of one by one


def number(value: float | None, digits: int = 2, *, sign: bool = False) -> str:
    """A number as it is printed, with a minus sign as wide as the plus; a dash for none."""
    if value is None:
        return "–"
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    return text.replace("-", "−")


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f} %"


def with_interval(figure: Estimate, digits: int = 2, *, sign: bool = False) -> str:
    """``1.25 (1.10 to 1.40)``."""
    value, low, high = (
        number(one, digits, sign=sign) for one in (figure.value, figure.low, figure.high)
    )
    return value if figure.low is None else f"{value} ({low} to {high})"


def percent_with_interval(figure: Estimate) -> str:
    if figure.value is None:
        return "–"
    low, high = (percent(end).removesuffix(" %") for end in (figure.low, figure.high))
    return f"{percent(figure.value)} ({low} to {high})"


def statements(result: EvaluationResult) -> list[str]:
    """The sentences, most telling first; of many methods, the tables say more than these do."""
    methods = result.methods
    detailed = methods if len(methods) <= DETAILED else methods[:1]
    said = [*_calibration(result), *(_volume(result, method) for method in methods)]
    said += [_near(method) for method in detailed if method.near_front.total > 1]
    calibrated = [one.reward for one in result.calibration.rewards] if result.calibration else []
    said += [
        _control(method, sweep, with_error=sweep.reward not in calibrated)
        for method in detailed
        for sweep in method.control
    ]
    said += [
        f"{method.name}: a sample fits its own prompt better than another in "
        f"{percent_with_interval(method.prompt_r_precision)} of comparisons."
        for method in detailed
    ]
    return [*said, *_rejected(methods)]


def _calibration(result: EvaluationResult) -> Iterator[str]:
    """Whether calibrated sliders do what they say better than without: what it was done for."""
    if result.calibration is None:
        return
    for found in result.calibration.rewards:
        name = found.reward
        reachable = " to ".join(number(end, sign=True) for end in found.reachable)
        without, calibrated = result.calibration_errors(name)
        if without.value is None or calibrated.value is None:
            yield (
                f"Calibrated, {name} reaches {reachable} z; no request of the report lies in there."
            )
            continue
        verdict = _verdict(found.error_ratio, below="it helps", above="it does harm")
        yield (
            f"Calibration brings the error of {name} from {with_interval(without)} to "
            f"{with_interval(calibrated)} z inside what can be reached, {reachable} z: {verdict}."
        )
        yield _sample_errors(result, found)
    for name in result.calibration.uncalibrated:
        yield f"{name} is not calibrated, since its scores do not rise with its slider."


def _sample_errors(result: EvaluationResult, found: RewardCalibration) -> str:
    """What calibration does for single samples, and what was expected of it."""
    *before, calibrated = result.sample_errors(found.reward)
    stages = [f"{with_interval(before[0])} z without calibration"]
    if len(before) > 1:
        stages.append(f"{with_interval(before[1])} z with the average curve")
    last = "with calibration"
    if found.left_out is not None:
        last = (
            "with calibration for its prompt, of which prompts left out of the fit promised "
            f"{number(found.left_out[1])} z"
        )
    return (
        f"A single sample misses the {found.reward} it was asked for by {', '.join(stages)} and "
        f"{with_interval(calibrated)} z {last}."
    )


def _verdict(ratio: Estimate, *, below: str, above: str) -> str:
    """On which side of 1 the whole interval of a ratio lies, in words."""
    if ratio.low is not None and ratio.low > 1:
        return above
    if ratio.high is not None and ratio.high < 1:
        return below
    return "the two cannot be told apart"


def _volume(result: EvaluationResult, method: MethodResult) -> str:
    """How much the method's sweep covers, and how that compares to the first method's."""
    volume, ratio = with_interval(method.hypervolume), method.hypervolume_ratio
    if ratio is None:
        where = ", ".join(number(value, 0) for value in result.reference)
        return (
            f"{method.name} covers a hypervolume of {volume} above the reference point ({where})."
        )
    said = f"{method.name} covers {volume}"
    if ratio.low is None:
        return f"{said}."
    verdict = _verdict(ratio, below="it covers less", above="it covers more")
    return f"{said}, {with_interval(ratio)} times as much as {result.methods[0].name}: {verdict}."


def _near(method: MethodResult) -> str:
    near = method.near_front
    return (
        f"{near.count} of {near.total} preferences of {method.name} lie on its front or "
        "within 2 % of it."
    )


def _control(method: MethodResult, sweep: ControlResult, *, with_error: bool) -> str:
    """``with_error``: unless it is said elsewhere, with a calibration's."""
    low, high = (number(end, sign=True) for end in sweep.reached)
    first, last = (number(end, sign=True) for end in (sweep.requested[0], sweep.requested[-1]))
    sentence = (
        f"{method.name}, asked for {sweep.reward} from {first} to {last} z, gives "
        f"{low} to {high} z on average"
    )
    if with_error and sweep.error.value is not None:
        sentence += f", and misses by {with_interval(sweep.error)} z inside what can be reached"
    return f"{sentence}; {percent(sweep.saturation.value)} of the slider lies outside it."


def _rejected(methods: Sequence[MethodResult]) -> Iterator[str]:
    total = sum(method.samples for method in methods)
    if not any(method.rejected for method in methods):
        yield f"None of {counted(total, 'samples')} was rejected."
    for method in methods:
        if method.rejected:
            reasons = ", ".join(f"{count} {reason}" for reason, count in method.rejected.items())
            yield (
                f"{method.name}: {sum(method.rejected.values())} of "
                f"{counted(method.samples, 'samples')} rejected ({reasons}), which are left out of "
                "its scores."
            )
