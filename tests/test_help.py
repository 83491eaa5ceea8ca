"""`ric --help` is quick, because nothing heavy is imported for it."""

import ast
import resource
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import ric_diffusion
from ric_diffusion.cli import main
from ric_diffusion.cli.examples import EXAMPLES
from ric_diffusion.cli.parser import build_parser

HEAVY = ["torch", "diffusers", "transformers", "peft", "accelerate", "open_clip", "pandas", "PIL"]
HEAVY += ["gradio", "fastapi", "uvicorn"]
COMMANDS = ["generate", "sweep", "score", "label", "train", "online", "evaluate", "app", "export"]
COMMANDS += ["prompt", "push", "adopt", "serve", "serve-scorer", "scorers", "models", "init"]
COMMANDS += ["completion"]

CALL = f"""
import sys
from pathlib import Path
from ric_diffusion.cli import main
try:
    code = main(["--help"])
except SystemExit as stop:
    code = stop.code
sys.stdout.flush()
loaded = sorted(set({HEAVY}) & set(sys.modules))
print(loaded, file=sys.stderr)
sys.exit(code)
"""


def python(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, timeout=120)


def test_help_imports_nothing_heavy() -> None:
    done = python("-c", CALL)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == "[]"
    assert "usage: ric" in done.stdout
    for command in COMMANDS:
        assert command in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_verb_shows_examples_that_it_understands(command: str, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert EXAMPLES[command]
    for line in EXAMPLES[command]:
        assert f"\n  {line}\n" in shown  # on a line of its own, not wrapped
        name, *args = shlex.split(line)
        args = args[: args.index(">")] if ">" in args else args  # the rest is the shell's
        assert name == "ric" and build_parser().parse_args(args).verb == command


def test_module_is_the_command() -> None:
    done = python("-m", "ric_diffusion", "--help")
    assert done.returncode == 0, done.stderr
    assert "usage: ric" in done.stdout


@pytest.mark.parametrize(
    "args", [["-m", "ric_diffusion", "--help"], ["-c", "import ric_diffusion"]], ids=str
)
def test_help_and_import_are_quick(args: list[str]) -> None:
    # Processor seconds: the wall clock's on an idle machine, and on a busy one still its own.
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert python(*args).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert statistics.median(seconds) < 0.3, seconds


@pytest.mark.parametrize(
    "package", ["ric_diffusion", "ric_diffusion.api", "ric_diffusion.io.config", "scorers"]
)
def test_import_is_light(package: str) -> None:
    code = f"import sys, {package}; print(sorted(set({HEAVY}) & set(sys.modules)))"
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_verbs_import_only_the_api() -> None:
    """Each is arguments in, a call and what is printed."""
    allowed = {
        "ric_diffusion",
        "ric_diffusion.io.counting",
        "ric_diffusion.api",
        "ric_diffusion.app",
        "ric_diffusion.cli",
    }
    for command in COMMANDS:
        source = Path(ric_diffusion.__file__).parent / "cli" / f"{command.replace('-', '_')}.py"
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ric"):
                assert node.module in allowed or node.module.startswith("ric_diffusion.cli.")


@pytest.mark.parametrize("text", ["4/4", "5/4", "1", "a/b", "1/0"])
def test_shards(text: str, capsys) -> None:
    label = ["label", "x", "--scorers", "colorfulness", "--out", "y", "--shard"]
    assert build_parser().parse_args([*label, "2/4"]).shard == (2, 4)
    with pytest.raises(SystemExit) as stop:
        build_parser().parse_args([*label, text])
    assert stop.value.code == 2 and "write K/N" in capsys.readouterr().err
