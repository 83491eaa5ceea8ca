"""YAML file → frozen dataclass, every value checked against its annotation; and back to a digest.

The dataclasses live beside the code they configure. One may check values in `__post_init__` with a
ValueError: the file and field are put in front of its message here. A class attribute `RENAMED`
maps keys of earlier releases to what they are called now, and `REMOVED` those that are gone to what
to do about it, for the errors about them. `~` begins a path in the home folder.
"""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import json
import math
import os
import types
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from ric_diffusion.io.counting import counted
from ric_diffusion.io.errors import InputError, suggest
from ric_diffusion.io.files import read_file
from ric_diffusion.io.paths import expanded

T = TypeVar("T")

_hints = functools.cache(get_type_hints)  # they take longer than all else, and never change


def load_yaml(path: str | os.PathLike[str], cls: type[T]) -> T:
    """Read a `cls` from a YAML file; whatever is wrong with it is one line of InputError."""
    try:
        data = yaml.load(read_file(expanded(path)), Loader=_Loader)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a YAML file") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise InputError(f"{path}{place}: not valid YAML ({problem}); mend that line") from None
    return from_dict({} if data is None else data, cls, source=str(path))


def from_dict(data: Any, cls: type[T], source: str) -> T:
    """Build a `cls` from plain data, as `load_yaml` does; `source` names its origin in errors."""
    try:
        result: T = _convert(data, cls, "")
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    return result


def at_least(config: Any, least: int, *fields: str) -> None:
    """For `__post_init__`: ValueError for a field below ``least``."""
    within(config, least, math.inf, *fields)


def within(config: Any, least: float, most: float, *fields: str) -> None:
    """For `__post_init__`: ValueError for a field below ``least`` or above ``most``."""
    for name in fields:
        if not (value := getattr(config, name)) >= least:  # nor is what is not a number
            raise ValueError(f"{name} is {value}; give {least} or more")
        if value > most:
            raise ValueError(f"{name} is {value}; give {most} at most")


def above_zero(config: Any, *fields: str, most: float = math.inf) -> None:
    """For `__post_init__`: ValueError for a field that is not, or is above ``most``."""
    for name in fields:
        if not 0 < (value := getattr(config, name)) <= most:
            bound = f"{most} at most" if value > most else "a number above 0"
            raise ValueError(f"{name} is {value}; give {bound}")


def probabilities(config: Any, *fields: str) -> None:
    """For `__post_init__`: ValueError for a field that is none."""
    for name in fields:
        if not 0 <= (value := getattr(config, name)) <= 1:
            raise ValueError(f"{name} is {value}; give 0 to 1")


def to_dict(value: Any) -> Any:
    """The plain data (dicts, lists, strings, numbers) that `from_dict` turns back into `value`."""
    if isinstance(value, str | float):  # what most of large data is
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = (field.name for field in dataclasses.fields(value) if field.init)
        return {name: to_dict(getattr(value, name)) for name in fields}
    if isinstance(value, Mapping):
        return {key: to_dict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_dict(item) for item in value]
    return value.as_posix() if isinstance(value, Path) else value


def digest(value: Any) -> str:
    """sha256 of the canonical JSON of `to_dict(value)`: the same in every process and on disk."""
    return hashlib.sha256(_canonical(value)).hexdigest()


def digest_of_list(items: Iterable[Any]) -> str:
    """The digest of a list of these, of which a thousand are in memory at a time."""
    sha, rest, separator = hashlib.sha256(b"["), iter(items), b""
    while some := list(itertools.islice(rest, 1000)):
        sha.update(separator + _canonical(some)[1:-1])
        separator = b","
    sha.update(b"]")
    return sha.hexdigest()


# Told how to write what JSON has no word for, it is faster than plain data made first.
_CANONICAL = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), allow_nan=False, default=to_dict
)


def _canonical(value: Any) -> bytes:
    return _CANONICAL.encode(value).encode()


class _Loader(yaml.SafeLoader):
    """Safe loading that refuses a key given twice, where YAML readers silently keep the last."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                problem = f"the key {key.value!r} is given twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
        return node


def _convert(value: Any, kind: Any, field: str) -> Any:
    """`value` as the annotation `kind` says, or an InputError that begins with `field`."""
    origin, args = get_origin(kind) or kind, get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, types.UnionType):
        return _union(value, args, field)
    if origin is Literal:
        if any(value == option and type(value) is type(option) for option in args):
            return value
        hint = suggest(str(value), map(str, args)).removeprefix("; ")
        raise _wrong(field, value, "one of the choices", hint)
    if dataclasses.is_dataclass(origin):
        return _dataclass(value, origin, field)
    if origin in (list, tuple, Sequence):
        return _sequence(value, origin, args, field)
    if origin in (dict, Mapping):
        return _mapping(value, args or (Any, Any), field)
    return _scalar(value, kind, field)


_WANTED: dict[Any, tuple[str, str]] = {
    bool: ("true or false", "write true or false, without quotes"),
    int: ("a whole number", "write digits only, such as 1000"),
    float: ("a finite number", "write a number, such as 0.1 or 1e-4"),
    str: ("text", "put it in quotes"),
    Path: ("a path", "write it as text, in quotes"),
    types.NoneType: ("empty", "leave it empty"),
    list: ("a list", "write [a, b], or one `- item` per line"),
    dict: ("a mapping", "write one `name: value` per line"),
}


def _scalar(value: Any, kind: Any, field: str) -> Any:
    if isinstance(value, bool):
        good = kind is bool
    elif kind is float and isinstance(value, int | float | str):
        # Text too: YAML reads 1e-4, which has no dot, as text.
        with contextlib.suppress(ValueError, OverflowError):
            value = float(value)
        good = isinstance(value, float) and math.isfinite(value)
    else:
        good = isinstance(value, {Path: str | Path}.get(kind, kind))
    if not good:
        raise _wrong(field, value, *_WANTED[kind])
    try:
        return Path(value).expanduser() if kind is Path else value
    except RuntimeError:
        raise _wrong(field, value, "a path", "no user of that name has a home folder") from None


def _union(value: Any, kinds: tuple[Any, ...], field: str) -> Any:
    """The first of `kinds`, in the order they are written, that takes the value."""
    if value is None and types.NoneType in kinds:
        return None
    errors = []
    for kind in kinds:
        if kind is not types.NoneType:
            try:
                return _convert(value, kind, field)
            except InputError as error:
                errors.append(str(error))
    raise InputError(", or ".join(errors))


def _sequence(value: Any, kind: Any, args: tuple[Any, ...], field: str) -> Any:
    if not isinstance(value, list | tuple):
        raise _wrong(field, value, *_WANTED[list])
    if kind is tuple and args and args[-1] is not Ellipsis:
        if len(value) != len(args):
            raise _wrong(
                field, value, f"a list of {len(args)}", f"give {counted(len(args), 'values')}"
            )
    else:
        args = (args[0] if args else Any,) * len(value)
    items = (_convert(value[i], args[i], f"{field}[{i}]") for i in range(len(value)))
    return list(items) if kind is list else tuple(items)


def _mapping(value: Any, args: tuple[Any, ...], field: str) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise _wrong(field, value, *_WANTED[dict])
    return {
        _convert(key, args[0], _child(field, key)): _convert(item, args[1], _child(field, key))
        for key, item in value.items()
    }


def _dataclass(value: Any, cls: Any, field: str) -> Any:
    if isinstance(value, cls):
        return value
    given, hints = _mapping(value, (Any, Any), field), _hints(cls)
    fields = {item.name: item for item in dataclasses.fields(cls) if item.init}
    renamed: Mapping[str, str] = getattr(cls, "RENAMED", {})
    removed: Mapping[str, str] = getattr(cls, "REMOVED", {})
    for key in given:
        if key in removed:
            raise _error(_child(field, key), removed[key])
        if key in renamed:
            raise _error(_child(field, key), f"is called {renamed[key]} now; rename it")
        if key not in fields:
            raise _error(_child(field, key), f"unknown field{suggest(str(key), fields)}")
    for name, item in fields.items():
        if name not in given and item.default is item.default_factory is dataclasses.MISSING:
            raise _error(_child(field, name), "missing, and it has no default; add it")
    for name in given:
        given[name] = _convert(given[name], hints[name], _child(field, name))
    try:
        return cls(**given)
    except ValueError as error:
        raise _error(field, str(error)) from None


def _child(field: str, name: object) -> str:
    return f"{field}.{name}" if field else str(name)


def _error(field: str, problem: str) -> InputError:
    return InputError(f"{field}: {problem}" if field else problem)


def _wrong(field: str, value: Any, wanted: str, fix: str) -> InputError:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return _error(field, f"{shown} is not {wanted}; {fix}")
