"""Imports only ever point up the table of rooms: a room knows the rooms above it, never below.

The table is that of docs/architecture.md; a new room or a new arrow is added in both.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent

# From top to bottom: a room knows those above it, never those below. `models` has rooms of its own.
ROOMS = [
    "io",
    "rewards",
    "data",
    "conditioning",
    "adapters",
    "models",  # protocol, family and what all models share
    "models.diffusion",
    "models.causal_lm",
    "training",
    "evaluation",
    "api",
    "app",
    "cli",
    "comfyui",
]
ANYWHERE = {"__version__"}
KNOWS_ALL = {"__init__", "__main__", "app", "cli", "comfyui"}
# Beyond the order: neighbours that must not know each other, and what sees models by protocol only.
STRANGERS = {
    "rewards": {"scorers"},
    "conditioning": {"data", "scorers"},
    "models.causal_lm": {"models.diffusion"},
    "training": {"models.diffusion", "models.causal_lm"},
    "evaluation": {"models.diffusion", "models.causal_lm"},
}

# Which third parties a room may name, where the table restricts them.
ONLY = {"rewards": {"numpy", "moocore"}}
NEVER = {"training": {"diffusers"}, "evaluation": {"diffusers"}, "models.causal_lm": {"diffusers"}}
# Words no identifier in a room may contain.
UNSPOKEN = {"training": ("diffusers", "pipeline")}


def room_of(name: str) -> str:
    """The room of a dotted name below ric_diffusion, "" for ric_diffusion itself."""
    parts = name.split(".")
    inner = ".".join(parts[:2])
    return inner if inner in ROOMS else parts[0]


def imports(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """(line, absolute dotted name) of everything imported, at any depth, by any of three means."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                parents = parents[: len(parents) - node.level + 1]
                base = ".".join([*parents, *filter(None, [base])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = ast.unparse(node.func).split(".")[-1]
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value


def identifiers(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        for field in ("id", "attr", "name", "arg", "asname", "module"):
            word = getattr(node, field, None)
            if isinstance(word, str):
                yield getattr(node, "lineno", 0), word


def complaint(room: str, name: str) -> str | None:
    """Why `room` must not import `name`, or None."""
    top, _, rest = name.partition(".")
    if top in ("scripts", "tests", "notebooks"):
        return f"the library must not know {top}/"
    if room in KNOWS_ALL:
        return None
    if top == "ric_diffusion":
        other = room_of(rest)
        if room == "scorers":
            return "scorers know nothing of ours"
        if other in ANYWHERE or other == room:
            return None
        known = other in ROOMS and ROOMS.index(other) < ROOMS.index(room)
        known = known and other not in STRANGERS.get(room, ())
        return None if known else f"{room} must not know {other or 'the whole'}"
    if top == "scorers":
        return f"{room} must not know {top}" if top in STRANGERS.get(room, ()) else None
    if top in NEVER.get(room, ()):
        return f"{room} must not know {top}"
    if room in ONLY and top not in ONLY[room] and top not in sys.stdlib_module_names:
        return f"{room} may import only {sorted(ONLY[room])}"
    return None


def violations(root: Path) -> list[str]:
    found = []
    for path in sorted([*root.glob("ric_diffusion/**/*.py"), *root.glob("scorers/**/*.py")]):
        relative = path.relative_to(root)
        dotted = ".".join(relative.with_suffix("").parts)
        room = "scorers" if relative.parts[0] == "scorers" else room_of(dotted.partition(".")[2])
        if room not in {*ROOMS, *KNOWS_ALL, "scorers"}:
            found.append(f"{relative}: {room} is not a room of the table")
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        lines = [
            (line, why)
            for line, name in imports(tree, ".".join(relative.parent.parts))
            if (why := complaint(room, name))
        ]
        for line, word in identifiers(tree):
            if any(bad in word.lower() for bad in UNSPOKEN.get(room, ())):
                lines.append((line, f"{room} must not name {word}"))
        found += [f"{relative}:{line}: {why}" for line, why in lines]
    return found


def test_every_arrow_points_up() -> None:
    assert violations(REPOSITORY) == []


def build(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_allowed_arrows(tmp_path: Path) -> None:
    tree = build(
        tmp_path,
        {
            "scorers/__init__.py": "import numpy\nfrom scorers.jpeg import J\nfrom . import jpeg",
            "scorers/jpeg.py": "def f():\n    import torch",
            "ric_diffusion/__init__.py": "from ric_diffusion.models.diffusion.pipeline import P",
            "ric_diffusion/cli/a.py": "def f():\n    from ric_diffusion import api, training",
            "ric_diffusion/io/errors.py": "import difflib",
            "ric_diffusion/io/config.py": "import yaml\nfrom ric_diffusion.io.errors import E",
            "ric_diffusion/rewards/space.py": "import json, numpy, moocore\nfrom .front import f",
            "ric_diffusion/rewards/front.py": "from ric_diffusion.io.errors import InputError",
            "ric_diffusion/data/label.py": "import scorers\nfrom ric_diffusion.rewards import S",
            "ric_diffusion/models/family.py": "from ric_diffusion.adapters import adapter",
            "ric_diffusion/models/diffusion/a.py": "import diffusers\nfrom ..protocol import w",
            "ric_diffusion/models/diffusion/b.py": "from ric_diffusion import __version__, io",
            "ric_diffusion/training/loop.py": "import torch\nfrom ric_diffusion.data import r",
            "ric_diffusion/training/a.py": "from ric_diffusion.models.protocol import B",
            "ric_diffusion/evaluation/grid.py": "from ric_diffusion.models.cost import B",
            "ric_diffusion/app/main.py": "from ric_diffusion.api import sweep",
            "ric_diffusion/comfyui/a.py": "from ric_diffusion.models.diffusion import modulation",
        },
    )
    assert violations(tree) == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("scorers/a.py", "from ric_diffusion.io.errors import InputError"),
        ("scorers/a.py", "import ric_diffusion"),
        ("ric_diffusion/rewards/a.py", "from ric_diffusion.data import records"),
        ("ric_diffusion/rewards/a.py", "from ..data import records"),
        ("ric_diffusion/rewards/a.py", "from .. import data"),
        ("ric_diffusion/rewards/a.py", "from ric_diffusion import data"),
        ("ric_diffusion/rewards/a.py", "import ric_diffusion.data.records as r"),
        ("ric_diffusion/rewards/a.py", "import scorers"),
        ("ric_diffusion/rewards/a.py", "def f():\n    import torch"),
        ("ric_diffusion/rewards/a.py", "import ric_diffusion"),
        ("ric_diffusion/rewards/__init__.py", "from ..data import records"),
        ("ric_diffusion/data/a.py", "from ric_diffusion.conditioning import words"),
        ("ric_diffusion/data/a.py", "from ric_diffusion import RewardSpace"),
        ("ric_diffusion/conditioning/a.py", "from ric_diffusion.data import records"),
        ("ric_diffusion/conditioning/a.py", "from ric_diffusion.adapters import adapter"),
        ("ric_diffusion/conditioning/a.py", "def f():\n    from ric_diffusion.cli import main"),
        ("ric_diffusion/conditioning/a.py", "__import__('scripts.b')"),
        ("ric_diffusion/adapters/a.py", "from ric_diffusion.models import family"),
        ("ric_diffusion/models/family.py", "from ric_diffusion.models.diffusion import pipeline"),
        ("ric_diffusion/models/diffusion/a.py", "from ric_diffusion.training import loop"),
        (
            "ric_diffusion/models/diffusion/a.py",
            "import importlib\nimportlib.import_module('tests.b')",
        ),
        (
            "ric_diffusion/models/diffusion/a.py",
            "from ric_diffusion.models.causal_lm import backend",
        ),
        (
            "ric_diffusion/models/causal_lm/a.py",
            "from ric_diffusion.models.diffusion import backend",
        ),
        ("ric_diffusion/models/causal_lm/a.py", "import diffusers"),
        ("ric_diffusion/models/causal_lm/a/b.py", "from ...diffusion import backend"),
        ("ric_diffusion/training/a.py", "from ric_diffusion.models.diffusion.backend import B"),
        ("ric_diffusion/training/a.py", "from ric_diffusion.models.causal_lm.backend import B"),
        ("ric_diffusion/training/a.py", "def f():\n    from diffusers.training_utils import E"),
        ("ric_diffusion/training/a.py", "import importlib\nimportlib.import_module('diffusers')"),
        ("ric_diffusion/training/a.py", "def f(pipeline): ..."),
        ("ric_diffusion/training/a.py", "def f(backend): backend.pipeline()"),
        ("ric_diffusion/training/a.py", "def f(x): return StableDiffusionPipeline(x)"),
        ("ric_diffusion/training/a.py", "from ric_diffusion.evaluation import sweep"),
        ("ric_diffusion/evaluation/a.py", "from ric_diffusion.models.diffusion.backend import B"),
        ("ric_diffusion/evaluation/a.py", "from ric_diffusion.api import train"),
        ("ric_diffusion/evaluation/a.py", "import diffusers"),
        ("ric_diffusion/api.py", "from ric_diffusion.cli import main"),
        ("ric_diffusion/models/diffusion/a.py", "from ric_diffusion.comfyui import nodes"),
        ("ric_diffusion/io/errors.py", "from ric_diffusion.rewards import S"),
        ("ric_diffusion/io/files.py", "from ric_diffusion.data import records"),
        ("ric_diffusion/utils.py", "import os"),
        ("ric_diffusion/helpers/a.py", "import os"),
        ("ric_diffusion/cli/a.py", "from scripts.train import main"),
        ("ric_diffusion/cli/a.py", "import tests.test_imports"),
    ],
)
def test_arrows_that_point_down_are_found(tmp_path: Path, path: str, text: str) -> None:
    found = violations(build(tmp_path, {path: text}))
    assert len(found) >= 1
    assert all(line.startswith(path) for line in found)
