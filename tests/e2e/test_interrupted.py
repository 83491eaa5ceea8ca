"""Ctrl+C at any moment of the start is one line and exit code 130."""

import signal
import time

import pytest

from ric_diffusion.io.signals import Stopped, heeded
from support.processes import starter

# Whoever runs the tests in the background has Ctrl+C ignored, and children inherit that. What is
# imported first takes a second here, and says when it begins.
PROGRAM = """
import importlib.abc, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)

wanted = sys.argv[1]

class Slow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == wanted:
            print("now", flush=True)
            try:
                time.sleep(60)
            except KeyboardInterrupt:
                raise RecursionError("as some libraries make of it")

sys.meta_path.insert(0, Slow())
from ric_diffusion.__main__ import main
sys.argv[1:] = ["generate", "--prompt", "red apple", "--out", "nowhere"]
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("ric_diffusion.cli", "ric: interrupted\n"),
        ("ric_diffusion.cli.generate", "ric generate: interrupted\n"),
        ("torch", "ric generate: interrupted\n"),
    ],
)
def test_while_it_imports(module, said, tmp_path):
    with starter() as start:
        process = start("-c", PROGRAM, module, cwd=tmp_path)
        assert process.stdout.readline() == "now\n"
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        printed, err = process.communicate(timeout=60)
    assert (process.returncode, printed, err) == (130, "", said)


@pytest.fixture
def interruptible():
    """Also where the tests run in the background, with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_what_a_library_makes_of_it_is_the_interruption():
    with pytest.raises(Stopped) as caught, heeded():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise RecursionError from None
    assert caught.value.number == signal.SIGINT
    with pytest.raises(ValueError), heeded():
        raise ValueError
