"""The errors whose messages are meant for the user, and the hint that ends such messages."""

import difflib
from collections.abc import Iterable

from scorers.base import clipped, reason_of

__all__ = [
    "CollapseError",
    "InputError",
    "WorkerError",
    "clipped",
    "not_finite_error",
    "reason_of",
    "suggest",
]


class InputError(ValueError):
    """The user's input is wrong. One line: what is wrong, where, and how to mend it, without the
    middle where that is long.

    The command line prints it without a traceback and exits with 2.
    """

    def __str__(self) -> str:  # rather than when it is raised, which compiled models do as well
        return clipped(super().__str__())


class CollapseError(RuntimeError):
    """A run stopped itself, since the model no longer makes what it should. One line: what was
    measured, what is left, and how to go about it. The command line exits with 1.
    """


class WorkerError(RuntimeError):
    """Workers have failed on one part of the work again and again. One line: which part, and why at
    last. The command line exits with 1.
    """


def not_finite_error(what: str) -> FloatingPointError:
    """A model made something that is no number. One line; the command line exits with 1."""
    return FloatingPointError(
        f"{what}: not finite (NaN or Inf); the model's weights are damaged or overflow in their "
        "precision: try dtype float32, or fetch them again"
    )


def suggest(word: str, options: Iterable[str]) -> str:
    """The end of an error message about an unknown `word`, leading semicolon included.

    "; did you mean 'x'?" when an option is close, else "; one of: a, b, c", else "".
    """
    names = [str(option) for option in options]
    if not names:
        return ""
    lowered = {name.lower(): name for name in names}
    close = difflib.get_close_matches(str(word).lower(), lowered, n=1)
    if close:
        return f"; did you mean {lowered[close[0]]!r}?"
    return f"; one of: {', '.join(names)}"
