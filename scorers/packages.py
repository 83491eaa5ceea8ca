"""Packages that only some scorers need: found without importing them."""

from __future__ import annotations

from importlib import util
from pathlib import Path

from scorers.base import ScorerError


def required(scorer: str, package: str, install: str | None = None) -> Path:
    """The folder of an installed package; ScorerError, with the command that mends it, if it is
    not there. ``install``: its name on PyPI where that is another one."""
    spec = util.find_spec(package)
    if spec is None or not spec.origin:
        raise ScorerError(
            f"{scorer}: the package {package} is not installed; pip install {install or package}"
        )
    return Path(spec.origin).parent
