"""From another's class or function to a scorer; whatever goes wrong names where it is from."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, cast

from scorers.base import Scorer, ScorerError, first_line
from scorers.spec import suggest


def check_factory(factory: Any, where: str, mend: str) -> Callable[..., Any]:
    """What makes a scorer, as it is. ScorerError for what cannot be called."""
    if not callable(factory):
        raise ScorerError(f"{where} is a {type(factory).__name__}, not a class or function; {mend}")
    return cast(Callable[..., Any], factory)


def build(
    name: str, factory: Callable[..., Any], options: dict[str, Any], where: str, mend: str
) -> Scorer:
    """The scorer that ``factory`` makes of the options; ``where`` begins and ``mend`` ends what
    errors say of it."""
    try:
        check_options(name, factory, options)
        scorer = factory(**options)
    except ScorerError:
        raise
    except (Exception, SystemExit) as error:
        raise ScorerError(
            f"{where} fails with options {options}: {first_line(error)}; "
            f"change the options, or {mend}"
        ) from error
    for attribute, kind in (("name", str), ("unit", str), ("options", dict), ("fingerprint", str)):
        try:
            value = getattr(scorer, attribute)
        except AttributeError:
            raise ScorerError(f"{where} gives an object without .{attribute}; {mend}") from None
        except (Exception, SystemExit) as error:
            raise ScorerError(
                f"{where}: .{attribute} fails: {first_line(error)}; {mend}"
            ) from error
        if not isinstance(value, kind):
            raise ScorerError(
                f"{where}: .{attribute} is a {type(value).__name__}, not a {kind.__name__}; {mend}"
            )
    if not callable(scorer):
        raise ScorerError(f"{where} gives an object that cannot be called; {mend}")
    if scorer.name != name:
        raise ScorerError(f"{where} gives a scorer that is called {scorer.name!r}; {mend}")
    return cast(Scorer, scorer)


def check_options(name: str, factory: Callable[..., Any], options: dict[str, Any]) -> None:
    """Refuse options that the factory does not name, unless it takes any; then, that one which it
    needs is left out."""
    parameters = inspect.signature(factory).parameters.values()
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    by_name = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    known = {p.name: p.default is p.empty for p in parameters if p.kind in by_name}
    for option in options:
        if option not in known and not takes_any:
            raise ScorerError(
                f"scorer {name!r} has no option {option!r}; {suggest(option, known, 'its options')}"
            )
    for option, needed in known.items():
        if needed and option not in options:
            raise ScorerError(f"scorer {name!r} needs {option!r}; write {name}:{option}=…")
