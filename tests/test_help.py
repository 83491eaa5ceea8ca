"""`ric --help` is quick, because nothing heavy is imported for it."""

import resource
import statistics
import subprocess
import sys

import pytest

HEAVY = [
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "accelerate",
    "open_clip",
    "pandas",
    "PIL",
    "gradio",
]
COMMANDS = ["generate", "sweep", "score", "label", "train", "evaluate", "app", "export"]

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
