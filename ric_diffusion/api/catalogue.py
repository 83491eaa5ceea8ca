"""Which models there are, told without loading any."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.util import find_spec

from ric_diffusion.models.known import BUNDLED, FAMILIES, INSTALL, PACKAGES, TITLES


@dataclass(frozen=True, kw_only=True)
class BundledModel:
    """A model that needs neither a folder nor the hub.

    Attributes:
        name: what ``load`` takes.
        rewards: of the adapter that comes with it; none if it has none.
        install: what brings it; empty if it is here.
    """

    name: str
    rewards: tuple[str, ...] = ()
    install: str = ""


@dataclass(frozen=True, kw_only=True)
class ListedFamily:
    """A family of models, whose checkpoints are named by hub id, folder or file.

    Attributes:
        name: as adapters name it.
        title: as a person calls it.
    """

    name: str
    title: str


def bundled_models() -> tuple[BundledModel, ...]:
    """Those that come along, and those that come in a package."""
    own = (BundledModel(name=name, rewards=_rewards(name)) for name in BUNDLED)
    others = (
        BundledModel(
            name=name,
            install="" if find_spec(package) and find_spec("gguf") else INSTALL,
        )
        for name, package in PACKAGES.items()
    )
    return (*own, *others)


def listed_families() -> tuple[ListedFamily, ...]:
    """All that are known, in the order in which a checkpoint's is looked for."""
    return tuple(ListedFamily(name=name, title=TITLES[name]) for name in FAMILIES)


def _rewards(name: str) -> tuple[str, ...]:
    path = BUNDLED[name] / "ric_adapter" / "ric_adapter.json"
    space = json.loads(path.read_text(encoding="utf-8"))["reward_space"]
    return tuple(reward["name"] for reward in space["rewards"])
