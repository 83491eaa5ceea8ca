"""`ric --help` is quick, because nothing heavy is imported for it."""

import statistics
import subprocess
import sys
import time

import pytest

HEAVY = ["torch", "diffusers", "transformers", "peft", "accelerate", "open_clip", "pandas", "PIL"]
COMMANDS = ["generate", "sweep", "score", "label", "train", "export"]

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
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, timeout=60)


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
    seconds = []
    for _ in range(7):
        start = time.perf_counter()
        done = python("-m", "ric_diffusion", "--help")
        seconds.append(time.perf_counter() - start)
        assert done.returncode == 0, done.stderr
    assert statistics.median(seconds) < 0.5, seconds


@pytest.mark.parametrize("package", ["ric_diffusion", "ric_diffusion.config", "scorers"])
def test_import_is_light(package: str) -> None:
    code = f"import sys, {package}; print(sorted(set({HEAVY}) & set(sys.modules)))"
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
