"""`ric --help` is quick, because nothing heavy is imported for it."""

import resource
import shlex
import statistics
import subprocess
import sys

import pytest

from ric_diffusion.cli import EXAMPLES, build_parser, main

HEAVY = ["torch", "diffusers", "transformers", "peft", "accelerate", "open_clip", "pandas", "PIL"]
HEAVY += ["gradio"]
COMMANDS = ["generate", "sweep", "score", "label", "train", "online", "evaluate", "app", "export"]
COMMANDS += ["prompt", "push"]

CALL = f"""
import sys
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
        assert name == "ric" and build_parser().parse_args(args).verb == command


def test_module_is_the_command() -> None:
    done = python("-m", "ric_diffusion", "--help")
    assert done.returncode == 0, done.stderr
    assert "usage: ric" in done.stdout


def test_help_answers_in_half_a_second() -> None:
    # Processor seconds: the wall clock's on an idle machine, and on a busy one still its own.
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert python("-m", "ric_diffusion", "--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert statistics.median(seconds) < 0.5, seconds


@pytest.mark.parametrize("package", ["ric_diffusion", "ric_diffusion.config", "scorers"])
def test_import_is_light(package: str) -> None:
    code = f"import sys, {package}; print(sorted(set({HEAVY}) & set(sys.modules)))"
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
