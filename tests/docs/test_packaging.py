"""What is installed: the wheel holds the library alone, and each room imports what it may."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ric_diffusion.io.extras import NEEDS

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = {
    name: [Requirement(line) for line in lines]
    for name, lines in {**PROJECT["optional-dependencies"], "": PROJECT["dependencies"]}.items()
}
# Packages whose name on PyPI is not that of their module.
NAMES = {
    "PIL": "pillow",
    "open_clip": "open-clip-torch",
    "pillow_jxl": "pillow-jxl-plugin",
    "yaml": "pyyaml",
}
# The extras that a room may import from, beside the core. What needs which is asked before, by
# ric_diffusion.io.extras or by the scorer.
MAY = {
    "io": {"scale"},
    "scorers": {"llm"},
    "data": {"train", "llm", "formats"},
    "adapters": {"train"},
    "models": {"train", "llm", "quantized"},
    "training": {"train", "quantized", "optimizers"},
    "evaluation": {"eval"},
    "app": {"app"},
    "api": {"scale"},
}
COMES_WITH = {"starlette": "gradio", "fsspec": "huggingface_hub", "pydantic": "fastapi"}
# ComfyUI itself, there when it loads our nodes; and what a tracker hands over, which is asked for
# by its name.
NOT_OURS = {"comfy", "trackio"}


def brought_by(extra: str) -> set[str]:
    return {canonicalize_name(requirement.name) for requirement in EXTRAS[extra]}


def imported(path: Path) -> set[str]:
    """The top-level modules of others that a file imports, at any depth."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found.add(node.module.partition(".")[0])
    return found - sys.stdlib_module_names - {"ric_diffusion", "scorers"} - NOT_OURS


def room(path: Path) -> str:
    top, second, *_ = path.relative_to(ROOT).parts
    return top if top == "scorers" else second.removesuffix(".py")


def test_rooms_import_what_their_extra_brings():
    wrong = []
    for path in sorted([*ROOT.glob("ric_diffusion/**/*.py"), *ROOT.glob("scorers/**/*.py")]):
        allowed = brought_by("").union(*map(brought_by, MAY.get(room(path), ())))
        for module in imported(path):
            package = canonicalize_name(NAMES.get(module, COMES_WITH.get(module, module)))
            if package not in allowed:
                wrong.append(f"{path.relative_to(ROOT)}: {module}")
    assert wrong == []


def test_what_is_asked_for_is_in_its_extra():
    for extra, packages in NEEDS.items():
        assert set(packages) <= brought_by(extra)


def test_all_is_every_extra_of_users():
    [everything] = EXTRAS["all"]
    # Without a GPU bitsandbytes is of no use, and says so whenever diffusers is imported.
    assert everything.extras == EXTRAS.keys() - {"", "all", "dev", "quantized"}


def test_floors_are_those_that_are_tested():
    lines = (ROOT / ".ci" / "floors.txt").read_text("utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line)
    pinned.pop("torchvision")  # comes with open_clip_torch
    floors = {}
    for extra in ("", "train", "eval", "llm", "optimizers"):
        for requirement in EXTRAS[extra]:
            [floors[requirement.name]] = [
                part.version for part in requirement.specifier if part.operator == ">="
            ]
    assert pinned == floors


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [path] = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_wheel_holds_the_library_and_the_bundled_model(wheel):
    names = wheel.namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {re.sub(r"-.*\.dist-info", ".dist-info", top) for top in tops} == {
        "ric_diffusion",
        "ric_diffusion.dist-info",
        "scorers",
    }
    ours = [path for top in ("ric_diffusion", "scorers") for path in (ROOT / top).rglob("*.*")]
    assert {path.relative_to(ROOT).as_posix() for path in ours if path.suffix != ".pyc"} == {
        name for name in names if ".dist-info/" not in name
    }
    for name in ("ric_diffusion/py.typed", "scorers/py.typed", "ric_diffusion/cli/parser.py"):
        assert name in names
    assert "ric_diffusion/assets/emoji-64/ric_adapter/ric_adapter.json" in names
    assert "scorers/assets/emoji-clip/open_clip_model.safetensors" in names


def test_wheel_installs_the_command(wheel):
    [entry_points] = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert "ric = ric_diffusion.__main__:main" in wheel.read(entry_points).decode()


# Runs `ric` where the packages of all extras are not to be found, whatever is installed here.
CORE_ALONE = """
import sys
from importlib.machinery import PathFinder

HIDDEN = set({hidden!r})


class WithoutExtras(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in HIDDEN else super().find_spec(name, path, target)


sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutExtras
from ric_diffusion.cli import main

for line in {lines!r}:
    print(main(line.split()))
"""


def run_core(folder: Path, *lines: str) -> subprocess.CompletedProcess[str]:
    """Commands, one after the other in one process, with the core dependencies alone."""
    extras = set().union(
        *(brought_by(extra) for extra in EXTRAS if extra not in ("", "all", "dev"))
    )
    hidden = sorted({name.replace("-", "_") for name in extras} | {"vaderSentiment"})
    script = CORE_ALONE.format(hidden=hidden, lines=lines)
    command = [sys.executable, "-c", script]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_the_core_alone_generates_sweeps_scores_and_exports(tmp_path):
    adapter = ROOT / "ric_diffusion" / "assets" / "emoji-64" / "ric_adapter"
    done = run_core(
        tmp_path,
        "generate --prompt apple --targets compressibility=1 --steps 2 --out out",
        "sweep --prompt apple --points 2 --steps 2 --out sweep",
        "score out --scorers colorfulness",
        f"export --adapter {adapter} --format kohya --out sliders.safetensors",
    )
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line in "012"] == ["0"] * 4, done.stderr
    for name in ("out/0001-apple-seed0.png", "sweep/grid.png", "sliders.safetensors"):
        assert (tmp_path / name).exists()


def test_what_needs_an_extra_names_it_in_one_line(tmp_path):
    (tmp_path / "gpt").mkdir()
    (tmp_path / "gpt" / "config.json").write_text('{"model_type": "gpt2"}')
    (tmp_path / "photos").mkdir()
    for name in ("config.yaml", "prompts.txt"):
        (tmp_path / name).touch()
    lines = {
        "label photos --scorers colorfulness --out labelled": "train",
        "train config.yaml": "train",
        "online config.yaml": "train",
        "evaluate --prompts prompts.txt --out report": "eval",
        "app": "app",
        "serve": "scale",
        "serve-scorer colorfulness": "scale",
        "generate --model gpt --prompt hello": "llm",
    }
    before = sorted(tmp_path.iterdir())
    done = run_core(tmp_path, *lines)
    assert done.stdout.split() == ["2"] * len(lines), done.stderr
    said = done.stderr.splitlines()
    assert len(said) == len(lines)
    for line, (command, extra) in zip(said, lines.items(), strict=True):
        assert line.startswith(f"ric {command.split()[0]}: ")
        assert line.endswith(f"not installed; pip install 'ric-diffusion[{extra}]'")
    assert sorted(tmp_path.iterdir()) == before
