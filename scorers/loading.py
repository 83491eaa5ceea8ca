"""Scorers by name: the built-in ones and those of other packages."""

from __future__ import annotations

import errno
import pkgutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from scorers.base import Scorer, ScorerError, first_line
from scorers.building import build, check_factory, check_options
from scorers.spec import parse_spec, suggest
from scorers.weights import is_hub_id

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    import numpy as np

ENTRY_POINT_GROUP = "ric.scorers"
_MEND = "mend or uninstall that package"

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
    factory, package = factory_of(name)
    if package is None:
        check_options(name, factory, options)
        try:
            return cast(Scorer, factory(**options))
        except (TypeError, AttributeError, ValueError, OSError) as error:
            told = isinstance(error, OSError) and error.errno != errno.ENAMETOOLONG
            if told or isinstance(error, ScorerError):
                raise
            raise ScorerError(
                f"scorer {name!r} does not take {options} ({first_line(error)}); change them"
            ) from error
    [entry, *_] = [entry for entry in _entry_points() if entry.name == name]
    return build(name, factory, options, _where(entry), _MEND)


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


def named_models(spec: str, options: Mapping[str, Any]) -> list[str]:
    """The repositories of the hub that ``load`` would read from, as far as options name them."""
    _, written = parse_spec(spec)
    given = {**written, **options}.values()
    return [value for value in given if isinstance(value, str) and is_hub_id(value)]


def stand_in(spec: str, /, **options: Any) -> Scorer:
    """What takes the place of a scorer for which ``load`` raised WeightsError, or that is not
    installed: it has its name, the options given, its unit and medium if they are known, and no
    number (NaN) for any sample."""
    kind = spec.partition(":")[0].strip()
    if kind not in available():
        return StandIn(name=kind, unit="", medium="image", compares_within=None, options=options)
    name, written = parse_spec(spec)
    factory, _ = factory_of(name)
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


def factory_of(name: str) -> tuple[Callable[..., Any], str | None]:
    """The class or function that makes the scorer of a name, and the package it is from, None for a
    built-in one. ScorerError if there is none, or if the package is broken."""
    entries = [entry for entry in _entry_points() if entry.name == name]
    if name in _BUILTINS:
        for entry in entries:
            warnings.warn(
                f"package {_package(entry)} offers a scorer {name!r} too; the built-in one is used",
                stacklevel=3,
            )
        return pkgutil.resolve_name(_BUILTINS[name]), None
    if not entries:
        raise ScorerError(f"no scorer {name!r}; {suggest(name, available(), 'there are')}")
    entry = entries[0]
    if len({other.value for other in entries}) > 1:
        packages = ", ".join(sorted(_package(other) for other in entries))
        raise ScorerError(
            f"scorer {entry.name!r} is offered by several packages ({packages}); "
            f"uninstall all but one"
        )
    try:
        factory = entry.load()
    except (Exception, SystemExit) as error:
        raise ScorerError(
            f"{_where(entry)} cannot be imported: {first_line(error)}; {_MEND}"
        ) from error
    return check_factory(factory, _where(entry), _MEND), _package(entry)


def _where(entry: EntryPoint) -> str:
    return f"scorer {entry.name!r} of package {_package(entry)} ({entry.value})"


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "(unknown)"
