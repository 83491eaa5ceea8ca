"""README and docs: they build, they are short where they promise it, and what they show works."""

import argparse
import ast
import importlib
import inspect
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ric_diffusion.cli.parser import build_parser

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")]
PAGES += sorted((ROOT / "docs").glob("*.md"))


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.M | re.S)


def commands(page: Path) -> Iterator[list[str]]:
    """Every command in the shell blocks of a page, without its comment, as words."""
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            for command in line.split(" && "):
                if words := shlex.split(command, comments=True):
                    yield words


def scripts(page: Path) -> list[list[str]]:
    """The commands of a page that run a script of ours, without Python's name."""
    return [w[1:] for w in commands(page) if w[0] == "python" and w[1].startswith("scripts/")]


OF = {"command": commands, "script": scripts}


def every(kind: str) -> list:
    """All of a kind in all pages, named after their page and number for pytest."""
    found = []
    for page in PAGES:
        items = OF[kind](page) if kind in OF else blocks(page, kind)
        found += [pytest.param(item, id=f"{page.stem}-{i}") for i, item in enumerate(items)]
    return found


def test_readme_is_short():
    assert len((ROOT / "README.md").read_bytes()) <= 8000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_and_figures_are_there(page):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8"))
    local = [link.partition("#")[0] for link in links if not re.match("[a-z]+:|#", link)]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_documentation_builds_without_a_warning(tmp_path):
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(build, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    reference = (tmp_path / "reference" / "index.html").read_text("utf-8")
    for name in ("train", "evaluate", "RiCPipeline", "RewardSpace", "available"):
        assert re.search(rf'id="[\w.]+\.{name}"', reference), name
    # Read by a browser as it is: nothing of a page comes from elsewhere.
    for page in tmp_path.glob("**/index.html"):
        assert not re.search(r'(src|rel="stylesheet" href)="https?:', page.read_text("utf-8")), page


def test_every_room_is_in_the_architecture():
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    rooms = [path.parent.name for path in ROOT.glob("ric_diffusion/*/__init__.py")]
    assert [room for room in rooms if f"{room}/" not in text] == []


class Parsed(Exception):
    """A script has read its command line."""


@pytest.fixture
def read(monkeypatch):
    """read(words): a script of ours takes these for its name and its options."""
    parse = argparse.ArgumentParser.parse_args

    def and_no_further(parser):
        parse(parser)
        raise Parsed

    def run(words):
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(Parsed):
            runpy.run_path(str(ROOT / words[0]), run_name="__main__")

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", and_no_further)
    return run


@pytest.mark.parametrize("words", every("script"))
def test_scripts_take_these_options(words, read):
    read(words)


def test_an_option_that_a_script_has_not_is_noticed(read):
    with pytest.raises(SystemExit):
        read(["scripts/mutants.py", "--cuont", "3"])


@pytest.mark.parametrize("words", every("command"))
def test_commands_exist(words):
    if words[0] == "ric" and words[1] != "COMMAND":
        args = words[1 : words.index(">")] if ">" in words else words[1:]
        options = build_parser().parse_args(args)
        given = [getattr(options, name, None) for name in ("config", "prompts", "adapter")]
        paths = [v for value in given for v in (value if isinstance(value, list) else [value])]
    elif words[0] == "python" and words[1] != "-c":
        paths = words[1:2] + [w for w in words if w.endswith(".yaml")]
    elif words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text("utf-8"), re.M)
        paths = []
    else:
        return
    for path in filter(None, map(str, filter(None, paths))):
        if path.startswith(("scripts/", "ric_diffusion/")):
            assert (ROOT / path).exists(), path


@pytest.mark.parametrize("source", every("python"))
def test_python_names_what_there_is(source):
    names = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name] = importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            for alias in node.names:
                names[alias.asname or alias.name] = getattr(module, alias.name)
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        first, *rest = ast.unparse(node.func).split(".")
        if first in names and all(map(str.isidentifier, rest)):
            called = names[first]
            for name in rest:
                called = getattr(called, name)
            if not getattr(called, "__module__", "").startswith(("ric_diffusion", "scorers")):
                continue
            given = [object()] * len(node.args)
            inspect.signature(called).bind(*given, **{k.arg: k.value for k in node.keywords})


def test_readmes_first_lines_of_python_run(tmp_path):
    source = blocks(ROOT / "README.md", "python")[0]
    done = subprocess.run(
        [sys.executable, "-c", source],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "apple.png").stat().st_size > 0
    assert "colorfulness" in done.stdout
