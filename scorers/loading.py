"""Scorers by name: the built-in ones and those of other packages."""

from __future__ import annotations

import inspect
import pkgutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from scorers.base import Scorer, ScorerError, first_line
from scorers.spec import parse_spec, suggest

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    import numpy as np

ENTRY_POINT_GROUP = "ric.scorers"

# As text, so that importing scorers imports neither numpy nor torch.
_BUILTINS = {
    "aesthetic": "scorers.aesthetic:Aesthetic",
    "aesthetic_v2_5": "scorers.aesthetic_v2_5:AestheticV25",
    "brevity": "scorers.words:Brevity",
    "brightness": "scorers.brightness:Brightness",
    "clip_iqa": "scorers.clip_iqa:ClipIqa",
    "clip_score": "scorers.clip_score:ClipScore",
    "colorfulness": "scorers.colorfulness:Colorfulness",
    "compressibility": "scorers.compressibility:Compressibility",
    "hps": "scorers.hps:Hps",
    "image_reward": "scorers.image_reward:ImageReward",
    "incompressibility": "scorers.compressibility:Incompressibility",
    "length": "scorers.words:Length",
    "pickscore": "scorers.pickscore:PickScore",
    "positivity": "scorers.positivity:Positivity",
    "readability": "scorers.readability:Readability",
    "relevance": "scorers.relevance:Relevance",
    "remote": "scorers.remote:remote",
    "reward_model": "scorers.reward_model:RewardModel",
    "vlm_judge": "scorers.vlm_judge:VlmJudge",
    "warmth": "scorers.warmth:Warmth",
}


def available() -> list[str]:
    """The names that ``load`` knows, sorted: built in, and from installed packages."""
    return sorted({*_BUILTINS, *(entry.name for entry in _entry_points())})


def load(spec: str, /, **options: Any) -> Scorer:
    """Build a scorer from ``"name"`` or ``"name:key=value,key=value"`` and keyword options.

    Raises ScorerError for an unknown name or option, a value that is not allowed, weights that
    cannot be had, or another package's scorer that fails.
    """
    name, written = parse_spec(spec)
    if twice := sorted(written.keys() & options.keys()):
        raise ScorerError(
            f"scorer {spec!r}: {twice[0]} is given in the name and as a keyword; keep one of them"
        )
    options = {**written, **options}
    entries = [entry for entry in _entry_points() if entry.name == name]
    if name in _BUILTINS:
        for entry in entries:
            warnings.warn(
                f"package {_package(entry)} offers a scorer {name!r} too; the built-in one is used",
                stacklevel=2,
            )
        factory = pkgutil.resolve_name(_BUILTINS[name])
        _check_options(name, factory, options)
        return cast(Scorer, factory(**options))
    if not entries:
        raise ScorerError(f"no scorer {name!r}; {suggest(name, available(), 'there are')}")
    return _load_entry(entries, options)


def check_consent(spec: str, options: Mapping[str, Any], *, where: str) -> None:
    """WeightsError if ``load`` would ask another machine that the user's environment does not name.

    For scorers that a file names, an adapter's or a labelled folder's, before they are loaded:
    whoever wrote it would otherwise be sent samples, prompts and the token. ``where`` begins the
    error.
    """
    name, written = parse_spec(spec)
    if name == "remote":
        from scorers.remote_client import check_consented

        check_consented({**written, **options}.get("url"), where)


def stand_in(spec: str, /, **options: Any) -> Scorer:
    """What takes the place of a scorer for which ``load`` raised WeightsError: it has its name,
    unit, medium and the options given, and no number (NaN) for any sample."""
    name, written = parse_spec(spec)
    entries = [entry for entry in _entry_points() if entry.name == name]
    factory = pkgutil.resolve_name(_BUILTINS[name]) if name in _BUILTINS else entries[0].load()
    options = {**written, **options}
    return StandIn(
        name=options.get("called") or name,
        unit=getattr(factory, "unit", ""),
        medium=getattr(factory, "medium", "image"),
        compares_within=getattr(factory, "compares_within", None),
        options=options,
    )


def is_stand_in(scorer: Scorer) -> bool:
    """Whether a scorer only takes the place of one."""
    return isinstance(scorer, StandIn)


@dataclass(frozen=True, kw_only=True)
class StandIn:
    name: str
    unit: str
    medium: str
    compares_within: Literal["prompt"] | None
    options: dict[str, Any]
    fingerprint: str = ""

    def __call__(self, images: Sequence[Any], prompts: Sequence[str] | None = None) -> np.ndarray:
        import numpy as np

        return np.full(len(images), np.nan, dtype=np.float32)


def _entry_points() -> list[EntryPoint]:
    # imported here: importlib.metadata is slow to import and rarely needed
    from importlib import metadata

    return list(metadata.entry_points(group=ENTRY_POINT_GROUP))


def _load_entry(entries: list[EntryPoint], options: dict[str, Any]) -> Scorer:
    """A scorer from another package; whatever goes wrong there names the package."""
    entry = entries[0]
    if len({other.value for other in entries}) > 1:
        packages = ", ".join(sorted(_package(other) for other in entries))
        raise ScorerError(
            f"scorer {entry.name!r} is offered by several packages ({packages}); "
            f"uninstall all but one"
        )
    where = f"scorer {entry.name!r} of package {_package(entry)} ({entry.value})"
    mend = "mend or uninstall that package"
    try:
        factory = entry.load()
    except Exception as error:
        raise ScorerError(f"{where} cannot be imported: {first_line(error)}; {mend}") from error
    if not callable(factory):
        raise ScorerError(f"{where} is a {type(factory).__name__}, not a class or function; {mend}")
    try:
        _check_options(entry.name, factory, options)
        scorer = factory(**options)
    except ScorerError:
        raise
    except Exception as error:
        raise ScorerError(
            f"{where} fails with options {options}: {first_line(error)}; "
            f"change the options, or {mend}"
        ) from error
    for attribute in ("name", "unit", "options", "fingerprint"):
        if not hasattr(scorer, attribute):
            raise ScorerError(f"{where} gives an object without .{attribute}; {mend}")
    if not callable(scorer):
        raise ScorerError(f"{where} gives an object that cannot be called; {mend}")
    if scorer.name != entry.name:
        raise ScorerError(f"{where} gives a scorer that is called {scorer.name!r}; {mend}")
    return cast(Scorer, scorer)


def _check_options(name: str, factory: Callable[..., Any], options: dict[str, Any]) -> None:
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


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "(unknown)"
