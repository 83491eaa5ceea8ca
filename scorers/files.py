"""Scorers in a file of the user's own, without a package: ``greyness.py:Greyness``.

The file is run. So only what a person typed comes here, on a command line, in a call or in a
config of theirs; what an adapter or a labelled folder names goes to ``scorers.load``, which knows
installed scorers alone.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from types import ModuleType
from typing import Any

from scorers.base import Scorer, ScorerError, first_line
from scorers.building import build, check_factory
from scorers.loading import available, load
from scorers.spec import parse_spec, suggest

_SPEC = re.compile(r"(?P<path>.+\.py):(?P<factory>[A-Za-z_]\w*)(?P<options>:.*)?")


def is_file(spec: str) -> bool:
    """Whether a spec names a class in a file."""
    return _SPEC.fullmatch(spec) is not None


def load_given(spec: str) -> Scorer:
    """What a person typed: ``name:key=value,…`` of an installed scorer, or
    ``file.py:Class:key=value,…`` of one in a file, which is run.

    The fingerprint of the latter ends with a digest of the file: an edited one scores otherwise.
    ScorerError for what cannot be had.
    """
    match = _SPEC.fullmatch(spec)
    if match is None:
        return load(spec)
    path, factory_name = os.path.expanduser(match["path"]), match["factory"]
    _, options = parse_spec(f"{factory_name}{match['options'] or ''}")
    where = f"scorer {path}:{factory_name}"
    module, digest = _run(path, where)
    found = getattr(module, factory_name, None)
    if found is None:
        home = module.__name__
        own = [key for key, v in vars(module).items() if getattr(v, "__module__", "") == home]
        hint = suggest(factory_name, own, "there are")
        raise ScorerError(f"{where}: no such class or function in the file; {hint}")
    factory = check_factory(found, where, "name one")
    name = getattr(factory, "name", None)
    if not isinstance(name, str):
        raise ScorerError(f'{where} has no name; write name = "…" in the class')
    if name in available():
        raise ScorerError(f"{where}: {name!r} is the name of an installed scorer; choose another")
    scorer: Any = build(name, factory, options, where, "mend the file")
    try:
        scorer.fingerprint = f"{scorer.fingerprint} file-{digest}"
    except AttributeError:
        raise ScorerError(f"{where}: its fingerprint cannot be set; make it an attribute") from None
    return scorer  # type: ignore[no-any-return]  # build checked it


def absolute(spec: str) -> str:
    """The spec as it means the same from any folder."""
    match = _SPEC.fullmatch(spec)
    if match is None:
        return spec
    path = os.path.abspath(os.path.expanduser(match["path"]))
    return f"{path}:{match['factory']}{match['options'] or ''}"


def _run(path: str, where: str) -> tuple[ModuleType, str]:
    """The module of a file, and the digest of its code. It is run once a process."""
    try:
        with open(path, "rb") as file:
            code = file.read()
    except OSError as error:
        raise ScorerError(f"{where}: the file cannot be read ({error.strerror})") from None
    digest = hashlib.sha256(code).hexdigest()[:12]
    name = f"ric_scorer_{digest}_{hashlib.sha256(os.path.abspath(path).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name], digest
    module = ModuleType(name)
    module.__file__ = path
    sys.modules[name] = module  # where dataclasses look for it
    try:
        exec(compile(code, path, "exec"), vars(module))  # these bytes, whose digest this is
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ScorerError(f"{where}: the file fails: {first_line(error)}; mend it") from error
    return module, digest
